"""What the stages that train a tile encoder share: augmentation and the course of training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.section import Count, Fraction, Positive, Section


class AugmentationConfig(Section):
    """What is done to the tiles that a network learns from. Each tile has its own draw."""

    flips: bool = True
    stain: float = Field(0.05, ge=0, le=1)
    hue: float = Field(0.02, ge=0, le=0.5)
    brightness: float = Field(0.1, ge=0, le=1)
    blur: Fraction = 0.2
    blur_sigma: float = Field(1.0, ge=0, le=10)


class CourseConfig(Section):
    """How long, how fast and with how much memory a network learns."""

    steps: Count = 20_000
    batch_size: Count = 256
    accumulate: Count = 1
    tiles_per_visit: Count = 8
    learning_rate: Positive = 5e-4
    minimum_learning_rate: float = Field(1e-6, ge=0)
    warm_up: Fraction = 0.05
    optimiser: Literal["adamw", "sgd", "lars"] = "adamw"
    weight_decay: float = Field(0.05, ge=0)
    final_weight_decay: float | None = Field(None, ge=0)
    clip: float = Field(1.0, ge=0)
    ema: float = Field(0.999, ge=0, lt=1)
    held_out: float = Field(0.1, gt=0, lt=1)
    held_out_tiles: Count = 4096
    validate_every: Count = 500
    patience: Count = 10
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 0

    @model_validator(mode="after")
    def _whole_visits(self) -> CourseConfig:
        if self.batch_size % self.accumulate:
            raise ValueError("batch_size must be a multiple of accumulate")
        if (self.batch_size // self.accumulate) % self.tiles_per_visit:
            raise ValueError("batch_size / accumulate must be a multiple of tiles_per_visit")
        return self
