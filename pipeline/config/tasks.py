"""`tasks:`, what is predicted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from pipeline.config.section import Fraction, Name, Section, Weight


class SurvivalTask(Section):
    type: Literal["survival"]
    time: str
    event: str
    unit: str = "months"
    loss: Literal["nll", "cox", "ranking"] = "nll"
    bins: int = Field(4, ge=2, le=30)
    alpha: Fraction = 0.4
    ties: Literal["breslow", "efron"] = "efron"
    auxiliary: dict[Name, Weight] = Field(default_factory=dict)


class ClassificationTask(Section):
    type: Literal["classification"]
    label: str
    classes: list[str] | None = None
    class_weights: bool = True
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    auxiliary: dict[Name, Weight] = Field(default_factory=dict)

    @field_validator("classes", mode="before")
    @classmethod
    def _written_in_quotes(cls, given: Any) -> Any:
        for name in given if isinstance(given, list | tuple) else ():
            if isinstance(name, bool):
                raise ValueError(
                    "YAML reads yes, no, on and off as true and false: write the names in quotes, "
                    'such as ["yes", "no"], as the sheet has them'
                )
            if isinstance(name, int | float):
                raise ValueError(
                    "YAML reads these as numbers, and 01 as 1: write the names in quotes, such as "
                    '["0", "1"], as the sheet has them'
                )
        return given


class RegressionTask(Section):
    type: Literal["regression"]
    targets: list[str] = Field(min_length=1)
    auxiliary: dict[Name, Weight] = Field(default_factory=dict)


TaskConfig = Annotated[
    SurvivalTask | ClassificationTask | RegressionTask, Field(discriminator="type")
]
