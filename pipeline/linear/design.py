"""Covariates as the columns of a regression, by what the training cases have."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.covariates import Column

MISSING = "missing"
Matrix = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Design:
    """How covariates become columns, fitted to training cases.

    A number is brought to mean 0 and variance 1; a case without it has the median, and 1 in a
    column that says so. A category has a column a level, `missing` being one, less its share of the
    training cases; a level that no training case has is 0 in all of them.

    Attributes:
        names: of the columns: `age`, `age: missing`, `sex: male`.
        centre, scale: float64 (P,): a column is (value - centre) * scale.
        medians: of each covariate that is a number.
    """

    names: tuple[str, ...]
    centre: Matrix
    scale: Matrix
    medians: dict[str, float]

    def __call__(self, covariates: Sequence[Column], cases: Sequence[str]) -> Matrix:
        """float64 (n, P) of some cases.

        Args:
            covariates: those that it was fitted to.
            cases: ids, each known to every covariate.
        """
        raw = np.zeros((len(cases), len(self.names)))
        place = {name: j for j, name in enumerate(self.names)}
        for column in covariates:
            for i, case in enumerate(cases):
                text = column.texts[case]
                if column.kind == "number" and column.name in place:
                    given = float(text) if text else self.medians[column.name]
                    raw[i, place[column.name]] = given
                if not text or column.kind == "category":
                    j = place.get(f"{column.name}: {text or MISSING}")
                    if j is not None:
                        raw[i, j] = 1.0
        return np.asarray((raw - self.centre) * self.scale)


def fit_design(covariates: Sequence[Column], cases: Sequence[str]) -> Design:
    """The columns by what training cases have; one that is the same for all of them is left out.

    Args:
        covariates: of the cohort.
        cases: ids of the training cases.
    """
    names: list[str] = []
    numbers: set[str] = set()
    medians: dict[str, float] = {}
    for column in covariates:
        texts = [column.texts[case] for case in cases]
        there = sorted({text for text in texts if text})
        if column.kind == "number" and there:
            medians[column.name] = float(np.median([float(text) for text in texts if text]))
            names.append(column.name)
            numbers.add(column.name)
        if column.kind == "category":
            names += [f"{column.name}: {level}" for level in there]
        if "" in texts:
            names.append(f"{column.name}: {MISSING}")
    zeros = np.zeros(len(names))
    raw = Design(tuple(names), zeros, zeros + 1, medians)(covariates, cases)
    deviation = raw.std(0)
    kept = np.flatnonzero(deviation > 1e-9 * (1 + np.abs(raw.mean(0))))
    wide = [1 / deviation[j] if names[j] in numbers else 1.0 for j in kept]
    return Design(
        tuple(names[j] for j in kept), raw.mean(0)[kept], np.array(wide, np.float64), medians
    )
