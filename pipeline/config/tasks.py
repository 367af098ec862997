"""`tasks:`, what is predicted.

A task has the keys of its type and those of its loss, which the loss's own file declares
(`pipeline.config.registry`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from pipeline.config.forms import form_name, forms, one_of
from pipeline.config.registry import Entry, entries
from pipeline.config.section import Name, Section, Weight

LOSSES = "pipeline.training.losses"


def losses(task: str) -> dict[str, Entry]:
    """The losses of a type of tasks, by name."""
    return {name: entry for name, entry in entries(LOSSES).items() if entry.task == task}


class LearnedTask(Section):
    """What all types of tasks have."""

    type: str
    loss: str
    auxiliary: dict[Name, Weight] = Field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """The loss's own keys."""
        defaults = losses(self.type)[self.loss].defaults
        return {key: getattr(self, key, default) for key, default in defaults.items()}


class SurvivalTask(LearnedTask):
    type: Literal["survival"]
    time: str
    event: str
    unit: str = "months"
    loss: str = "nll"


class ClassificationTask(LearnedTask):
    type: Literal["classification"]
    label: str
    classes: list[str] | None = None
    class_weights: bool = True
    loss: str = "cross_entropy"

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


class RegressionTask(LearnedTask):
    type: Literal["regression"]
    targets: list[str] = Field(min_length=1)
    loss: str = "squared_error"


TYPES: dict[str, type[LearnedTask]] = {
    "survival": SurvivalTask,
    "classification": ClassificationTask,
    "regression": RegressionTask,
}


def default_loss(task: str) -> str:
    """The loss of a type of tasks that is used when the config names none."""
    return str(TYPES[task].model_fields["loss"].default)


def _which(data: Any) -> str:
    """The class of a task that is read from a mapping, or that of one that is written."""
    if not isinstance(data, Mapping):
        return type(data).__name__
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        return f"{kind}"
    return form_name(TYPES[kind], data.get("loss", default_loss(kind)))


if TYPE_CHECKING:
    TaskConfig = SurvivalTask | ClassificationTask | RegressionTask
else:
    TaskConfig = one_of(
        (
            form
            for kind, base in TYPES.items()
            for form in forms(base, "loss", losses(kind), default_loss(kind))
        ),
        _which,
    )
