"""`training:`, how the models are trained."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.config.models import ModelConfig
from pipeline.config.section import Name, Section

GRID_KEYS = (
    "learning_rate",
    "weight_decay",
    "batch_size",
    "tiles_per_step",
    "max_tiles_per_case",
    "standardise",
)


class NestedConfig(Section):
    """Nested cross-validation: what is tried on the inner folds, and what decides."""

    grid: dict[str, tuple[bool | int | float | str | None, ...]] = Field(
        {"learning_rate": (1e-3, 1e-4), "weight_decay": (0.0, 1e-4)}
    )
    criterion: Literal["metric", "loss"] = "metric"

    @model_validator(mode="after")
    def _values(self) -> NestedConfig:
        for key, values in self.grid.items():
            if not values:
                raise ValueError(f"grid.{key}: an empty list leaves nothing to try")
        return self

    def points(self) -> list[dict[str, Any]]:
        """Every combination of the grid's values, the last key fastest."""
        return [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]


class TrainingConfig(Section):
    models: dict[Name, ModelConfig] = Field(default_factory=dict)
    ablations: dict[Name, ModelConfig] = Field(default_factory=dict)
    epochs: int = Field(60, ge=1)
    patience: int = Field(15, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    max_tiles_per_case: int | None = Field(4096, ge=1)
    tiles_per_step: int | None = Field(512, ge=1)
    standardise: bool = True
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    attention_cases_per_fold: int = Field(2, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    refit: bool = True
    nested: NestedConfig | None = None
    tensorboard: bool = False

    def at(self, point: Mapping[str, Any], model: Any) -> tuple[TrainingConfig, Any]:
        """Training settings and model at a point of the nested grid.

        A key is one of GRID_KEYS or a key of the model (`distillation.weight`); one that the model
        does not have leaves it as it is.

        Raises:
            ValidationError: a value is not one that the key takes.
        """
        own = {key: value for key, value in point.items() if key in GRID_KEYS}
        settings = TrainingConfig.model_validate({**self.model_dump(), **own})
        spec = model.model_dump()
        for key, value in point.items():
            *path, last = key.split(".")
            node: Any = spec
            for part in path:
                node = node.get(part) if isinstance(node, dict) else None
            if key not in own and isinstance(node, dict) and last in node:
                node[last] = value
        return settings, type(model).model_validate(spec)
