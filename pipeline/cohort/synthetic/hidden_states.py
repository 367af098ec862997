"""The hidden truth of the embedded cohort: what a case is, and what follows from it.

Four states per case are drawn first. They draw the pictures (`painting.py`), and from the same
states come a survival time, a subtype and a score, each with noise of its own: so every task can be
learned from pixels, and what the best predictor of the states can reach is known (`oracle.py`).

Pure Python, no numpy: the plan is made at every parse of the workflow. A case depends on the seed
and its own number alone, so that adding cases changes none.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from functools import lru_cache

STATES = ("tumour_fraction", "pleomorphism", "lymphocytes", "growth")
SITES = ("north", "east", "south", "west")
SUBTYPES = ("glandular", "nested", "trabecular")

STATE_ROOTS = (6, 17, 21, 22)

# Share of the tissue that is tumour, at state 0 and 1.
TUMOUR_RANGE = (0.15, 0.75)

# Log-hazard per standard deviation of (tumour fraction, pleomorphism, lymphocytes), scaled to
# HAZARD_SD in all: a C-index of about 0.8 is then the best that the states allow.
HAZARD_WEIGHTS = (0.55, 0.75, -0.65)
HAZARD_SD = 1.6
MEDIAN_MONTHS = 30.0
WEIBULL_SHAPE = 1.4

# The subtype is the growth state cut in three, with pathologists' disagreement near the cuts.
SUBTYPE_CUTS = (1 / 3, 2 / 3)
SUBTYPE_NOISE = 0.07

# The score grows with lymphocytes and falls with pleomorphism ("immune response").
SCORE_MEAN, SCORE_SD, SCORE_NOISE = 50.0, 10.0, 4.0
SCORE_WEIGHTS = (0.0, -0.5, 0.85)


# Covariates say a little of the hazard, by their correlation with it, and nothing else of the
# slides. They are drawn apart from all else, so that they change no label.
AGE_MEAN, AGE_SD, AGE_SHARE = 62.0, 11.0, 0.3
SEXES = ("female", "male")
STAGES = ("I", "II", "III", "IV")
STAGE_CUTS = (-0.5, 0.3, 1.1)  # of a number with mean 0 and variance 1
STAGE_SHARE = 0.4
STAGE_UNKNOWN = 0.05  # share of cases


@dataclasses.dataclass(frozen=True)
class HiddenCase:
    """A case of the embedded cohort with everything that a study would not know.

    Attributes:
        case_id, site: as in the sheet; sites differ in their stains.
        tumour_fraction: share of the tissue that is tumour.
        pleomorphism, lymphocytes, growth: 0 to 1, uniform over cases; see `painting.py`.
        log_hazard: of death, relative to the average case.
        time: months to death or censoring, at least 0.1.
        event: 1 = death.
        subtype: one of SUBTYPES.
        subtype_probabilities: of SUBTYPES, given the growth state.
        score: the continuous label.
        expected_score: its mean, given the states.
        age, sex, stage: covariates; '' of a stage that is not known.
    """

    case_id: str
    site: str
    tumour_fraction: float
    pleomorphism: float
    lymphocytes: float
    growth: float
    log_hazard: float
    time: float
    event: int
    subtype: str
    subtype_probabilities: tuple[float, ...]
    score: float
    expected_score: float
    age: float
    sex: str
    stage: str


@lru_cache(maxsize=4)
def hidden_cases(cases: int, censoring: float, seed: int) -> tuple[HiddenCase, ...]:
    """The first `cases` cases of the cohort with this seed.

    Args:
        cases: how many.
        censoring: expected share of censored cases, in [0, 1).
        seed: of the cohort.
    """
    rate = censoring_rate(censoring)
    return tuple(_case(number, rate, seed) for number in range(1, cases + 1))


def _case(number: int, rate: float, seed: int) -> HiddenCase:
    case_id = f"SYN-{number:04d}"
    rng = random.Random(f"{seed}/case/{case_id}")
    levels = state_levels(number, seed)
    z = [math.sqrt(12) * (level - 0.5) for level in levels]
    log_hazard = _log_hazard(z)
    time, event = outcome(rng, log_hazard, rate)
    latent = levels[3] + rng.gauss(0, SUBTYPE_NOISE)
    scale = math.hypot(*SCORE_WEIGHTS)
    expected = SCORE_MEAN + SCORE_SD * _dot(SCORE_WEIGHTS, z) / scale
    low, high = TUMOUR_RANGE
    age, sex, stage = _covariates(case_id, log_hazard / HAZARD_SD, seed)
    return HiddenCase(
        case_id=case_id,
        site=rng.choice(SITES),
        tumour_fraction=low + (high - low) * levels[0],
        pleomorphism=levels[1],
        lymphocytes=levels[2],
        growth=levels[3],
        log_hazard=log_hazard,
        time=time,
        event=event,
        subtype=SUBTYPES[sum(latent > cut for cut in SUBTYPE_CUTS)],
        subtype_probabilities=_subtype_probabilities(levels[3]),
        score=round(expected + rng.gauss(0, SCORE_NOISE), 2),
        expected_score=expected,
        age=age,
        sex=sex,
        stage=stage,
    )


def _covariates(case_id: str, hazard: float, seed: int) -> tuple[float, str, str]:
    """Age, sex and stage of a case whose log hazard is so many deviations above the average."""
    rng = random.Random(f"{seed}/covariates/{case_id}")

    def near(share: float) -> float:
        return share * hazard + math.sqrt(1 - share**2) * rng.gauss(0, 1)

    age = round(AGE_MEAN + AGE_SD * near(AGE_SHARE), 1)
    sex = rng.choice(SEXES)
    latent = near(STAGE_SHARE)
    stage = STAGES[sum(latent > cut for cut in STAGE_CUTS)]
    return age, sex, "" if rng.random() < STAGE_UNKNOWN else stage


def state_levels(number: int, seed: int) -> tuple[float, ...]:
    """The four states of a case in [0, 1), evenly spread and nearly independent over any cohort.

    Additive recurrence with steps of square roots (Richtmyer, 1951) from a seeded start. Of the
    roots up to 23 these four keep the correlations between states below 0.25 for 40 to 100 cases;
    independent draws leave 0.4 now and then, and a task's signal would depend on the seed.
    """
    start = random.Random(f"{seed}/states")
    return tuple((start.random() + number * math.sqrt(root)) % 1.0 for root in STATE_ROOTS)


def _log_hazard(z: list[float]) -> float:
    return HAZARD_SD * _dot(HAZARD_WEIGHTS, z) / math.hypot(*HAZARD_WEIGHTS)


def _dot(weights: tuple[float, ...], values: list[float]) -> float:
    return sum(w * v for w, v in zip(weights, values, strict=False))


def outcome(rng: random.Random, log_hazard: float, rate: float) -> tuple[float, int]:
    """Time and event of a case: the earlier of Weibull death and censoring times of one shape.

    Args:
        rng: gives two numbers.
        log_hazard: the case's.
        rate: of censoring, as `censoring_rate` finds it.
    """
    scale = MEDIAN_MONTHS / math.log(2) ** (1 / WEIBULL_SHAPE)
    power = 1 / WEIBULL_SHAPE
    death = scale * (rng.expovariate(1.0) / math.exp(log_hazard)) ** power
    draw = rng.expovariate(1.0)
    censored = scale * (draw / rate) ** power if rate > 0 else math.inf
    return max(0.1, round(min(death, censored), 1)), int(death <= censored)


@lru_cache(maxsize=4)
def censoring_rate(share: float) -> float:
    """The rate of censoring that takes this share of cases, over the distribution of states.

    With Weibull times of one shape, P(censored first) = c / (c + h) for rate c and hazard h.
    """
    if share <= 0:
        return 0.0
    hazards = [
        math.exp(_log_hazard([math.sqrt(12) * (v - 0.5) for v in state_levels(n, 0)]))
        for n in range(256)
    ]
    low, high = 1e-6, 1e6
    for _ in range(60):
        middle = math.sqrt(low * high)
        taken = sum(middle / (middle + h) for h in hazards) / len(hazards)
        low, high = (middle, high) if taken < share else (low, middle)
    return low


def _subtype_probabilities(growth: float) -> tuple[float, ...]:
    below = [
        0.5 * (1 + math.erf((cut - growth) / (SUBTYPE_NOISE * math.sqrt(2))))
        for cut in SUBTYPE_CUTS
    ]
    edges = [0.0, *below, 1.0]
    return tuple(b - a for a, b in itertools.pairwise(edges))
