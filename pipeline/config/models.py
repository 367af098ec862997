"""`training.models:`, what is trained."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from pipeline.config.section import Fraction, Level, Name, Section

Aggregator = Literal[
    "mean_pool",
    "max_pool",
    "abmil",
    "gated_abmil",
    "clam_sb",
    "dsmil",
    "chowder",
    "transmil",
    "hiptmil",
    "transformer",
]
AGGREGATORS: tuple[str, ...] = get_args(Aggregator)


class DistillationConfig(Section):
    """What the student learns from its teachers' features besides the labels."""

    weight: float = Field(0.05, ge=0)
    targets: Literal["whitened", "learned", "attached"] = "whitened"
    huber_delta: float = Field(1.0, gt=0)
    prediction_weight: float = Field(0.0, ge=0)


class SingleModel(Section):
    """One teacher, one aggregator. `teacher: each` makes one model per teacher."""

    kind: Literal["single"]
    teacher: str = "each"
    aggregator: Aggregator = "abmil"
    level: Level = "high"
    d_model: int = Field(128, ge=8)
    dropout: Fraction = 0.25
    faithful: bool = False


class ShazamV1Model(Section):
    kind: Literal["shazam_v1"]
    d_model: int = Field(128, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(1, ge=1)
    dropout: Fraction = 0.25
    teacher_dropout: Fraction = 0.2
    distillation: DistillationConfig = DistillationConfig()

    @model_validator(mode="after")
    def _no_predictions(self) -> ShazamV1Model:
        if self.distillation.prediction_weight:
            raise ValueError(
                "distillation.prediction_weight: only `shazam_v2` with a `fallback` has "
                "the teachers' out-of-fold predictions to learn from"
            )
        return self


class ShazamV2Model(Section):
    kind: Literal["shazam_v2"]
    d_model: int = Field(128, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(1, ge=1)
    levels: tuple[Level, ...] = ("low", "mid", "high")
    gate: Literal["after_norm", "before_norm", "off"] = "after_norm"
    dropout: Fraction = 0.25
    teacher_dropout: Fraction = 0.2
    drop_teachers: tuple[str, ...] = ()
    fallback: Literal["all", "both", "stacked", "joint", "off"] = "all"
    refit: bool = True
    faithful: bool = False
    distillation: DistillationConfig = DistillationConfig()

    @model_validator(mode="after")
    def _predictions(self) -> ShazamV2Model:
        if self.distillation.prediction_weight and (self.fallback == "off" or self.faithful):
            raise ValueError(
                "distillation.prediction_weight: the teachers' out-of-fold predictions come from "
                "`fallback`, which is off"
            )
        return self


class FusionModel(Section):
    """All teachers: `concat` of pooled vectors before the head, or `mean` of per-teacher heads.

    `sized_as` names a student: d_model is then chosen so that both have as many parameters. In
    `Config.model_specs` the name is replaced by that student's config.
    """

    kind: Literal["concat", "mean"]
    aggregator: Aggregator = "abmil"
    level: Level = "high"
    d_model: int = Field(128, ge=8)
    dropout: Fraction = 0.25
    faithful: bool = False
    sized_as: Name | ShazamV1Model | ShazamV2Model | None = None


ModelConfig = Annotated[
    SingleModel | FusionModel | ShazamV1Model | ShazamV2Model,
    Field(discriminator="kind"),
]
