"""The models that a student is taken apart with: which they are, by name."""

from __future__ import annotations

from pydantic import Field

from pipeline.config.section import Name, Section


class Controls(Section):
    """Of a student with several teachers; empty where it has no such models.

    Attributes:
        alone: teacher -> the student's own learner on that teacher alone.
        plain: simple model of one teacher -> that teacher.
        simple: all simple models, those of several teachers among them.
        without_distillation: the student without its distillation loss; '' where it has none.
    """

    alone: dict[Name, Name] = Field(default_factory=dict)
    plain: dict[Name, Name] = Field(default_factory=dict)
    simple: tuple[Name, ...] = ()
    without_distillation: str = ""
