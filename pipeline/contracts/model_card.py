"""What a file that is handed over says of itself: all that turns a raw slide into its prediction.

It stands as JSON in the metadata of one safetensors file, whose tensors are the weights of every
fold's model, of the encoders where their licence allows it, and what the training cohort looked
like. No Python objects are stored.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

# Raised when a file of an earlier layout can no longer be read. 1: the first. 2: stacks of models
# and covariates.
LAYOUT = 2

Row = dict[str, str | bool | int | float | None]


@dataclasses.dataclass(frozen=True)
class Member:
    """One trained model of the ensemble.

    Attributes:
        fold, seed: of its training.
        head: what `training.tasks.from_facts` makes its head from.
        max_tiles: most tiles of a case that it reads, spread evenly; None: all.
        score_mean, score_deviation: of the risks of its own training cases, by which risks of
            several models come to one scale; 0 and 1 where there is no risk.
        stack: of a stack what `training.applied_stack.stack_of` makes it from; else empty.
    """

    fold: int
    seed: int
    head: dict[str, Any]
    max_tiles: int | None
    score_mean: float
    score_deviation: float
    stack: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Stacked:
    """A model whose predictions a stack reads.

    Attributes:
        name: of the model.
        model: its config as trained.
        teachers, dims, outputs: what its networks fit.
        members: its trainings, one for each of the stack's.
    """

    name: str
    model: dict[str, Any]
    teachers: list[str]
    dims: list[dict[str, int]]
    outputs: int
    members: list[Member]


@dataclasses.dataclass(frozen=True)
class CovariateCard:
    """A column that the model reads.

    Attributes:
        name: of the column.
        kind: how it counts.
        levels: of a category, those of the training cohort; of a number its least and largest.
    """

    name: str
    kind: Literal["number", "category"]
    levels: list[str]


@dataclasses.dataclass(frozen=True)
class EncoderCard:
    """One teacher whose features the model reads.

    Attributes:
        name: in the training cohort's config.
        settings: as `TeacherConfig` reads them, the revision as it was checked.
        facts: its row of the registry as it was then; empty without one.
        row: the whole row of an encoder that the pipeline made, which no registry has; else empty.
        tiles: folder of its tiles, `tiles` or `tiles_<scale>`.
        tiling: as `TilingConfig` reads it.
        dims: level -> width.
        weights: `embedded` in the file, or `referenced`: to be found where the settings say, with
            the checksum below.
        sha256: of the weights file; empty where there was none (random weights, authors' code).
        licence: in short; empty where it is not known.
        restricted: the licence restricts what is trained on the outputs.
        parameters: how many.
        gflop_per_tile: multiply and add are two.
    """

    name: str
    settings: dict[str, Any]
    facts: dict[str, Any]
    row: dict[str, Any]
    tiles: str
    tiling: dict[str, Any]
    dims: dict[str, int]
    weights: Literal["embedded", "referenced"]
    sha256: str
    licence: str
    restricted: bool
    parameters: int
    gflop_per_tile: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """From the ensemble's mean to what it is worth, fitted to out-of-fold test predictions.

    Attributes:
        method: `cox`, `temperature`, `line`, or `none` with the reason in `note`.
        note: what a reader must know; may be empty.
        cases: that it was fitted to.
        numbers: `cox`: slope, mean, and lists times and hazard (Breslow's cumulative baseline
            hazard of a case of mean score); `temperature`: temperature; `line`: lists slope and
            intercept, one a target.
        cutoffs: fold -> risk cut-offs of its training part, on the ensemble's scale.
        horizons: times at which survival is stated, in the task's unit.
        test_share: tested cases for each case trained on; widens the ensemble's interval.
        before, after: log loss of classes, or mean absolute error of the first target, on the cases
            that it was fitted to; None where there is no such number.
    """

    method: Literal["cox", "temperature", "line", "none"]
    note: str
    cases: int
    numbers: dict[str, float | list[float]]
    cutoffs: dict[str, list[float]]
    horizons: list[float]
    test_share: float
    before: float | None
    after: float | None


@dataclasses.dataclass(frozen=True)
class Range:
    """How far a slide may be from the training cohort's before it is called unfamiliar.

    Attributes:
        limit: of the distance; None where there were too few slides to set one.
        slides: that it was fitted to.
    """

    limit: float | None
    slides: int


@dataclasses.dataclass(frozen=True)
class Familiar:
    """What the slides of the training cohort were like.

    Attributes:
        mpp: the least and the largest µm per pixel of their level 0; None of a model that reads
            none.
        stain: of mean haematoxylin and eosin.
        features: teacher -> of a slide's mean feature.
    """

    mpp: tuple[float, float] | None
    stain: Range
    features: dict[str, Range]


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """The whole card.

    Attributes:
        layout: of the file, LAYOUT.
        name: what the model is called, `<cohort>/<task>/<model>`.
        package: version of the package that wrote the file.
        task_name, task: the task's config, spelled out.
        model_name, model: the model's config as trained.
        teachers, dims, outputs: what the networks fit (`aggregators.network.Shape`).
        classes: of a classification, in the order of the outputs; else empty.
        encoders: one for each teacher.
        levels: that the encoders are asked for.
        precision: of the encoders, as the config says.
        head_precision: of the models after them.
        on_bad_tile: what becomes of a tile that cannot be read.
        max_tiles: most tiles of a case that are encoded, spread evenly; None: all, also where the
            members read different numbers.
        members: the ensemble, by fold and seed.
        stacked: the models that a stack reads; else none.
        covariates: columns that it reads; a case may lack each of them.
        calibration: from the ensemble's mean to what it is worth.
        familiar: what the training cohort was like.
        cohort: name, cases, slides, events or classes, folds: the training cohort in numbers.
        seen: first 16 digits of a digest of each training slide's content, so that a slide which
            the models have learned from is known again.
        primary_metric: the metric that decides.
        labelled: whether the metrics are results on a `test` or a `validation`.
        metrics: of the evaluation, one row per metric with its interval.
        restrictions: what a licence of a teacher asks of those who use the model, a line each.
        checksum: SHA-256 of all tensors and of this card without it.
    """

    layout: int
    name: str
    package: str
    task_name: str
    task: dict[str, Any]
    model_name: str
    model: dict[str, Any]
    teachers: list[str]
    dims: list[dict[str, int]]
    outputs: int
    classes: list[str]
    encoders: list[EncoderCard]
    levels: list[str]
    precision: str
    head_precision: str
    on_bad_tile: str
    max_tiles: int | None
    members: list[Member]
    stacked: list[Stacked]
    covariates: list[CovariateCard]
    calibration: Calibration
    familiar: Familiar
    cohort: dict[str, Any]
    seen: list[str]
    primary_metric: str
    labelled: str
    metrics: list[Row]
    restrictions: list[str]
    checksum: str = ""

    @property
    def type(self) -> str:
        """Of the task."""
        return str(self.task["type"])
