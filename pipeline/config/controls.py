"""The models that a student is taken apart with, which come with it into the run.

Of a student with several teachers: its own learner on each teacher alone, itself without its
distillation loss, and a plain model of each teacher. One that the config names already is that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from pipeline.config.models import CovariatesModel, EnsembleModel, LinearModel, ModelConfig
from pipeline.config.section import Name, Section

# Kinds that a reader would try first.
SIMPLE = frozenset({"single", "linear", "mean"})
PLAIN = "linear"


class Controls(Section):
    """Of a student with several teachers; empty where it has no such models.

    Attributes:
        alone: teacher -> the student's own learner on that teacher alone.
        plain: simple model of one teacher -> that teacher.
        simple: all simple models, those of several teachers among them.
        without_distillation: the student without its distillation loss; '' where it has none.
        covariates: covariates alone; '' where the cohort has none.
        with_covariates: the student and these.
    """

    alone: dict[Name, Name] = Field(default_factory=dict)
    plain: dict[Name, Name] = Field(default_factory=dict)
    simple: tuple[Name, ...] = ()
    without_distillation: str = ""
    covariates: str = ""
    with_covariates: str = ""


def controls(
    student: str,
    models: Mapping[str, ModelConfig],
    teachers: Sequence[str],
    covariates: tuple[str, ...] = (),
) -> tuple[dict[str, ModelConfig], Controls]:
    """What is trained besides the models that the config names, and what each control is called.

    Args:
        student: the student's name.
        models: every model that the config names, `teacher: each` expanded.
        teachers: of the config.
        covariates: of the cohort.

    Returns:
        further models by name, and the controls; of a student of one teacher those of covariates.

    Raises:
        ValueError: a model of the config has the name of a further one, and is another.
    """
    model = models.get(student)
    if model is None:
        return {}, Controls()
    known = _Known(models)
    beside = _beside_covariates(student, model, covariates, known)
    read = _reads(model, teachers, models)
    if len(read) < 2:
        return known.further, Controls(**beside)
    plain = {
        teacher: known.named(f"{PLAIN}_{teacher}", LinearModel(kind="linear", teacher=teacher))
        for teacher in read
    }
    alone = {
        teacher: known.named(f"{student}_on_{teacher}", _on(model, teacher, teachers, known))
        for teacher in read
    }
    undistilled = _without_distillation(model)
    lone = ""
    if undistilled is not None:
        lone = known.named(f"{student}_without_distillation", undistilled)
    every = {**models, **known.further}
    simple = [name for name, spec in every.items() if spec.kind in SIMPLE]
    single = {name: _reads(every[name], teachers, every) for name in simple}
    assert set(plain.values()) <= set(simple)
    return known.further, Controls(
        alone=alone,
        plain={name: of[0] for name, of in single.items() if len(of) == 1},
        simple=tuple(simple),
        without_distillation=lone,
        **beside,
    )


class _Known:
    """Models by name, and further ones that are added to them.

    Args:
        models: that the config names.
    """

    def __init__(self, models: Mapping[str, ModelConfig]) -> None:
        self.models = models
        self.further: dict[str, ModelConfig] = {}

    def __getitem__(self, name: str) -> ModelConfig:
        return {**self.models, **self.further}[name]

    def named(self, wanted: str, spec: ModelConfig) -> str:
        """The name of a model that is the same; else it is added by the name wanted.

        Raises:
            ValueError: another model has that name.
        """
        known = {**self.models, **self.further}
        found = next((name for name in known if known[name] == spec), None)
        if found is not None:
            return found
        if wanted in known:
            raise ValueError(
                f"training: a model is called `{wanted}`, which is the name of a control of the "
                f"student; rename it, or set evaluation.attribution: false"
            )
        self.further[wanted] = spec
        return wanted


def _beside_covariates(
    student: str, model: ModelConfig, covariates: tuple[str, ...], known: _Known
) -> dict[str, str]:
    """Covariates alone and the student with them; nothing where the cohort has none."""
    if not covariates or isinstance(model, CovariatesModel):
        return {}
    alone = CovariatesModel(kind="covariates", covariates=model.covariates or covariates)
    both = model
    if not model.covariates:
        of = model.of if isinstance(model, EnsembleModel) else (student,)
        both = EnsembleModel(kind="ensemble", of=of, covariates=covariates)
    return {
        "covariates": known.named("covariates", alone),
        "with_covariates": known.named(f"{student}_with_covariates", both),
    }


def _reads(
    model: ModelConfig, teachers: Sequence[str], models: Mapping[str, ModelConfig]
) -> list[str]:
    """The teachers that a model may read."""
    if isinstance(model, CovariatesModel):
        return []
    if isinstance(model, EnsembleModel):
        read = {t for name in model.of for t in _reads(models[name], teachers, models)}
        return [t for t in teachers if t in read]
    teacher = getattr(model, "teacher", "all")
    if teacher != "all":
        return [teacher]
    return [t for t in teachers if t not in getattr(model, "drop_teachers", ())]


def _on(model: ModelConfig, teacher: str, teachers: Sequence[str], known: _Known) -> ModelConfig:
    """The same learner on one teacher; of an ensemble each member."""
    if isinstance(model, EnsembleModel):
        of = [
            known.named(f"{name}_on_{teacher}", _on(known[name], teacher, teachers, known))
            for name in model.of
        ]
        return model.model_copy(update={"of": tuple(dict.fromkeys(of))})
    if "teacher" in type(model).model_fields:
        return model.model_copy(update={"teacher": teacher})
    others = tuple(t for t in teachers if t != teacher)
    return model.model_copy(update={"drop_teachers": others})


def _without_distillation(model: ModelConfig) -> ModelConfig | None:
    """The same without its distillation loss; None where it has none."""
    distillation = getattr(model, "distillation", None)
    if distillation is None or not (distillation.weight or distillation.plain):
        return None
    without = distillation.model_copy(update={"weight": 0.0, "plain": 0.0})
    # It has all keys of the published form but this one.
    return model.model_copy(update={"distillation": without, "faithful": False})
