"""What an ensemble says of a case: its mean, calibrated, with the interval between its models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from scipy import stats
from scipy.special import expit

from pipeline.contracts.model_card import Member, ModelCard
from pipeline.evaluation.survival_curves import GROUP_NAMES
from pipeline.prediction import calibration
from pipeline.training.head import Head

CONFIDENCE = 0.95
WIDTHS = {"survival": 2, "classification": 1}  # target columns; of a regression its targets


class Judge(Protocol):
    """A model of the ensemble, or a stack of models."""

    @property
    def member(self) -> Member:
        """What the file says of it."""
        ...

    @property
    def head(self) -> Head:
        """What its outputs are."""
        ...


@dataclasses.dataclass(frozen=True)
class Statement:
    """One number.

    Attributes:
        name: for the table, e.g. `survival_24`.
        label: for people.
        value, low, high: the interval is None where there is only one fold.
        share: whether it is a share from 0 to 1.
    """

    name: str
    label: str
    value: float
    low: float | None
    high: float | None
    share: bool


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the ensemble says of one case.

    Attributes:
        headline: in words: the risk group, the class, the first value.
        group: risk group or predicted class; empty for numbers.
        best: number of the predicted class; 0 for other tasks.
        statements: the first is the main one.
        members: what each model says by itself, columns by name.
    """

    headline: str
    group: str
    best: int
    statements: tuple[Statement, ...]
    members: tuple[dict[str, float | int], ...]


def judge(card: ModelCard, models: Sequence[Judge], outputs: Sequence[np.ndarray]) -> Verdict:
    """The verdict on one case.

    Args:
        card: of the file.
        models: the ensemble, or one fold's models.
        outputs: float32 (C,) of each model.
    """
    rows, values = [], []
    for model, out in zip(models, outputs, strict=True):
        said = own_columns(card, model, out)
        rows.append({"fold": model.member.fold, "seed": model.member.seed, **said})
        if card.type == "survival":
            score = (said["risk"] - model.member.score_mean) / model.member.score_deviation
            values.append([score])
        else:
            values.append([v for k, v in said.items() if k.startswith(("prob_", "pred_"))])
    folds = [model.member.fold for model in models]
    means = {
        fold: np.mean([v for f, v in zip(folds, values, strict=True) if f == fold], axis=0)
        for fold in sorted(set(folds))
    }
    make = {"survival": _risk, "classification": _class, "regression": _numbers}[card.type]
    headline, group, best, statements = make(card, means)
    return Verdict(headline, group, best, tuple(statements), tuple(rows))


def own_columns(card: ModelCard, model: Judge, out: np.ndarray) -> dict[str, float]:
    """What one model says: risk, or a probability a class, or a value a target.

    Args:
        card: of the file.
        model: the model.
        out: float32 (C,), its outputs.
    """
    width = WIDTHS.get(card.type) or len(card.task["targets"])
    columns = model.head.columns(out[None], np.zeros((1, width), np.float32))
    kept = ("risk", "prob_", "pred_", "surv_")
    return {name: float(v[0]) for name, v in columns.items() if name.startswith(kept)}


Made = tuple[str, str, int, list[Statement]]


def _risk(card: ModelCard, means: Mapping[int, np.ndarray]) -> Made:
    found = card.calibration
    scores = np.array([mean[0] for mean in means.values()])
    score, low, high = between(scores, found.test_share)
    places = [
        np.searchsorted(found.cutoffs[str(fold)], mean[0], side="left")
        for fold, mean in means.items()
    ]
    names = GROUP_NAMES["median" if len(next(iter(found.cutoffs.values()))) == 1 else "tertiles"]
    group = names[round(float(np.median(places)))]
    statements = [
        Statement("risk_score", "risk score, in deviations of the training cases",
                  score, low, high, False)
    ]  # fmt: skip
    if found.method == "cox":
        ends = np.array([score, score if high is None else high, score if low is None else low])
        curves = calibration.survival(found, ends)
        unit = card.task.get("unit", "")
        for at, (value, least, most) in zip(found.horizons, curves.T, strict=True):
            name = f"survival_{at:g}"
            label = f"alive after {at:.3g} {unit}"
            known = low is not None
            statements.append(
                Statement(name, label, float(value), float(least) if known else None,
                          float(most) if known else None, True)
            )  # fmt: skip
    return f"{group} risk", group, 0, statements


def _class(card: ModelCard, means: Mapping[int, np.ndarray]) -> Made:
    found = card.calibration
    each = np.array(list(means.values()))
    whole = calibration.classes(found, each.mean(axis=0, keepdims=True))[0]
    odds = calibration.log_odds(calibration.classes(found, each))
    best = int(whole.argmax())
    statements = []
    for at in [best, *(i for i in range(len(whole)) if i != best)]:
        name = card.classes[at]
        _, low, high = between(odds[:, at], found.test_share)
        # The mean of probabilities is not that of log odds, and stays within the interval.
        ends = [None if v is None else float(expit(v)) for v in (low, high)]
        value = float(whole[at])
        statements.append(
            Statement(f"prob_{name}", name, value, _least(ends[0], value), _most(ends[1], value),
                      True)
        )  # fmt: skip
    return card.classes[best], card.classes[best], best, statements


def _numbers(card: ModelCard, means: Mapping[int, np.ndarray]) -> Made:
    found = card.calibration
    each = calibration.numbers(found, np.array(list(means.values())))
    statements = []
    for at, name in enumerate(card.task["targets"]):
        value, low, high = between(each[:, at], found.test_share)
        statements.append(Statement(f"pred_{name}", name, value, low, high, False))
    first = statements[0]
    return f"{first.label} {first.value:.3g}", "", 0, statements


def between(values: np.ndarray, test_share: float) -> tuple[float, float | None, float | None]:
    """Mean of the folds' values and its interval.

    The folds' training parts overlap, so that their variance is taken (1/k + test share) times
    (Nadeau & Bengio, Mach Learn 2003), with Student's t of k - 1 degrees of freedom. It says how
    much another training would change the number, not how sure the number is of one patient.

    Args:
        values: (k,), one a fold.
        test_share: tested cases for each case trained on.
    """
    mean, k = float(values.mean()), len(values)
    if k < 2:
        return mean, None, None
    error = float(np.sqrt(values.var(ddof=1) * (1 / k + test_share)))
    reach = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, k - 1))
    return mean, mean - reach, mean + reach


def _least(end: float | None, value: float) -> float | None:
    return None if end is None else min(end, value)


def _most(end: float | None, value: float) -> float | None:
    return None if end is None else max(end, value)
