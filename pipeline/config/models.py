"""`training.models:`, what is trained.

A model that pools each teacher by an aggregator has the keys of its kind and those of its
aggregator, which the aggregator's own file declares (`pipeline.config.registry`); there is one
class for each pair, so that a key which a model does not use is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, TypeAdapter, create_model, model_validator
from pydantic.json_schema import SkipJsonSchema

from pipeline.config.extraction import TeacherConfig
from pipeline.config.forms import form_name, forms, one_of, own_fields
from pipeline.config.registry import Entry, entries
from pipeline.config.section import Count, Fraction, Level, Name, Section, Width

AGGREGATORS = "pipeline.aggregators"
DISTILLATION_LOSSES = "pipeline.distillation.losses"
# What the published students have, whatever the defaults are; docs/methods.md has the reasons.
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "shazam_v1": {
        "d_model": 128,
        "layers": 5,
        "heads": 1,
        "dropout": 0.0,
        "teacher_dropout": 0.0,
        "raw_features": True,
        "distillation": {"weight": 0.5, "plain": 0.0, "targets": "projected", "reduction": "sum"},
    },
    "shazam_v2": {
        "d_model": 128,
        "layers": 4,
        "heads": 1,
        "gate": "before_norm",
        "pooling": "published",
        "dropout": 0.25,
        "teacher_dropout": 0.0,
        "raw_features": True,
        "distillation": {"weight": 0.01, "plain": 0.0, "targets": "attached", "reduction": "mean"},
    },
}


def aggregators() -> dict[str, Entry]:
    """The MIL models, by name."""
    return entries(AGGREGATORS)


def distillation_losses() -> dict[str, Entry]:
    """What a student's knowledge of its teachers' features is compared by, by name."""
    return entries(DISTILLATION_LOSSES)


class DistillationConfig(Section):
    """What the student learns from besides the labels: its teachers' features, and the answers of
    plain models of the same cases and teachers: a linear one and a forest.

    Subclasses have the loss's own keys as fields.
    """

    weight: float = Field(0.05, ge=0)
    plain: Fraction = 0.8
    targets: Literal["whitened", "learned", "attached", "projected"] = "whitened"
    reduction: Literal["mean", "sum"] = "mean"
    loss: str = "cosine_huber"

    def arguments(self) -> dict[str, Any]:
        """The loss's own keys."""
        return {key.name: getattr(self, key.name) for key in distillation_losses()[self.loss].keys}


def _which_distillation(data: Any) -> str:
    if not isinstance(data, Mapping):
        return type(data).__name__
    return form_name(DistillationConfig, data.get("loss", "cosine_huber"))


_DISTILLATIONS = forms(DistillationConfig, "loss", distillation_losses(), "cosine_huber")
if TYPE_CHECKING:
    AnyDistillation = DistillationConfig
else:
    AnyDistillation = one_of(_DISTILLATIONS, _which_distillation)
PLAIN_DISTILLATION = TypeAdapter(AnyDistillation).validate_python({})


class Model(Section):
    """What all kinds have: `covariates` are columns of `cohort.covariates` which a small regression
    reads beside the model's own prediction (`Config.model_specs` makes an ensemble of one of it).
    """

    covariates: tuple[str, ...] = ()


class PooledModel(Model):
    """Bags of each teacher and level, each pooled by an aggregator of its own, whose keys
    subclasses have as fields."""

    kind: str
    aggregator: str = "abmil"
    levels: tuple[Level, ...] = Field(("high",), min_length=1)

    def arguments(self) -> dict[str, Any]:
        """The aggregator's own keys."""
        fields = type(self).model_fields
        keys = [key.name for key in aggregators()[self.aggregator].keys if key.name in fields]
        return {key: getattr(self, key) for key in keys}


class SingleModel(PooledModel):
    """One teacher and one aggregator (MIL model); `teacher: each` makes one model per teacher. Of
    several levels: the mean of one head per level.
    """

    kind: Literal["single"]
    teacher: str = "each"


class FusionModel(PooledModel):
    """All teachers: `concat` of pooled vectors before the head, or `mean` of per-teacher heads."""

    kind: Literal["concat", "mean"]
    drop_teachers: tuple[str, ...] = ()


class SizableFusion(FusionModel):
    """One whose size depends on d_model.

    `sized_as` names a student: d_model is then chosen so that both have as many parameters. In
    `Config.model_specs` the name is replaced by that student's config.
    """

    d_model: Width = 128
    sized_as: Name | ShazamV1Model | ShazamV2Model | None = None


class ConcatModel(SizableFusion):
    """All teachers: each one's tiles pooled by an aggregator, the vectors side by side, a head."""

    kind: Literal["concat"]
    dropout: Fraction = 0.25


class LinearModel(Model):
    """A penalised regression on statistics of each case's tiles, with its inner cross-validation.

    `teacher: all` has all teachers side by side, `each` makes one model per teacher.
    """

    kind: Literal["linear"]
    teacher: str = "all"
    levels: tuple[Level, ...] = Field(("high",), min_length=1)
    statistics: Literal["mean", "mean_deviation"] = "mean"


class EncoderStart(Section):
    """What a fine-tuned slide encoder is and starts with, as `Config.model_specs` spells it out.

    Attributes:
        teacher: its name among the teachers.
        row: of the registry.
        settings: the teacher's settings.
        weights_dir: folder of local weights.
        identity: of a local weights file; another one is another start.
    """

    teacher: str
    row: str
    settings: TeacherConfig
    weights_dir: str | None = None
    identity: str = ""


class FinetunedModel(Model):
    """A slide encoder that goes on learning, from the tiles of one teacher, with a linear head over
    the pooled states of chosen layers and learning rates that fall from block to block.

    `encoder` names a teacher with `source: slide`, whose weights it starts with, and `teacher` the
    tiles' teacher that this reads. In `Config.model_specs` the encoder is spelled out.
    """

    kind: Literal["finetuned"]
    encoder: Name | SkipJsonSchema[EncoderStart]
    teacher: Name
    levels: tuple[Literal["high"], ...] = ("high",)
    layers: tuple[Count, ...] = Field((11,), min_length=1)
    pooling: Literal["mean", "cls"] = "mean"
    rate: float = Field(0.25, gt=0, le=1)
    layer_decay: float = Field(0.95, gt=0, le=1)
    warm_up: int = Field(1, ge=0)
    dropout: Fraction = 0.1
    drop_path: Fraction = 0.0


class StudentModel(Model):
    """What both students have. `faithful: true` stands for the keys of `PUBLISHED`."""

    kind: str
    d_model: int = Field(128, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(1, ge=1)
    dropout: Fraction = 0.25
    teacher_dropout: Fraction = 0.2
    drop_teachers: tuple[str, ...] = ()
    raw_features: bool = False
    faithful: bool = False
    distillation: AnyDistillation = PLAIN_DISTILLATION

    @model_validator(mode="before")
    @classmethod
    def _what_follows(cls, data: Any) -> Any:
        """Fill in what `faithful` decides, and refuse another value for it."""
        if not isinstance(data, Mapping) or data.get("faithful") is not True:
            return data
        decided = PUBLISHED[data["kind"]]
        given = data.get("distillation", {})
        if not isinstance(given, Mapping):  # a mistake that its own class tells of
            return data
        for key, value in _flat(decided).items():
            path = key.split(".")
            own = given if path[1:] else data
            if own.get(path[-1], value) != value:
                raise ValueError(
                    f"{key}: with faithful: true it is {_yaml(value)}, and {_yaml(own[path[-1]])} "
                    f"would not be used; leave it out"
                )
        distillation = {**decided["distillation"], **given}
        return {**decided, **data, "distillation": distillation}

    def decided(self) -> Mapping[str, Any]:
        """The keys that `faithful` decides, with their values."""
        return PUBLISHED[self.kind] if self.faithful else {}


def _flat(decided: Mapping[str, Any]) -> dict[str, Any]:
    """Keys with those of inner sections, joined by a dot."""
    found: dict[str, Any] = {}
    for key, value in decided.items():
        inner = value.items() if isinstance(value, Mapping) else ()
        found |= {f"{key}.{name}": each for name, each in inner} or {key: value}
    return found


class ShazamV1Model(StudentModel):
    """Each teacher's mean feature as a token, self-attention over teachers, one head; learns to
    give its teachers' features back from its state (distillation) besides the labels.
    """

    kind: Literal["shazam_v1"]


class ShazamV2Model(StudentModel):
    """Three depths of every teacher, pooled by attention, weighed by a gate, mixed by
    self-attention over teachers and carried from low to high; distillation as in `shazam_v1`.
    """

    kind: Literal["shazam_v2"]
    levels: tuple[Level, ...] = ("low", "mid", "high")
    gate: Literal["after_norm", "before_norm", "off"] = "after_norm"
    pooling: Literal["slim", "published"] = "slim"


class EnsembleModel(Model):
    """Other models of the config, weighed by how well each predicts training cases which it has not
    learned from; weights are not negative.

    `of` names models as the config does; in `Config.model_specs` each is spelled out.
    """

    kind: Literal["ensemble"]
    of: tuple[Name, ...] = Field(min_length=1)


class CovariatesModel(Model):
    """No slides: a penalised regression on columns of the sheet, such as age, sex and stage.

    Without `covariates` it reads all of `cohort.covariates`.
    """

    kind: Literal["covariates"]


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _pooled_models() -> Iterator[type[PooledModel]]:
    """A class for each kind and aggregator, and one for a published form that has fewer keys."""
    for entry in aggregators().values():
        for faithful in (False, True) if entry.published else (None,):
            yield _with_keys("Single", SingleModel, entry, faithful)
            yield _with_keys("Concat", ConcatModel, entry, faithful)
            sizable = "d_model" in _fields(entry, faithful)
            base = SizableFusion if sizable else FusionModel
            yield _with_keys("Mean", base, entry, faithful, kind=(Literal["mean"], ...))


def _with_keys(
    prefix: str, base: type[PooledModel], entry: Entry, faithful: bool | None, **more: Any
) -> type[PooledModel]:
    """A class with the keys of a kind of model and of an aggregator.

    Args:
        prefix: the first part of the class's name.
        base: with the kind's keys.
        entry: the aggregator.
        faithful: the form, where the published one has fewer keys; else None.
        more: fields.
    """
    fields = _fields(entry, faithful)
    own = {key: field for key, field in fields.items() if key not in base.model_fields}
    name: Any = Literal[entry.name]
    default = "abmil" if entry.name == "abmil" else ...
    return create_model(
        _tag(prefix, entry.name, faithful),
        __base__=base,
        aggregator=(name, default),
        **more,
        **own,
    )


def _fields(entry: Entry, faithful: bool | None) -> dict[str, Any]:
    """The aggregator's keys as pydantic takes them."""
    fields = own_fields(entry, taken={*SingleModel.model_fields, "sized_as"})
    if faithful is not None:
        fields["faithful"] = (Literal[faithful], ... if faithful else False)
        fields = {k: f for k, f in fields.items() if not (faithful and k in entry.published)}
    return fields


def _tag(kind: str, aggregator: str, faithful: bool | None) -> str:
    return f"{kind}_{aggregator}{'_faithful' if faithful else ''}"


OTHERS = {
    "linear": LinearModel,
    "finetuned": FinetunedModel,
    "shazam_v1": ShazamV1Model,
    "shazam_v2": ShazamV2Model,
    "ensemble": EnsembleModel,
    "covariates": CovariatesModel,
}


def _which(data: Any) -> str:
    """The class of a model that is read from a mapping, or that of one that is written."""
    if not isinstance(data, Mapping):
        return type(data).__name__
    kind = str(data.get("kind"))
    if kind in OTHERS:
        return OTHERS[kind].__name__
    entry = aggregators().get(data.get("aggregator", "abmil"))
    if kind not in ("single", "concat", "mean") or entry is None:
        return kind if entry else f"{data.get('aggregator')}"
    faithful = bool(entry.published) and data.get("faithful") is True
    return _tag(kind.capitalize(), entry.name, faithful)


# Those that read other models' predictions and the sheet, and no features.
STACKED = (EnsembleModel, CovariatesModel)
STACKS = ("ensemble", "covariates")  # their kinds

SizableFusion.model_rebuild()
ConcatModel.model_rebuild()
if TYPE_CHECKING:
    ModelConfig = (
        SingleModel
        | FusionModel
        | LinearModel
        | FinetunedModel
        | ShazamV1Model
        | ShazamV2Model
        | EnsembleModel
        | CovariatesModel
    )
else:
    ModelConfig = one_of((*_pooled_models(), *OTHERS.values()), _which)
