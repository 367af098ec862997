"""Which version numbers decide a job's result, by what it does: the workflow's `version` params.

What is independent has its own number, so that a new loader leaves the features of other teachers
and a new aggregator the trainings of other models. Installed libraries have none: which they were
is written down with the results, and an upgrade of one makes nothing stale.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.config.cohort import CohortConfig
from pipeline.config.extraction import TeacherConfig
from pipeline.config.models import (
    PLAIN_DISTILLATION,
    STACKED,
    FinetunedModel,
    LinearModel,
    ModelConfig,
    ShazamV1Model,
    ShazamV2Model,
    SizableFusion,
    aggregators,
    distillation_losses,
)
from pipeline.config.pretraining import PretrainedTeacher, methods
from pipeline.config.probing import ProbingConfig
from pipeline.config.registry import Entry
from pipeline.config.section import Section
from pipeline.config.tasks import ClassificationTask, TaskConfig, losses
from pipeline.config.training import TrainingConfig
from pipeline.contracts.versions import Versions, version_of, versions_in
from pipeline.encoders.slide_level.registry import SLIDE, row_of


def text(versions: Mapping[str, Any]) -> str:
    """As a param of a rule, and as a part of fingerprints."""
    return json.dumps(versions, sort_keys=True)


def stage(room: str) -> Versions:
    """Of a stage whose numbers nothing decides but its own code.

    Args:
        room: the folder of `pipeline/` that holds its `stage.py`.
    """
    return {room: version_of(f"pipeline.{room}.stage")}


def cohort_chunk(cohort: CohortConfig) -> Versions:
    """One chunk's slide table; the slides of the embedded cohort are drawn with it."""
    drawn = {"painting": version_of("pipeline.cohort.synthetic.painting")}
    return stage("cohort") | (drawn if cohort.source == "synthetic" else {})


def overview() -> Versions:
    """The table and contact sheet of all slides."""
    return {"overview": version_of("pipeline.tiling.overview")}


def check(teacher: str, settings: TeacherConfig) -> Versions:
    """A teacher's preflight, which builds it."""
    return {"check": version_of("pipeline.extraction.check")} | _encoder(teacher, settings)


def extraction(
    settings: Mapping[str, TeacherConfig], teachers: Sequence[str]
) -> dict[str, Versions]:
    """Each of some teachers' features.

    Args:
        settings: name → settings.
        teachers: the names of those that are asked for.
    """
    return {name: stage("extraction") | _encoder(name, settings[name]) for name in sorted(teachers)}


def slide_encoders(teacher: str, settings: TeacherConfig) -> Versions:
    """A slide encoder's vectors."""
    return stage("slide_encoders") | _encoder(teacher, settings)


def pretraining(teacher: PretrainedTeacher) -> Versions:
    """One encoder that learns without labels, by its method."""
    return stage("pretraining") | {
        f"method {teacher.method}": _own(methods()[teacher.method]),
        "clusters": version_of("pipeline.pretraining.cluster_loss"),
    }


def imports() -> Versions:
    """Features that another tool made."""
    return {"imports": version_of("pipeline.extraction.imports")}


def robustness(teacher: str, settings: TeacherConfig) -> Versions:
    """One teacher under shifts."""
    own = {"robustness": version_of("pipeline.probing.robustness")}
    return own | stage("extraction") | _encoder(teacher, settings)


def probing_gains() -> Versions:
    """Encoders against themselves before they were trained."""
    return {"gains": version_of("pipeline.probing.gains")}


def tile_students(cfg: ProbingConfig) -> Versions:
    """Students on tiles, and each teacher's probes on the same tiles."""
    found = stage("probing") | {"together": version_of("pipeline.probing.together")}
    if cfg.students:
        found |= stage("training") | _task(
            ClassificationTask(type="classification", label="tissue")
        )
    for kind in cfg.students:
        found |= _student(kind) | _distillation(PLAIN_DISTILLATION.loss)
    return found


def training(
    cfg: TrainingConfig, model: ModelConfig, task: TaskConfig, auxiliary: Iterable[TaskConfig]
) -> Versions:
    """One model of one task.

    Args:
        cfg: the training section.
        model: the model.
        task: the task.
        auxiliary: the tasks that are learned with it.
    """
    found = stage("training") | _model(model) | _task(task)
    if cfg.nested is not None:
        found["nested"] = version_of("pipeline.training.nested")
    for other in auxiliary:
        found |= {"multitask": version_of("pipeline.training.multitask")} | _task(other)
    return found


def out_of_fold(
    cfg: TrainingConfig, model: ModelConfig, task: TaskConfig, auxiliary: Iterable[TaskConfig]
) -> Versions:
    """What one model of one task says of training cases that it has not seen.

    Args:
        cfg, model, task, auxiliary: as of `training`.
    """
    own = {"out of fold": version_of("pipeline.training.out_of_fold")}
    return training(cfg, model, task, auxiliary) | own


def stacking(task: TaskConfig) -> Versions:
    """A model that reads other models' predictions, or covariates."""
    own = {"stacking": version_of("pipeline.training.stacking")}
    return own | {f"task {task.type}": version_of(f"pipeline.training.{task.type}")}


def evaluation(task: TaskConfig) -> Versions:
    """A task's measures."""
    metrics = version_of(f"pipeline.evaluation.{task.type}_metrics")
    return stage("evaluation") | {f"{task.type} metrics": metrics}


def external_predictions() -> Versions:
    """Trained models on a cohort that had no part in their training."""
    return {"external predictions": version_of("pipeline.external.predictions")}


def external(task: TaskConfig) -> Versions:
    """A task's measures on such a cohort."""
    return stage("external") | evaluation(task)


def _encoder(name: str, settings: TeacherConfig) -> Versions:
    """A teacher's loader, the layout of its checkpoint, and its architecture where that is ours."""
    # An encoder that the pipeline made may not be there yet; it has the plain layout.
    row = None if settings.source == "folder" else row_of(name, settings)
    if settings.source == SLIDE and row is not None:
        module = "remote" if row.loader == "remote" else row.arch
        return {
            part: version_of(f"pipeline.encoders.slide_level.{part}") for part in ("build", module)
        }
    if row is not None and row.loader == "remote":
        return {"loader remote": version_of("pipeline.encoders.remote")}
    found: Versions = {}
    if settings.source == "open_clip":
        found["loader open_clip"] = version_of("pipeline.encoders.open_clip_models")
    if settings.weights != "random":
        source = "timm" if settings.source == "folder" else settings.source
        layout = row.layout if row else source
        found[f"layout {layout}"] = version_of("pipeline.encoders.checkpoint_layouts", layout)
    if row is not None and row.arch in versions_in("pipeline.encoders.architectures"):
        found[f"architecture {row.arch}"] = version_of("pipeline.encoders.architectures", row.arch)
    return found


def _model(model: ModelConfig) -> Versions:
    if isinstance(model, ShazamV1Model | ShazamV2Model):
        answers = _answers() if model.distillation.plain else {}
        return _student(model.kind) | _distillation(model.distillation.loss) | answers
    if isinstance(model, FinetunedModel):
        return {
            "model finetuned": version_of("pipeline.aggregators.finetuned"),
            "longnet": version_of("pipeline.encoders.slide_level.longnet"),
        }
    if isinstance(model, LinearModel):
        return {"model linear": version_of("pipeline.linear.linear")}
    assert not isinstance(model, STACKED)  # `stacking` has theirs
    found = {f"model {model.kind}": version_of("pipeline.aggregators.fusion", model.kind)}
    found[f"aggregator {model.aggregator}"] = _own(aggregators()[model.aggregator])
    # A fusion that is as large as a student is another one when the student changes.
    student = model.sized_as if isinstance(model, SizableFusion) else None
    return found | (_student(student.kind) if isinstance(student, Section) else {})


def _distillation(loss: str) -> Versions:
    return {f"distillation {loss}": _own(distillation_losses()[loss])}


def _answers() -> Versions:
    return {
        "plain answers": version_of("pipeline.training.plain_answers"),
        "forest": version_of("pipeline.forest.unseen"),
        "model linear": version_of("pipeline.linear.linear"),
    }


def _student(kind: str) -> Versions:
    return {
        "students": version_of("pipeline.distillation.student"),
        f"model {kind}": version_of(f"pipeline.distillation.{kind}"),
    }


def _task(task: TaskConfig) -> Versions:
    return {
        f"task {task.type}": version_of(f"pipeline.training.{task.type}"),
        f"loss {task.loss}": _own(losses(task.type)[task.loss]),
    }


def _own(entry: Entry) -> int:
    """A file that somebody drops into a folder may state no version, which is the first."""
    return versions_in(entry.module).get("", 1)
