"""`pretraining:`, tile encoders that learn from the cohort's own tiles, without labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.encoder_distillation import Made, makes
from pipeline.config.extraction import TeacherConfig
from pipeline.config.forms import form_name, forms, one_of
from pipeline.config.registry import Entry, entries
from pipeline.config.section import Count, Fraction, Name, Section
from pipeline.config.tile_training import AugmentationConfig, CourseConfig

METHODS = "pipeline.pretraining.methods"
PLAIN = "clusiam"
UNTRAINED = "_untrained"
Scale = tuple[float, float]


def methods() -> dict[str, Entry]:
    """The methods, by name."""
    return entries(METHODS)


class ViewsConfig(AugmentationConfig):
    """How views of a tile are cut and augmented. A view is a part of the tile, resized."""

    stain: float = Field(0.1, ge=0, le=1)
    hue: float = Field(0.03, ge=0, le=0.5)
    brightness: float = Field(0.2, ge=0, le=1)
    blur: Fraction = 0.5
    blur_sigma: float = Field(1.5, ge=0, le=10)
    large_scale: Scale = (0.2, 1.0)
    small_scale: Scale = (0.05, 0.2)
    small_px: Count = 96

    @model_validator(mode="after")
    def _shares(self) -> ViewsConfig:
        for name in ("large_scale", "small_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name}: two shares of the area, the smaller one first")
        return self


class AlarmsConfig(Section):
    """Signs of a collapse, and what happens then."""

    then: Literal["go_on", "stop", "go_back"] = "go_back"
    after: Fraction = 0.2
    least_spread: float = Field(0.05, ge=0)
    least_rank: float = Field(1.5, ge=0)
    least_information: float = Field(0.02, ge=0)


class PretrainedTeacher(Section):
    """One encoder. Subclasses have the method's own keys as fields."""

    method: str = PLAIN
    encoder: TeacherConfig = TeacherConfig(source="timm", model="resnet18", weights="random")
    pool: Literal["all", "separate", "training"] = "all"
    views: ViewsConfig = ViewsConfig()
    statistics: Literal["own", "encoder"] = "own"
    course: CourseConfig = CourseConfig()
    alarms: AlarmsConfig = AlarmsConfig()
    keep_every: Count | None = None
    maps: int = Field(4, ge=0)
    control: bool = True

    @model_validator(mode="after")
    def _possible(self) -> PretrainedTeacher:
        if self.encoder.source == "import":
            raise ValueError("encoder: imported features are no network that could learn")
        entry = methods()[self.method]
        if getattr(self, "faithful", False):
            for key in entry.published:
                if getattr(self, key) != entry.defaults[key]:
                    raise ValueError(f"{key}: faithful: true has its own; leave {key} out")
        return self

    def arguments(self) -> dict[str, Any]:
        """The method's own keys."""
        return {key.name: getattr(self, key.name) for key in methods()[self.method].keys}


def _which(data: Any) -> str:
    if not isinstance(data, Mapping):
        return type(data).__name__
    return form_name(PretrainedTeacher, str(data.get("method", PLAIN)))


if TYPE_CHECKING:
    AnyTeacher = PretrainedTeacher
else:
    AnyTeacher = one_of(forms(PretrainedTeacher, "method", methods(), PLAIN), _which)


class PretrainingConfig(Section):
    teachers: dict[Name, AnyTeacher] = Field(default_factory=dict)


class PretrainingJob(Section):
    """One encoder.

    Attributes:
        pretraining: with this teacher alone.
        control: the encoder as it starts, which has learned nothing here.
        weights_dir: folder of local weights.
        start: which file its first weights are in, where they are on this machine.
        labels: columns of the sheet of which a slide of the pool `separate` has none.
        task: whose fold the encoder is for, with the pool `training`; else empty.
        fold: its number.
    """

    pretraining: PretrainingConfig
    control: bool = False
    weights_dir: str | None = None
    start: str = ""
    labels: tuple[str, ...] = ()
    task: str = ""
    fold: int = 0


def made(section: PretrainingConfig | None, tasks: Iterable[str], k: int) -> list[Made]:
    """All encoders that a config asks for.

    With the pool `all` an encoder has seen the slides that it is tested on, though not their
    labels, and its name says so.

    Args:
        section: the config's; None: there is none.
        tasks: of the config.
        k: number of folds.
    """
    found: list[Made] = []
    for name, teacher in section.teachers.items() if section else ():
        control = name + UNTRAINED if teacher.control else None
        found += makes(name, teacher.pool, control, tasks, k, "pretraining")
    return found
