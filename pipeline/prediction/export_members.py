"""The trained models of a results folder as a file holds them: networks, and stacks of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
from torch import Tensor

from pipeline.config.models import STACKS
from pipeline.config.whole import Config
from pipeline.contracts.covariates import read_covariates
from pipeline.contracts.folds import read_folds
from pipeline.contracts.model_card import CovariateCard, Member, Stacked
from pipeline.contracts.model_meta import FILE as META
from pipeline.contracts.model_meta import ModelMeta, read_meta
from pipeline.errors import UserError, nearest
from pipeline.external.predictions import limit_of
from pipeline.files.parquet import read_columns, read_table
from pipeline.prediction.covariates import cards
from pipeline.prediction.model_file import member_prefix
from pipeline.runtime import progress
from pipeline.training.applied_stack import FLAT, KEPT
from pipeline.training.checkpoint import load_checkpoint


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a model is exported from.

    Attributes:
        root: the results folder.
        config: of the run.
        task_name, model_name: which model.
        weights_dir: folder of local weights.
    """

    root: Path
    config: Config
    task_name: str
    model_name: str
    weights_dir: str | None


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a model file says of its models.

    Attributes:
        members: the ensemble.
        stacked: models that it reads, where it is one of stacks.
        tensors: the weights of the networks.
        max_tiles: most tiles of a case that a network reads; None: all, or some read other numbers.
    """

    members: list[Member]
    stacked: list[Stacked]
    tensors: dict[str, Tensor]
    max_tiles: int | None


def read_trainings(source: Source) -> list[ModelMeta]:
    """The finished trainings of today's folds and seeds.

    Raises:
        UserError: there is no such task or model, or a training is not finished.
    """
    config = source.config
    if source.task_name not in config.tasks:
        known = nearest(source.task_name, config.tasks)
        raise UserError(f"--task {source.task_name}: the cohort has no such task{known}")
    if source.model_name not in config.model_specs():
        known = nearest(source.model_name, config.model_specs())
        raise UserError(f"--model {source.model_name}: the cohort has no such model{known}")
    found = []
    for fold in read_folds(source.root, source.task_name):
        for seed in config.training.seeds:
            path = _folder(source, fold.index, seed)
            if not (path / META).is_file():
                raise UserError(f"{path}: no finished training; run the workflow to its end first")
            found.append(read_meta(path))
    return found


def trained(source: Source, metas: list[ModelMeta]) -> Trained:
    """The models with their weights.

    Args:
        source: the model.
        metas: its trainings.

    Raises:
        UserError: a model that a stack reads has no finished training.
        ArtifactError: a file is missing or damaged.
    """
    if metas[0].model["kind"] not in STACKS:
        members, tensors = _networks(source, metas, "")
        return Trained(members, [], tensors, _common(members))
    said = read_table(source.root / _predictions(source))
    stacks = [
        dataclasses.replace(
            _member(source, meta, said), stack={key: meta.network[key] for key in KEPT}
        )
        for meta in metas
    ]
    stacked: list[Stacked] = []
    every: dict[str, Tensor] = {}
    for name in metas[0].network["members"]:
        of = dataclasses.replace(source, model_name=name)
        own = read_trainings(of)
        networks, weights = _networks(of, own, name)
        every |= weights
        first = own[0]
        stacked.append(
            Stacked(name, first.model, first.teachers, first.dims, first.outputs, networks)
        )
    return Trained(stacks, stacked, every, _common([m for one in stacked for m in one.members]))


def covariate_cards(source: Source, meta: ModelMeta) -> list[CovariateCard]:
    """The columns that a model reads, as the training cohort has them.

    Args:
        source: the model.
        meta: one of its trainings.
    """
    if meta.model["kind"] not in STACKS:
        return []
    kinds = source.config.cohort.covariates
    table = read_columns(source.root / "cases.parquet")
    return cards(read_covariates(table, {name: kinds[name] for name in meta.model["covariates"]}))


def _networks(
    source: Source, metas: list[ModelMeta], prefix: str
) -> tuple[list[Member], dict[str, Tensor]]:
    said = read_table(source.root / _predictions(source))
    members: list[Member] = []
    tensors: dict[str, Tensor] = {}
    for meta in progress.counted(metas, "models"):
        members.append(_member(source, meta, said))
        network, _, _ = load_checkpoint(_folder(source, meta.fold, meta.seed))
        start = member_prefix(members[-1], prefix)
        tensors |= {f"{start}.{name}": value for name, value in network.state_dict().items()}
    return members, tensors


def _member(source: Source, meta: ModelMeta, said: pd.DataFrame) -> Member:
    limit = limit_of(meta, source.config.training.max_tiles_per_case)
    return Member(meta.fold, meta.seed, meta.head, limit, *_moments(said, meta))


def _common(members: list[Member]) -> int | None:
    limits = {member.max_tiles for member in members}
    return limits.pop() if len(limits) == 1 else None


def _moments(table: pd.DataFrame, meta: ModelMeta) -> tuple[float, float]:
    """Mean and deviation of a training's risks of its own training cases."""
    if "risk" not in table:
        return 0.0, 1.0
    own = (table["seed"] == meta.seed) & (table["fold"] == meta.fold) & (table["split"] == "train")
    risk = table.loc[own, "risk"]
    mean, deviation = float(risk.mean()), float(risk.std(ddof=0))
    return mean, deviation if deviation > FLAT * (1 + abs(mean)) else 1.0


def _predictions(source: Source) -> Path:
    return Path("models") / source.task_name / source.model_name / "predictions.parquet"


def _folder(source: Source, fold: int, seed: int) -> Path:
    base = source.root / "models" / source.task_name / source.model_name
    return base / f"fold_{fold}" / f"seed_{seed}"
