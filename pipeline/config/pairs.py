"""`pairs:`, a vision-language teacher that learns from tiles and their captions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.extraction import TeacherConfig
from pipeline.config.section import Name, Section
from pipeline.config.tile_training import AugmentationConfig, CourseConfig


class PairsConfig(Section):
    """A model of open_clip, tuned on pairs of a tile and its caption.

    Attributes:
        name: of the teacher that comes out.
        start: the model that it starts from.
        captions: CSV with slide_id, x, y and caption; null: those of the embedded cohort.
        objective: contrastive alone, or contrastive and captioning.
        train: all parameters, or projections, poolers and the decoder.
        contrastive_weight, caption_weight: of the two losses of a CoCa.
        decoded: held-out tiles whose captions are written down by a CoCa.
    """

    name: Name
    start: TeacherConfig
    captions: str | None = None
    objective: Literal["clip", "coca"] = "clip"
    train: Literal["all", "heads"] = "all"
    contrastive_weight: float = Field(1.0, ge=0)
    caption_weight: float = Field(2.0, ge=0)
    decoded: int = Field(20, ge=0)
    augmentation: AugmentationConfig = AugmentationConfig()
    course: CourseConfig = CourseConfig()

    @model_validator(mode="after")
    def _some_loss(self) -> PairsConfig:
        if self.start.source != "open_clip":
            raise ValueError("start: needs source: open_clip")
        if self.objective == "coca" and not self.contrastive_weight and not self.caption_weight:
            raise ValueError("contrastive_weight and caption_weight: one of them must be above 0")
        return self


class PairsJob(Section):
    """What the training on pairs is told.

    Attributes:
        weights_dir: folder of local weights.
        captions: digest of the captions.
        tiles: the folder of tiles that captions are of.
        embedded: folder of the embedded cohort, whose hidden states are put into words; '' where
            captions are given.
        slides: digest of the slides.
    """

    pairs: PairsConfig
    weights_dir: str | None
    captions: str
    tiles: str
    embedded: str
    slides: str
