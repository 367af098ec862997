"""`meta.json` of one training: all that is needed to build its model again, and how it went.

Stands in `models/<task>/<model>/fold_<k>/seed_<s>/` with the weights. It is written last: a
training is finished when it is there.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ArtifactError
from pipeline.files.typed_json import read_typed, write_typed

FILE = "meta.json"


@dataclasses.dataclass(frozen=True)
class GridPoint:
    """One point of a nested cross-validation's grid.

    Attributes:
        point: key of the config -> value.
        epoch: its best, from 1; None where no inner training has a finite score.
        score: mean over the inner parts at that epoch.
        deviation: over the inner parts; None where fewer than two have a score.
    """

    point: dict[str, Any]
    epoch: int | None
    score: float | None
    deviation: float | None


@dataclasses.dataclass(frozen=True)
class Nested:
    """What a nested cross-validation chose, and from what.

    Attributes:
        chosen: the point of the grid.
        epochs: of the final training.
        criterion: what the config asked for.
        judged_by: what the choice was made by.
        score: of the chosen point.
        grid: every point.
        points, parts: grid points and inner parts.
        trainings: of the fold, the final one included.
    """

    chosen: dict[str, Any]
    epochs: int
    criterion: str
    judged_by: Literal["metric", "loss"]
    score: float
    grid: list[GridPoint]
    points: int
    parts: int
    trainings: int


@dataclasses.dataclass(frozen=True)
class ModelMeta:
    """One training of one model.

    Attributes:
        fingerprint: of all that decides the result.
        model_name: the model's name in the config.
        model: its config as trained, as `ModelConfig` reads it.
        task: the task's config.
        teachers: whose features it reads, in the order of its inputs.
        dims: for each teacher level -> width.
        outputs: of the network.
        head: what `training.tasks.from_facts` makes the task's head from.
        network: what the network tells of itself (`Network.facts`).
        levels_absent: teacher -> wanted levels that its features do not have.
        fold, seed: of the training.
        labelled: whether the fold's test part is a `test` or a `validation`.
        cases: part -> cases with features.
        cases_without_features: part -> cases without.
        cutoffs: of the risk, from the training part: `median` and `tertiles`; empty without risk.
        best_epoch: the epoch that was kept, from 1.
        nested: what nested cross-validation chose; None without.
        epochs: that were trained.
        n_parameters: trained by gradients or fitted by other means.
        resident: whether the bags lay in memory.
        device: that trained.
        seconds: of the training.
        inference_seconds_per_case: features read and ready.
    """

    fingerprint: str
    model_name: str
    model: dict[str, Any]
    task: dict[str, Any]
    teachers: list[str]
    dims: list[dict[str, int]]
    outputs: int
    head: dict[str, Any]
    network: dict[str, Any]
    levels_absent: dict[str, list[str]]
    fold: int
    seed: int
    labelled: str
    cases: dict[str, int]
    cases_without_features: dict[str, int]
    cutoffs: dict[str, float | list[float]]
    best_epoch: int
    nested: Nested | None
    epochs: int
    n_parameters: int
    resident: bool
    device: str
    seconds: float
    inference_seconds_per_case: float


def write_meta(folder: Path, meta: ModelMeta) -> None:
    """Write the meta.json of a training's folder."""
    write_typed(folder / FILE, meta)


def read_meta(folder: Path) -> ModelMeta:
    """The meta.json of a training's folder.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    return read_typed(folder / FILE, ModelMeta)


def finished(folder: Path) -> ModelMeta | None:
    """The meta.json of a training that is finished, or None."""
    try:
        return read_meta(folder)
    except ArtifactError:
        return None


def read_metas(model: Path) -> list[ModelMeta]:
    """Of all finished trainings of `models/<task>/<model>`, by fold and seed; may be empty.

    Raises:
        ArtifactError: one is damaged.
    """
    found = [read_meta(path.parent) for path in model.glob(f"fold_*/seed_*/{FILE}")]
    return sorted(found, key=lambda meta: (meta.fold, meta.seed))
