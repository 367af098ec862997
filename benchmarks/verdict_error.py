"""How often a test calls one of two equally good models better, and what it finds where one is.

    python benchmarks/verdict_error.py [--cohorts 400] [--cases 150] [--jobs 2] [--seed 0]

Cohorts are drawn again, with their cases, labels and bags of tiles. Two models learn from each by
k-fold cross-validation, one from each of two teachers. In half of the cohorts both teachers show
the hidden state equally well: any "better" is an error, whichever model it favours, since another
cohort would have favoured the other. In the other half the second teacher shows it less well, and
"better" of the first is right. A test that takes the trained models as given (the bootstrap over
cases, DeLong) answers another question: whether *these* models differ on more cases.

Learners: `ridge` on the means of a case's tiles; `pooling`, which weighs tiles by what it has
learned and learns again; `network`, a hidden layer with random weights, which differ from training
to training. All end in ridge regression, of the class, or of the null model's martingale residuals
(the first step of a Cox regression). Tests: the candidates of `CANDIDATES`.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from sklearn.model_selection import BaseCrossValidator, StratifiedKFold, StratifiedShuffleSplit

from pipeline.evaluation.bootstrap import p_value, resample_folds, resample_weights, widened
from pipeline.evaluation.comparisons import fold_test
from pipeline.evaluation.delong import delong_test

TASKS = ("classification", "survival")
LEVEL = 0.05
RESAMPLES = 400
TILES, WIDTH = 24, 32
SHOWN = 0.25  # of a case's tiles show the hidden state
EQUAL, WEAKER = 3.0, 1.2  # how strongly they do
PENALTIES = np.logspace(0, 4, 9)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A cohort.

    Attributes:
        tiles: a teacher each, float64 (n, tiles, width).
        before: bool (n, n), row i is to be ranked above column j.
        stratum: int64 (n,), class or event, which folds balance.
        time: (n,); None in classification.
    """

    tiles: tuple[np.ndarray, np.ndarray]
    before: np.ndarray
    stratum: np.ndarray
    time: np.ndarray | None


def draw(rng: np.random.Generator, task: str, n: int, second: float) -> Drawn:
    """A cohort whose second teacher shows the hidden state with the strength `second`."""
    hidden = rng.normal(size=n)
    shared = rng.normal(size=(n, WIDTH))  # what both teachers see of a case, and nobody wants
    tiles = []
    for strength in (EQUAL, second):
        direction = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
        shows = rng.random((n, TILES)) < SHOWN
        signal = strength * (hidden[:, None] * shows)[..., None] * direction[0]
        case = 0.5 * (shared @ direction + rng.normal(size=(n, WIDTH)))
        tiles.append(signal + case[:, None] + rng.normal(size=(n, TILES, WIDTH)))
    if task == "classification":
        label = (hidden + rng.normal(size=n) > 0.3).astype(np.int64)
        return Drawn((tiles[0], tiles[1]), label[:, None] > label[None], label, None)
    death = rng.exponential(np.exp(-hidden))
    censored = rng.exponential(1.5, n)
    time, event = np.minimum(death, censored), death <= censored
    before = event[:, None] & (time[:, None] < time[None])
    return Drawn((tiles[0], tiles[1]), before, event.astype(np.int64), time)


def residuals(stratum: np.ndarray, time: np.ndarray | None) -> np.ndarray:
    """What is regressed: the class less its mean, or martingale residuals of the null model."""
    if time is None:
        return stratum - stratum.mean()
    order = np.argsort(time, kind="stable")
    hazard = np.cumsum(stratum[order] / np.arange(len(order), 0, -1))
    found = np.empty(len(order))
    found[order] = stratum[order] - hazard
    return found


def ridge(features: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and the mean that they are to be applied about; penalty by generalised CV."""
    mean = features.mean(axis=0)
    left, values, right = np.linalg.svd(features - mean, full_matrices=False)
    seen = left.T @ target
    shrink = values[:, None] ** 2 / (values[:, None] ** 2 + PENALTIES)
    error = ((target[:, None] - left @ (shrink * seen[:, None])) ** 2).sum(axis=0)
    best = int(np.argmin(error / (1 - (1 + shrink.sum(axis=0)) / len(target)) ** 2))
    return right.T @ (values / (values**2 + PENALTIES[best]) * seen), mean


def by_ridge(
    tiles: np.ndarray, train: np.ndarray, target: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Scores (n,) of all cases from their means."""
    means = tiles.mean(axis=1)
    weights, centre = ridge(means[train], target)
    return (means - centre) @ weights


def by_pooling(
    tiles: np.ndarray, train: np.ndarray, target: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Scores from tiles that are weighed by how far what was learned so far sets them apart."""
    pooled = tiles.mean(axis=1)
    for _ in range(2):
        weights, centre = ridge(pooled[train], target)
        said = (tiles - centre) @ weights
        far = np.abs(said - np.median(said[train]))
        heavy = np.exp(far / (far[train].std() + 1e-12))
        pooled = np.einsum("nt,ntd->nd", heavy / heavy.sum(axis=1, keepdims=True), tiles)
    weights, centre = ridge(pooled[train], target)
    return (pooled - centre) @ weights


def by_network(
    tiles: np.ndarray, train: np.ndarray, target: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Scores from a hidden layer whose weights are drawn at each training."""
    means = tiles.mean(axis=1)
    scaled = (means - means[train].mean(axis=0)) / means[train].std(axis=0)
    hidden = np.tanh(scaled @ rng.normal(size=(WIDTH, 32)) / np.sqrt(WIDTH))
    weights, centre = ridge(hidden[train], target)
    return (hidden - centre) @ weights


LEARNERS: dict[str, Callable[..., np.ndarray]] = {
    "ridge": by_ridge,
    "pooling": by_pooling,
    "network": by_network,
}


@dataclasses.dataclass(frozen=True)
class Deal:
    """Both models trained on several splits of a cohort.

    Attributes:
        tests: the rows that each split tests.
        scores: (2, tested) of each split, standardised by the training part's where they are risks.
        test_to_train: cases tested per case trained on.
    """

    tests: tuple[np.ndarray, ...]
    scores: tuple[np.ndarray, ...]
    test_to_train: float

    def pooled(self) -> np.ndarray:
        """(2, n), where each case is tested once."""
        found = np.empty((2, sum(map(len, self.tests))))
        for rows, scores in zip(self.tests, self.scores, strict=True):
            found[:, rows] = scores
        return found


def deal(
    cohort: Drawn, learner: Callable[..., np.ndarray], splits: BaseCrossValidator, seed: int
) -> Deal:
    rng = np.random.default_rng([seed, splits.get_n_splits()])
    tests, scores, shares = [], [], []
    for train, test in splits.split(cohort.stratum, cohort.stratum):
        time = None if cohort.time is None else cohort.time[train]
        target = residuals(cohort.stratum[train], time)
        both = np.empty((2, len(test)))
        for i, tiles in enumerate(cohort.tiles):
            said = learner(tiles, train, target, rng)
            if cohort.time is not None:
                said = (said - said[train].mean()) / max(said[train].std(), 1e-12)
            both[i] = said[test]
        tests.append(test)
        scores.append(both)
        shares.append(len(test) / len(train))
    return Deal(tuple(tests), tuple(scores), float(np.mean(shares)))


def concordance(before: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share of pairs ranked rightly (AUC, or Harrell's C), for weights (b, n) -> (b,)."""
    above = scores[:, None] - scores[None]
    right = before * ((above > 0) + 0.5 * (above == 0))
    pairs = ((weights @ before) * weights).sum(axis=1)
    found = ((weights @ right) * weights).sum(axis=1)
    return np.divide(found, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def differences(before: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    first, second = (concordance(before, one, weights) for one in scores)
    return first - second


def by_split(cohort: Drawn, deals: Sequence[Deal]) -> np.ndarray:
    """The difference on each split's own test cases."""
    return np.array(
        [
            differences(cohort.before[np.ix_(rows, rows)], scores, np.ones((1, len(rows))))[0]
            for one in deals
            for rows, scores in zip(one.tests, one.scores, strict=True)
        ]
    )


# --- the candidates: each gives the p value of a difference --------------------------------------


def over_cases(cohort: Drawn, deals: Sequence[Deal], seed: int) -> np.ndarray:
    """Pooled differences over resampled cases, the mean of the deals; entry 0 is the estimate."""
    weights = resample_weights(len(cohort.stratum), RESAMPLES, seed)
    return np.mean([differences(cohort.before, one.pooled(), weights) for one in deals], axis=0)


def bootstrap(cohort: Drawn, deals: Sequence[Deal], seed: int) -> float:
    return p_value(over_cases(cohort, deals, seed)[1:])


def nadeau_bengio(cohort: Drawn, deals: Sequence[Deal], seed: int) -> float:
    """The bootstrap over cases, as wide as Nadeau and Bengio make the mean over k folds."""
    drawn = over_cases(cohort, deals, seed)
    factor = np.sqrt(1 + len(deals[0].tests) * deals[0].test_to_train)
    return p_value(drawn[0] + factor * (drawn[1:] - drawn[0]))


def delong(cohort: Drawn, deals: Sequence[Deal], seed: int) -> float:
    if cohort.time is not None:
        return float("nan")
    first, second = (np.stack([-one, one], axis=1) for one in deals[0].pooled())
    return delong_test(cohort.stratum, first, second)


def plain_t(cohort: Drawn, deals: Sequence[Deal], seed: int) -> float:
    return fold_test(by_split(cohort, deals), 0.0)[2]


def corrected_t(cohort: Drawn, deals: Sequence[Deal], seed: int) -> float:
    return fold_test(by_split(cohort, deals), deals[0].test_to_train)[2]


def folds_and_cases(cohort: Drawn, deals: Sequence[Deal], seed: int) -> np.ndarray:
    """Pooled differences over resampled folds and cases of each; entry 0 is the estimate."""
    weights = resample_folds(deals[0].tests, len(cohort.stratum), RESAMPLES, seed)
    return differences(cohort.before, deals[0].pooled(), weights)


def redrawn(cohort: Drawn, deals: Sequence[Deal], seed: int) -> float:
    """What decides in the report."""
    drawn = folds_and_cases(cohort, deals, seed)
    return p_value(widened(drawn, len(deals[0].tests))[1:])


def redrawn_as_it_is(cohort: Drawn, deals: Sequence[Deal], seed: int) -> float:
    return p_value(folds_and_cases(cohort, deals, seed)[1:])


CANDIDATES: dict[str, tuple[Callable[..., float], str]] = {
    "bootstrap of cases, 5 folds": (bootstrap, "5"),
    "DeLong, 5 folds": (delong, "5"),
    "t-test over folds, uncorrected, 5 folds": (plain_t, "5"),
    "corrected t-test, 5 folds": (corrected_t, "5"),
    "corrected t-test, 10 folds": (corrected_t, "10"),
    "corrected t-test, 3 x 5 folds": (corrected_t, "3 x 5"),
    "corrected t-test, 10 random splits": (corrected_t, "random"),
    "bootstrap of cases, corrected, 5 folds": (nadeau_bengio, "5"),
    "folds and cases, not widened, 2 folds": (redrawn_as_it_is, "2"),
    "folds and cases, not widened, 3 folds": (redrawn_as_it_is, "3"),
    "folds and cases, not widened, 5 folds": (redrawn_as_it_is, "5"),
    "folds and cases, 2 folds": (redrawn, "2"),
    "folds and cases, 3 folds": (redrawn, "3"),
    "folds and cases, 5 folds": (redrawn, "5"),
    "folds and cases, 10 folds": (redrawn, "10"),
}


def deals_of(cohort: Drawn, learner: Callable[..., np.ndarray], seed: int) -> dict[str, list[Deal]]:
    found = {
        str(k): [deal(cohort, learner, StratifiedKFold(k, shuffle=True, random_state=seed), seed)]
        for k in (2, 3, 5, 10)
    }
    more = [
        deal(cohort, learner, StratifiedKFold(5, shuffle=True, random_state=again), again)
        for again in (seed + 10_000, seed + 20_000)
    ]
    shuffled = StratifiedShuffleSplit(10, test_size=0.2, random_state=seed)
    return found | {
        "3 x 5": [*found["5"], *more],
        "random": [deal(cohort, learner, shuffled, seed)],
    }


def cohort_rows(job: tuple[int, int]) -> list[dict[str, object]]:
    """Every test's p value on the cohorts of one seed."""
    seed, n = job
    rows: list[dict[str, object]] = []
    for t, task in enumerate(TASKS):
        for second in (EQUAL, WEAKER):
            rng = np.random.default_rng([seed, t, int(second * 100)])
            cohort = draw(rng, task, n, second)
            for name, learner in LEARNERS.items():
                deals = deals_of(cohort, learner, seed)
                for title, (test, splits) in CANDIDATES.items():
                    p = test(cohort, deals[splits], seed)
                    rows.append(
                        {
                            "task": task, "learner": name, "equal": second == EQUAL, "test": title,
                            "difference": by_split(cohort, deals["5"]).mean(), "p": p,
                        }
                    )  # fmt: skip
    return rows


def report(rows: pd.DataFrame) -> None:
    rows = rows[np.isfinite(rows["p"].astype(float))].assign(said=rows["p"] <= LEVEL)
    order = list(CANDIDATES)
    for equal, title in ((True, "EQUAL models, share of 'better or worse'"), (False, "power")):
        part = rows[rows["equal"] == equal]
        table = part.pivot_table(index="test", columns=["task", "learner"], values="said")
        table = table.reindex([t for t in order if t in table.index])
        mean = part.groupby(["task", "learner"])["difference"].agg(["mean", "std"])
        print(f"\n{title}\n{(100 * table.astype(float)).round(1).to_string()}")
        print(mean.round(3).T.to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cohorts", type=int, default=400)
    parser.add_argument("--cases", type=int, default=150)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    jobs = [(args.seed + i, args.cases) for i in range(args.cohorts)]
    with multiprocessing.Pool(args.jobs) as pool:
        rows = [row for found in pool.imap(cohort_rows, jobs, chunksize=4) for row in found]
    report(pd.DataFrame(rows))


if __name__ == "__main__":
    main()
