"""What the report reads: the tables that every section shares, loaded and checked once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from pipeline.config.models import (
    CovariatesModel,
    EnsembleModel,
    FinetunedModel,
    LinearModel,
    SingleModel,
)
from pipeline.config.whole import Config
from pipeline.contracts.cohort_facts import CohortFacts, read_cohort_facts
from pipeline.contracts.cohort_flow import CohortFlow, read_cohort_flow
from pipeline.contracts.columns import spelled_out
from pipeline.contracts.ledger import Record, read_manifest
from pipeline.encoders import speaking
from pipeline.encoders.slide_level.inputs import tile_teachers
from pipeline.encoders.tile_scales import groups
from pipeline.errors import ArtifactError
from pipeline.files.parquet import read_table
from pipeline.report.figures import style


@dataclasses.dataclass(frozen=True)
class Results:
    """A cohort's results folder, opened.

    Attributes:
        root: the folder; all paths below are relative to it.
        config: the config that the report was asked for with, tasks spelled out.
        cohort: what is known of it before any slide is read.
        flow: what became of its slides and cases.
        slides, cases, coverage, ledger: the tables of that name.
        tiling: slide -> its record; empty when every teacher is imported and nothing was tiled.
        features: teacher -> slide -> its record.
    """

    root: Path
    config: Config
    cohort: CohortFacts
    flow: CohortFlow
    slides: pd.DataFrame
    cases: pd.DataFrame
    coverage: pd.DataFrame
    ledger: pd.DataFrame
    tiling: Mapping[str, Record]
    features: Mapping[str, Mapping[str, Record]]

    @property
    def teachers(self) -> list[str]:
        return list(self.config.extraction.teachers)

    @property
    def encoders(self) -> list[str]:
        """The teachers, and the encoders that the workflow made, as models call them."""
        return list(dict.fromkeys([*self.teachers, *(one.teacher for one in self.config.made())]))

    @property
    def tasks(self) -> list[str]:
        """Tasks by kind, survival first, then by name: the config comes here with sorted keys."""
        kinds = {name: _KINDS.index(task.type) for name, task in self.config.tasks.items()}
        return sorted(kinds, key=lambda name: (kinds[name], name))


def read(config: Config, root: Path) -> Results:
    """Open a results folder.

    Raises:
        ArtifactError: a file that the report cannot do without is missing or damaged, or lacks a
            column.
    """
    runs_tiling = any(t.source != "import" for t in tile_teachers(config.with_made()).values())
    tables = {name: read_table(root / f"{name}.parquet") for name in _COLUMNS}
    for name, columns in _COLUMNS.items():
        absent = [c for c in columns if c not in tables[name].columns]
        if absent:
            raise ArtifactError(
                f"{root / name}.parquet: no column {', '.join(absent)}; it was made by another "
                f"version: delete it and run again"
            )
    tasks = {
        name: spelled_out(task, tables["cases"].columns) for name, task in config.tasks.items()
    }
    chunks = sorted({int(c) for c in tables["slides"]["chunk"]})
    # Teachers that share a decoding share a manifest.
    folders = {teacher: "+".join(group) for group in groups(config) for teacher in group}
    return Results(
        root=root,
        config=config.model_copy(update={"tasks": tasks}),
        cohort=read_cohort_facts(root),
        flow=read_cohort_flow(root),
        tiling=_records(root / "tiles" / "manifest", chunks) if runs_tiling else {},
        features={
            teacher: _features(root, folders.get(teacher, teacher), teacher, chunks)
            for teacher in config.extraction.teachers
        }
        | {
            # Where each fold has its own encoder, all are of one cost: the last one's.
            one.teacher: _features(root, one.name, one.name, chunks)
            for one in config.made()
        },
        **tables,
    )


_KINDS = ("survival", "classification", "regression")
_COLUMNS = {
    "slides": ("slide_id", "case_id", "chunk"),
    "cases": ("case_id", "n_slides", "n_usable_slides", "complete"),
    "coverage": ("slide_id", "case_id", "teacher", "status", "n_tiles"),
    "ledger": ("slide_id", "case_id", "stage", "status", "kind", "reason"),
}


def _records(
    folder: Path, chunks: Iterable[int], wanted: Callable[[str], bool] = lambda stage: True
) -> dict[str, Record]:
    """The records of the chunks in use; manifests left by another chunking are not read.

    Args:
        folder: with the manifests.
        chunks: in use.
        wanted: whether records of a stage are read.
    """
    found = [r for chunk in chunks for r in read_manifest(folder / f"{chunk}.json")]
    records = [r for r in found if wanted(r.stage)]
    return {r.slide_id: r for r in sorted(records, key=lambda r: r.slide_id)}


def _features(root: Path, folder: str, teacher: str, chunks: Iterable[int]) -> dict[str, Record]:
    """What became of each slide in the extraction of one teacher.

    Args:
        root: the results folder.
        folder: of `features/` with the manifest, which may speak of other teachers, too.
        teacher: the teacher.
        chunks: in use.
    """
    own = f"extraction/{teacher}"
    return _records(
        root / "features" / folder / "manifest",
        chunks,
        lambda stage: stage == own or not stage.startswith("extraction/"),
    )


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """How a model is called, coloured and grouped on the page."""

    name: str
    label: str
    role: str  # student | single | fusion | average | ablation | covariates
    colour: str


_ROLES = {"single": "single", "covariates": "covariates"}  # of a kind; others are fusions
_LABELS = {
    "concat": "Concatenation",
    "mean": "Mean of heads",
    "shazam_v1": "Shazam v1",
    "shazam_v2": "Shazam v2",
}
_COLOURS = {
    "student": style.STUDENT,
    "single": style.SINGLE,
    "fusion": style.FUSION,
    "average": style.AVERAGE,
    "ablation": style.ABLATION,
    "words": style.REFERENCE,
    "covariates": style.INK,
}


def students(infos: Mapping[str, ModelInfo], models: Iterable[str]) -> frozenset[int]:
    """Which of the models, by number, is the student: the row that a table sets in bold."""
    return frozenset(i for i, name in enumerate(models) if infos[name].role == "student")


def describe(config: Config, name: str) -> ModelInfo:
    """The part that a model plays, from the config (`average` is the evaluation's own)."""
    spec = config.model_specs().get(name)
    asked = {speaking.model_name(teacher): teacher for teacher in speaking.speaking(config)}
    if name == config.evaluation.student:
        role = "student"
    elif name in asked:
        role = "words"
    elif spec is None:
        role = "average"
    elif name not in config.model_specs(ablations=False):
        role = "ablation"
    else:
        one = isinstance(spec, LinearModel) and spec.teacher != "all"
        role = "single" if one else _ROLES.get(spec.kind, "fusion")
    if isinstance(spec, SingleModel):
        label = f"{spec.teacher} ({spec.aggregator})"
    elif isinstance(spec, FinetunedModel):
        label = f"{spec.teacher} (fine-tuned {_encoder(spec)})"
    elif isinstance(spec, LinearModel):
        label = f"{'all teachers' if spec.teacher == 'all' else spec.teacher} (linear)"
    elif name in asked:
        label = f"{asked[name]} (words alone)"
    elif isinstance(spec, CovariatesModel):
        label = f"{', '.join(spec.covariates)} alone"
    elif isinstance(spec, EnsembleModel):
        label = _stacked(config, name, spec)
    elif spec is None:
        label = "Average of scores" if name == "average" else name
    else:
        label = _LABELS.get(name, name)
    return ModelInfo(name, label, role, _COLOURS[role])


def _encoder(spec: FinetunedModel) -> str:
    return spec.encoder if isinstance(spec.encoder, str) else spec.encoder.teacher


def _stacked(config: Config, name: str, spec: EnsembleModel) -> str:
    """`linear + age, sex` of one model, its own name of several."""
    if len(spec.of) == 1 and spec.covariates:
        return f"{describe(config, spec.of[0]).label} + {', '.join(spec.covariates)}"
    if name == "ensemble" or name.startswith("ensemble_with"):
        name = f"Ensemble{name.removeprefix('ensemble').replace('_', ' ')}"
    return name
