"""What is split: the cases that a task can use, their strata and the groups they stay in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
from pipeline.contracts.columns import spelled_out
from pipeline.contracts.folds_summary import PartCounts
from pipeline.contracts.labels import Labels, Task, read_labels
from pipeline.errors import SheetError, UserError

REGRESSION_BINS = 5


@dataclasses.dataclass(frozen=True)
class Units:
    """The cases of a task, sorted by id.

    Attributes:
        name: the task's name, for messages.
        cases: case ids (n,), object.
        strata: int64 (n,), what the folds are balanced over: event, class, or bin of the target.
        strata_names: the name of each stratum.
        must: strata that every part of every fold has to hold.
        groups: object (n,), cases of one group never part: the case itself, or its site.
        labels: the labels, rows as `cases`.
        excluded: the other cases of the cohort, each with its reason.
    """

    name: str
    cases: np.ndarray
    strata: np.ndarray
    strata_names: tuple[str, ...]
    must: tuple[int, ...]
    groups: np.ndarray
    labels: Labels
    excluded: dict[str, str]

    def take(self, cases: Sequence[str]) -> Units:
        """Some of the cases, as what is split again."""
        rows = np.searchsorted(self.cases, np.array(sorted(cases), dtype=object))
        return dataclasses.replace(
            self,
            cases=self.cases[rows],
            strata=self.strata[rows],
            groups=self.groups[rows],
            labels=self.labels.take(rows),
        )

    def describe(self, cases: Sequence[str]) -> PartCounts:
        """How many of what a part holds, for `folds.json`."""
        rows = np.searchsorted(self.cases, np.array(list(cases), dtype=object))
        events = classes = means = None
        if self.labels.event is not None:
            events = int(self.labels.event[rows].sum())
        if self.labels.label is not None:
            counts = np.bincount(self.labels.label[rows], minlength=len(self.labels.classes))
            classes = dict(zip(self.labels.classes, counts.tolist(), strict=True))
        if self.labels.targets is not None:
            means = [round(float(m), 6) for m in self.labels.targets[rows].mean(axis=0)]
        return PartCounts(len(rows), events, classes, means)


def units(
    table: pd.DataFrame,
    *,
    mode: str,
    group_by: str,
    name: str,
    task: Task,
) -> Units:
    """The cases of a task that have features and a label.

    Args:
        table: the case table.
        mode: mapping.cases; with `intersection` only cases that all teachers have are used.
        group_by: `case` or `site`.
        name: the task's name.
        task: the task.

    Raises:
        SheetError: a label is not usable, or a case has no single site to be grouped by.
        UserError: no case is left.
    """
    table = table.assign(case_id=table["case_id"].astype(str)).sort_values("case_id")
    excluded: dict[str, str] = {}
    for case, used, complete in zip(
        table["case_id"], table["n_usable_slides"], table["complete"], strict=True
    ):
        if not used:
            excluded[case] = "no teacher has features of this case"
        elif mode == "intersection" and not complete:
            excluded[case] = "not all teachers have features of this case (mapping.cases)"
    kept = table[~table["case_id"].isin(list(excluded))]
    labels = read_labels(kept, name, spelled_out(task, kept.columns))
    excluded |= labels.excluded
    if not labels.cases:
        raise UserError(
            f"tasks.{name}: no case has both features and a label; {len(excluded)} were left out, "
            f"the first because: {next(iter(excluded.values()), 'there are none')}"
        )
    cases = np.array(labels.cases, dtype=object)
    strata, names, must = _strata(task, labels)
    return Units(
        name=name,
        cases=cases,
        strata=strata,
        strata_names=names,
        must=must,
        groups=cases if group_by == "case" else _sites(kept, cases),
        labels=labels,
        excluded=dict(sorted(excluded.items())),
    )


def _strata(task: Task, labels: Labels) -> tuple[np.ndarray, tuple[str, ...], tuple[int, ...]]:
    if isinstance(task, SurvivalTask):
        assert labels.event is not None
        return labels.event.astype(np.int64), ("censored", "event"), (1,)
    if isinstance(task, ClassificationTask):
        assert labels.label is not None
        return labels.label, labels.classes, ()
    assert isinstance(task, RegressionTask) and labels.targets is not None
    # Several targets are balanced by their mean rank, so that no one of them decides alone.
    rank = rankdata(rankdata(labels.targets, axis=0).mean(axis=1), method="ordinal") - 1
    bins = min(REGRESSION_BINS, max(1, len(rank) // 4))
    strata = (rank * bins // len(rank)).astype(np.int64)
    return strata, tuple(f"bin {i + 1} of {bins}" for i in range(bins)), ()


def _sites(table: pd.DataFrame, cases: np.ndarray) -> np.ndarray:
    site_of = dict(zip(table["case_id"], table["site"].fillna("").astype(str), strict=True))
    sites = np.array([site_of[case] for case in cases], dtype=object)
    without = cases[sites == ""]
    if len(without):
        raise SheetError(
            f"folds.group_by: site, but {len(without)} case(s) have no site, or slides from "
            f"several: {', '.join(without[:8])}. Fill the sheet's site column, or use "
            f"group_by: case"
        )
    return sites
