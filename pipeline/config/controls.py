"""The models that a student is taken apart with, which come with it into the run.

Of a student with several teachers: its own learner on each teacher alone, itself without its
distillation loss, and a plain model of each teacher. One that the config names already is that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field, TypeAdapter

from pipeline.config.models import ModelConfig
from pipeline.config.section import Name, Section

# Kinds that a reader would try first.
SIMPLE = frozenset({"single", "linear", "mean", "covariates"})
PLAIN = "linear"


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


def controls(
    student: str, models: Mapping[str, ModelConfig], teachers: Sequence[str]
) -> tuple[dict[str, ModelConfig], Controls]:
    """What is trained besides the models that the config names, and what each control is called.

    Args:
        student: the student's name.
        models: every model that the config names, `teacher: each` expanded.
        teachers: of the config.

    Returns:
        further models by name, and the controls; nothing of a student of one teacher.

    Raises:
        ValueError: a model of the config has the name of a further one, and is another.
    """
    model = models.get(student)
    read = [] if model is None else _reads(model, teachers)
    if model is None or len(read) < 2:
        return {}, Controls()
    wanted = {f"{student}_on_{teacher}": _on(model, teacher, teachers) for teacher in read}
    plain = {f"{PLAIN}_{teacher}": _plain(teacher) for teacher in read}
    undistilled = _without_distillation(model)
    lone = {} if undistilled is None else {f"{student}_without_distillation": undistilled}
    further: dict[str, ModelConfig] = {}
    names: dict[str, str] = {}
    for name, spec in {**plain, **wanted, **lone}.items():
        known = {**models, **further}
        names[name] = next((other for other in known if known[other] == spec), name)
        if known.get(names[name]) == spec:
            continue
        if name in known:
            raise ValueError(
                f"training: a model is called `{name}`, which is the name of a control of the "
                f"student; rename it, or set evaluation.attribution: false"
            )
        further[name] = spec
    every = {**models, **further}
    simple = [name for name, spec in every.items() if spec.kind in SIMPLE]
    return further, Controls(
        alone={t: names[name] for t, name in zip(read, wanted, strict=True)},
        plain={
            name: _reads(every[name], teachers)[0]
            for name in simple
            if len(_reads(every[name], teachers)) == 1
        },
        simple=tuple(simple),
        without_distillation=next((names[name] for name in lone), ""),
    )


def _reads(model: ModelConfig, teachers: Sequence[str]) -> list[str]:
    """The teachers that a model may read."""
    teacher = getattr(model, "teacher", "all")
    if teacher != "all":
        return [teacher]
    return [t for t in teachers if t not in getattr(model, "drop_teachers", ())]


def _on(model: ModelConfig, teacher: str, teachers: Sequence[str]) -> ModelConfig:
    """The same learner on one teacher."""
    if "teacher" in type(model).model_fields:
        return model.model_copy(update={"teacher": teacher})
    others = tuple(t for t in teachers if t != teacher)
    return model.model_copy(update={"drop_teachers": others})


def _plain(teacher: str) -> ModelConfig:
    adapter: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)
    return adapter.validate_python({"kind": PLAIN, "teacher": teacher})


def _without_distillation(model: ModelConfig) -> ModelConfig | None:
    """The same without its distillation loss; None where it has none."""
    distillation = getattr(model, "distillation", None)
    if distillation is None or not distillation.weight:
        return None
    without = distillation.model_copy(update={"weight": 0.0})
    return model.model_copy(update={"distillation": without})
