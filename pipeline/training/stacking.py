"""Models that are a small regression on other models' predictions and on covariates.

What a member says of training cases is taken from `out_of_fold.parquet`, where it has not learned
from them; by these the regression is fitted. What it says of validation and test cases is what its
own training of the same fold and seed says. Risks, which have no common unit, are brought to mean 0
and variance 1 by the cases that their training had; probabilities count as logarithms less their
mean over classes, numbers in deviations of the training part.

A case that lacks a member, because it lacks that member's teacher, is predicted by a regression on
the other members, fitted to all training cases that have these (pattern submodels: Fletcher
Mercaldo & Blume, Biostatistics 2020).

Writes `models/<task>/<model>/predictions.parquet` and `fold_<k>/seed_<s>/meta.json`. Training cases
are predicted from members that have not seen them, so that cut-offs and baseline hazards are those
of cases like the tested ones.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config.cohort import Covariate
from pipeline.config.models import CovariatesModel, EnsembleModel
from pipeline.contracts.covariates import Column, read_covariates
from pipeline.contracts.folds import PARTS, Fold
from pipeline.contracts.labels import Task
from pipeline.contracts.model_meta import ModelMeta, read_meta, write_meta
from pipeline.contracts.stacking import read_out_of_fold
from pipeline.errors import ArtifactError, UserError
from pipeline.files.artifacts import sweep
from pipeline.files.digests import digest
from pipeline.files.parquet import Columns, read_table, stack_columns, write_columns
from pipeline.linear.design import fit_design
from pipeline.linear.stack import Stack, fit_stack
from pipeline.runtime import progress
from pipeline.training.applied_stack import in_common
from pipeline.training.head import Head
from pipeline.training.job import cox_of, seed_of
from pipeline.training.loop import objective
from pipeline.training.opening import Endpoint, open_endpoint
from pipeline.training.out_of_fold import FILE
from pipeline.training.tasks import cutoffs, fit_head

# Raised when predictions of stacked models change. 1: the first.
VERSION = 1

LEAST_CASES = 10  # to fit a regression to


@dataclasses.dataclass(frozen=True)
class Member:
    """A model that is stacked.

    Attributes:
        name: of the model.
        folder: `models/<task>/<model>`.
        table: its predictions.
        unseen: its predictions of cases that it was not trained on.
    """

    name: str
    folder: Path
    table: pd.DataFrame
    unseen: pd.DataFrame


@dataclasses.dataclass(frozen=True)
class Said:
    """What the members say of each case, float64 (cases, M, C), NaN where nothing.

    Attributes:
        unseen: of cases to learn from, by models that have not.
        final: of validation and test cases, by the models of the fold.
    """

    unseen: np.ndarray
    final: np.ndarray


def run(
    *,
    model_name: str,
    model: EnsembleModel | CovariatesModel,
    task_name: str,
    task: Task,
    seeds: Sequence[int],
    nested: bool,
    covariates: Mapping[str, Covariate],
    root: Path,
) -> None:
    """Fit the regression of every fold and seed, and predict all cases.

    Args:
        model_name, model: the model; `of` and `covariates` are spelled out.
        task_name, task: the task.
        seeds: of the members' trainings.
        nested: whether these chose their settings by nested cross-validation.
        covariates: column -> how it counts.
        root: the results folder.

    Raises:
        UserError: a fold has too few cases to learn from.
        ArtifactError: what a member says is missing, or does not fit the folds.
    """
    of = open_endpoint(root, task_name, cox_of(task))
    models = root / "models" / task_name
    folder = models / model_name
    members = [
        Member(
            name,
            models / name,
            read_table(models / name / "predictions.parquet"),
            read_table(models / name / FILE),
        )
        for name in (model.of if isinstance(model, EnsembleModel) else ())
    ]
    columns = read_covariates(of.table, {name: covariates[name] for name in model.covariates})
    sweep(folder, *folder.glob("fold_*/seed_*"))
    work = [(fold, seed) for fold in of.folds for seed in seeds]
    tables = [
        _fold(of, fold, seed, model_name, model, members, columns, nested, folder)
        for fold, seed in progress.counted(work, "models")
    ]
    write_columns(folder / "predictions.parquet", stack_columns(tables))


def _fold(
    of: Endpoint,
    fold: Fold,
    seed: int,
    model_name: str,
    model: EnsembleModel | CovariatesModel,
    members: Sequence[Member],
    covariates: Sequence[Column],
    nested: bool,
    folder: Path,
) -> Columns:
    """Fit one fold with one seed, write its meta.json, and return its predictions."""
    started = time.perf_counter()
    place = {case: i for i, case in enumerate(of.labels.cases)}
    rows = {p: np.array([place[c] for c in fold.part(p)], dtype=np.int64) for p in PARTS}
    both = np.concatenate([rows["train"], rows["val"]]) if nested else rows["train"]
    head = fit_head(of.task, of.labels, both)
    y = head.targets(of.labels)
    said = _said(members, fold, seed, head, place)
    design = fit_design(covariates, [of.labels.cases[row] for row in both])
    x = design(covariates, of.labels.cases)
    draw = seed_of(seed, fold.index, model_name)

    def fitted(learn: np.ndarray) -> _Patterns:
        return _Patterns(said.unseen, x, y, head, learn, of.groups, draw)

    first = fitted(rows["train"])
    last = fitted(both) if nested else first
    # With nested cross-validation the final members have learned from validation cases.
    validated = said.unseen if nested else said.final
    tables: list[Columns] = []
    cases: dict[str, int] = {}
    keys = {"seed": seed, "fold": fold.index}
    asked = ((first, said.unseen), (first, validated), (last, said.final))
    for part, (stacks, z) in zip(PARTS, asked, strict=True):
        known, out = stacks.predict(z, rows[part])
        ids = np.array([of.labels.cases[row] for row in known], dtype=object)
        cases[part] = len(known)
        facts = {name: np.full(len(known), value) for name, value in keys.items()}
        names = {"split": np.full(len(known), part, dtype=object), "case_id": ids}
        tables.append({**facts, **names, **head.columns(out, y[known])})
        if part == "train":
            ends = cutoffs(of.task, head, out)
    metas = [_member_meta(member, fold, seed) for member in members]
    whole = last.stack(tuple(range(len(members))))
    spread = np.sqrt(np.nanvar(said.unseen[both], axis=0).mean(1)) if members else np.zeros(0)
    network = {
        "members": [m.name for m in members],
        "weights": whole.members.tolist(),
        "spread": spread.tolist(),
        "covariates": list(design.names),
        "coefficients": whole.covariates.tolist(),
        "design": dataclasses.asdict(design) | {
            "centre": design.centre.tolist(), "scale": design.scale.tolist()
        },
        "penalty": whole.penalty,
        "patterns": last.told([m.name for m in members]),
    }  # fmt: skip
    numbers = sum(s.members.size + s.covariates.size + s.constant.size for s in last.found.values())
    teachers: dict[str, dict[str, int]] = {}
    for meta, _ in metas:
        for teacher, dims in zip(meta.teachers, meta.dims, strict=True):
            teachers[teacher] = {**teachers.get(teacher, {}), **dims}
    own = folder / f"fold_{fold.index}" / f"seed_{seed}"
    own.mkdir(parents=True, exist_ok=True)
    write_meta(
        own,
        ModelMeta(
            fingerprint=digest([meta.fingerprint for meta, _ in metas], network),
            model_name=model_name,
            model=model.model_dump(mode="json"),
            task=of.task.model_dump(mode="json"),
            teachers=list(teachers),
            dims=list(teachers.values()),
            outputs=head.outputs,
            head=head.facts(),
            network=network,
            levels_absent={},
            fold=fold.index,
            seed=seed,
            labelled=fold.labelled,
            cases=cases,
            cases_without_features={p: len(rows[p]) - cases[p] for p in PARTS},
            cutoffs=ends,
            best_epoch=1,
            nested=None,
            epochs=1,
            n_parameters=sum(m.n_parameters for m, _ in metas) + numbers + 2 * len(design.names),
            resident=True,
            device="cpu",
            seconds=round(
                time.perf_counter() - started + sum(m.seconds + more for m, more in metas), 3
            ),
            inference_seconds_per_case=sum(m.inference_seconds_per_case for m, _ in metas),
        ),
    )
    return stack_columns(tables)


class _Patterns:
    """A regression for each set of members that some case has, fitted when it is asked for.

    Args:
        unseen: (cases, M, C), what members say of cases that they have not learned from.
        x: (cases, P), covariates.
        y: (cases, columns), targets.
        head: of the task.
        learn: case numbers to learn from.
        groups: int64 (cases,): cases of one group stay together.
        draw: the seed.
    """

    def __init__(
        self,
        unseen: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        head: Head,
        learn: np.ndarray,
        groups: np.ndarray,
        draw: int,
    ) -> None:
        self.unseen, self.x, self.y, self.head = unseen, x, y, head
        self.learn, self.groups, self.draw = learn, groups, draw
        self.found: dict[tuple[int, ...], Stack] = {}
        self.learned: dict[tuple[int, ...], int] = {}
        self.asked: dict[tuple[int, ...], int] = {}

    def stack(self, members: tuple[int, ...]) -> Stack:
        """The regression on some of the members.

        Raises:
            UserError: too few cases to learn from have them.
        """
        if members not in self.found:
            has = np.isfinite(self.unseen[self.learn][:, list(members)]).all(axis=(1, 2))
            rows = self.learn[has]
            strata = self.head.strata(self.y[rows])
            needed = self.head.needed
            if len(rows) < LEAST_CASES or (needed is not None and needed not in strata):
                raise UserError(
                    f"{len(rows)} training cases are too few to weigh models by; use fewer folds "
                    "(folds.k), or leave ensembles and covariates beside a model out"
                )
            self.found[members] = fit_stack(
                self.unseen[rows][:, list(members)],
                self.x[rows],
                self.y[rows],
                objective(self.head),
                strata,
                self.groups[rows],
                self.draw,
            )
            self.learned[members] = len(rows)
        return self.found[members]

    def predict(self, z: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cases that can be predicted, and outputs float32 (n, C) of these.

        Args:
            z: (cases, M, C), what the members say.
            rows: the cases wanted.
        """
        there = np.isfinite(z).all(axis=2)
        able = there.any(axis=1) | (self.x.shape[1] > 0)
        known = rows[able[rows]]
        out = np.zeros((len(known), self.head.outputs))
        self.asked = {}
        patterns = there[known]
        for pattern in np.unique(patterns, axis=0):
            own = np.flatnonzero((patterns == pattern).all(axis=1))
            members = tuple(np.flatnonzero(pattern).tolist())
            at = known[own]
            out[own] = self.stack(members)(z[at][:, list(members)], self.x[at])
            self.asked[members] = len(own)
        return known, out.astype(np.float32)

    def told(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Each regression: its members, cases that it learned from and that it was last asked of,
        weights."""
        return [
            {
                "members": [names[m] for m in members],
                "learned": self.learned[members],
                "asked": self.asked.get(members, 0),
                "weights": stack.members.tolist(),
                "coefficients": stack.covariates.tolist(),
                "constant": stack.constant.tolist(),
                "penalty": stack.penalty,
            }
            for members, stack in self.found.items()
        ]


def _said(
    members: Sequence[Member], fold: Fold, seed: int, head: Head, place: Mapping[str, int]
) -> Said:
    """What each member says of each case, in a common unit."""
    shape = (len(place), len(members), head.outputs)
    unseen, final = np.full(shape, np.nan), np.full(shape, np.nan)
    for m, member in enumerate(members):
        for table, into in ((member.unseen, unseen), (member.table, final)):
            own = table[(table["fold"] == fold.index) & (table["seed"] == seed)]
            if into is final:
                own = with_ends(own)
            unknown = set(own["case_id"]) - set(place)
            if unknown or own.empty:
                raise ArtifactError(
                    f"{member.folder}: its predictions are not of today's folds (fold {fold.index},"
                    f" seed {seed}); train it again"
                )
            rows = [place[case] for case in own["case_id"]]
            into[rows, m] = in_common({c: own[c].to_numpy() for c in own.columns}, head)
    return Said(unseen, final)


def with_ends(table: pd.DataFrame) -> pd.DataFrame:
    """Validation and test cases, with mean and deviation of the risk of training cases.

    Args:
        table: what one training says of cases.
    """
    later = table[table["split"] != "train"]
    if "risk" not in table.columns:
        return later
    risk = table.loc[table["split"] == "train", "risk"]
    return later.assign(risk_mean=risk.mean(), risk_deviation=risk.std(ddof=0))


def _member_meta(member: Member, fold: Fold, seed: int) -> tuple[ModelMeta, float]:
    """A member's meta.json, and the seconds that its predictions of unseen cases took."""
    folder = member.folder / f"fold_{fold.index}" / f"seed_{seed}"
    made = read_out_of_fold(folder)
    return read_meta(folder), made[0].seconds if made else 0.0
