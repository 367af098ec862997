"""`encoder_distillation:`, small tile encoders that learn from all teachers, and their controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.config.extraction import TeacherConfig
from pipeline.config.section import Count, Fraction, Name, Positive, Section, Weight
from pipeline.config.tile_training import AugmentationConfig, CourseConfig

TRANSDUCTIVE = "_transductive"
UNDISTILLED = "_undistilled"


class LossesConfig(Section):
    """What the distance between a student's answer and a teacher's is made of."""

    cosine: float = Field(1.0, ge=0)
    smooth_l1: float = Field(1.0, ge=0)
    mse: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _some(self) -> LossesConfig:
        if not any(self.weights().values()):
            raise ValueError("losses: all weights are 0, so there is nothing to learn")
        return self

    def weights(self) -> dict[str, float]:
        """Loss -> its weight, of those that count."""
        return {name: float(weight) for name, weight in self if weight}


class SlideLossConfig(Section):
    """`recipe: gigapath`: what a frozen view of whole slides makes of the student's tiles."""

    encoder: Name
    beta: Fraction = 0.5
    tile_batch: Count = 64


class PatchesConfig(Section):
    """Teachers that run beside the student, so that it learns their patch tokens, too."""

    teachers: tuple[Name, ...] = ()
    weight: Positive = 1.0


class StudentCourse(CourseConfig):
    """Slower than other courses: a student that starts from weights must not forget them."""

    learning_rate: Positive = 1e-4


class EncoderStudent(Section):
    """One small encoder: what it is and starts as, what it learns from, and how."""

    encoder: TeacherConfig = TeacherConfig(
        source="timm", model="vit_small_patch16_224", weights="random", seed=0
    )
    depth: Count | None = None
    width: Count | None = None
    teachers: tuple[Name, ...] = ()
    pool: Literal["separate", "training", "all"] = "training"
    recipe: Literal["tiles", "gigapath"] = "tiles"
    slide: SlideLossConfig | None = None
    patches: PatchesConfig | None = None
    losses: LossesConfig = LossesConfig()
    standardise: Literal["phi_s", "scalar"] = "phi_s"
    tokens: Literal["shared", "per_teacher"] = "shared"
    nested: tuple[Count, ...] = ()
    weights: Literal["balanced"] | dict[Name, Weight] = Field(default_factory=dict)
    teacher_dropout: Fraction = 0.0
    head_width: Count = 1024
    keep_norms: bool = True
    augmentation: AugmentationConfig = AugmentationConfig()
    course: StudentCourse = StudentCourse()
    control: bool = True

    @model_validator(mode="before")
    @classmethod
    def _plain_encoder(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("encoder"), str):
            raise ValueError("encoder: facts as of a teacher, e.g. {source: timm, model: resnet18}")
        return data

    @model_validator(mode="after")
    def _possible(self) -> EncoderStudent:
        if self.encoder.source == "import":
            raise ValueError("encoder: imported features are no network that could learn")
        if self.width and self.encoder.weights != "random":
            raise ValueError("width: another width has no weights to start from; weights: random")
        if self.teacher_dropout == 1:
            raise ValueError("teacher_dropout: 1 leaves no teacher to learn from")
        if (self.recipe == "gigapath") != (self.slide is not None):
            raise ValueError(
                "recipe: gigapath needs `slide: {encoder: NAME}`, a teacher with `source: slide` "
                "or a MIL model; other recipes have no `slide`"
            )
        return self


class EncoderDistillationConfig(Section):
    students: dict[Name, EncoderStudent] = Field(default_factory=dict)


class SlideViewTold(Section):
    """The frozen view of whole slides that a student is judged through.

    Attributes:
        name: of a slide encoder, or of a MIL model.
        reads: the teacher whose features it reads.
        settings: of the slide encoder; None: a MIL model with random parameters.
        facts: its row of the registry, and which weights it has.
        precision: as extraction has it.
    """

    name: str
    reads: str
    settings: TeacherConfig | None = None
    facts: dict[str, Any] = Field(default_factory=dict)
    precision: str = "auto"


class EncoderDistillationJob(Section):
    """One encoder.

    Attributes:
        encoder_distillation: with this student alone.
        control: the student as it starts, without any distillation.
        teachers: teacher -> folder of `features/` with its manifests.
        facts: teacher -> `title`, `licence` and `restricted`, of the registry.
        start: the same of what the student starts as.
        weights_dir: folder of local weights.
        labels: columns of the sheet of which a slide of the pool `separate` has none.
        live: teacher -> its config, of those whose patch tokens are learned.
        slide: the view of whole slides, with `recipe: gigapath`.
        task: whose fold the student is for, with the pool `training`; else empty.
        fold: its number.
    """

    encoder_distillation: EncoderDistillationConfig
    control: bool = False
    teachers: dict[str, str] = Field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = Field(default_factory=dict)
    start: dict[str, Any] = Field(default_factory=dict)
    weights_dir: str | None = None
    labels: tuple[str, ...] = ()
    live: dict[str, TeacherConfig] = Field(default_factory=dict)
    slide: SlideViewTold | None = None
    task: str = ""
    fold: int = 0


@dataclasses.dataclass(frozen=True)
class Made:
    """An encoder that the workflow makes.

    Attributes:
        name: of its folders below `teachers/` and `features/`.
        teacher: what models call it.
        student: the key of the config.
        control: it is the student as it starts.
        task: whose fold it is for; empty: it serves all tasks and folds.
        fold: its number.
        stage: that makes it.
    """

    name: str
    teacher: str
    student: str
    control: bool = False
    task: str = ""
    fold: int = 0
    stage: str = "encoder_distillation"


def made(section: EncoderDistillationConfig | None, tasks: Iterable[str], k: int) -> list[Made]:
    """All encoders that a config asks for.

    Args:
        section: the config's; None: there is none.
        tasks: of the config.
        k: number of folds.
    """
    found: list[Made] = []
    for name, student in section.students.items() if section else ():
        control = name + UNDISTILLED if student.control else None
        found += makes(name, student.pool, control, tasks, k, "encoder_distillation")
    return found


def makes(
    name: str, pool: str, control: str | None, tasks: Iterable[str], k: int, stage: str
) -> list[Made]:
    """The encoders that one entry of a config asks for.

    With the pool `all` an encoder has seen the slides that it is tested on. Its name says so, and
    with it every table, figure and sentence that names it or a model that reads it. With the pool
    `training` there is one for each outer fold of each task.

    Args:
        name: the entry's.
        pool: which slides it sees.
        control: what the encoder as it starts is called; None: there is none.
        tasks: of the config.
        k: number of folds.
        stage: that makes them.
    """
    if pool == "training":
        found = [
            Made(f"{name}.{task}.{fold}", name, name, task=task, fold=fold, stage=stage)
            for task in tasks
            for fold in range(k)
        ]
    else:
        called = name + TRANSDUCTIVE if pool == "all" else name
        found = [Made(called, called, name, stage=stage)]
    if control is not None:
        found.append(Made(control, control, name, control=True, stage=stage))
    return found
