"""From the models that a config names to those that are trained: `each`, `sized_as`, `of`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.config.models import (
    STACKED,
    CovariatesModel,
    EnsembleModel,
    LinearModel,
    ModelConfig,
    SingleModel,
    SizableFusion,
)
from pipeline.errors import nearest


def expanded(
    named: Mapping[str, ModelConfig], teachers: Sequence[str], covariates: Sequence[str]
) -> dict[str, dict[str, ModelConfig]]:
    """For each model of the config those that are trained for it, by name.

    A model of `teacher: each` is `<name>_<teacher>`. A fusion that is `sized_as` a student carries
    that student's config. A model with covariates is an ensemble of one and its covariates; that
    one is a model of the config that is the same but for them, or `<name>_alone`.

    Args:
        named: models and ablations.
        teachers: of the config.
        covariates: of the cohort.

    Raises:
        ValueError: an ensemble names what is no model or is stacked itself, a model names no
            covariate of the cohort, or a name is taken.
    """
    _check(named, covariates)
    found: dict[str, dict[str, ModelConfig]] = {}
    for name, model in named.items():
        plain = _plain(model)
        if isinstance(plain, SingleModel | LinearModel) and plain.teacher == "each":
            found[name] = {f"{name}_{t}": plain.model_copy(update={"teacher": t}) for t in teachers}
        elif isinstance(plain, SizableFusion) and isinstance(plain.sized_as, str):
            student = _plain(named[plain.sized_as]) if plain.sized_as in named else None
            found[name] = {name: plain.model_copy(update={"sized_as": student or plain.sized_as})}
        else:
            found[name] = {name: plain}
    unstacked = {n: m for of in found.values() for n, m in of.items() if not isinstance(m, STACKED)}
    bare = {n: m for name, of in found.items() if not named[name].covariates for n, m in of.items()}
    for name, model in named.items():
        if isinstance(model, EnsembleModel):
            of = tuple(dict.fromkeys(n for one in model.of for n in found[one]))
            found[name] = {name: model.model_copy(update={"of": of})}
        elif isinstance(model, CovariatesModel):
            read = model.covariates or tuple(covariates)
            found[name] = {name: model.model_copy(update={"covariates": read})}
        elif model.covariates:
            found[name] = {
                n: m
                for own, one in found[name].items()
                for n, m in _with_covariates(own, one, model.covariates, bare, unstacked).items()
            }
    return found


def _with_covariates(
    name: str,
    model: ModelConfig,
    covariates: tuple[str, ...],
    bare: Mapping[str, ModelConfig],
    taken: Mapping[str, ModelConfig],
) -> dict[str, ModelConfig]:
    """An ensemble of the model and covariates, and the model where the config has none like it."""
    alone = next((other for other, one in bare.items() if one == model), "")
    further: dict[str, ModelConfig] = {}
    if not alone:
        alone = f"{name}_alone"
        if alone in taken:
            raise ValueError(
                f"training: a model is called `{alone}`, which is the name of `{name}` without its "
                f"covariates; rename it"
            )
        further[alone] = model
    return {**further, name: EnsembleModel(kind="ensemble", of=(alone,), covariates=covariates)}


def _plain(model: ModelConfig) -> ModelConfig:
    """The model without covariates, where these are no model of their own."""
    return model if isinstance(model, STACKED) else model.model_copy(update={"covariates": ()})


def _check(named: Mapping[str, ModelConfig], covariates: Sequence[str]) -> None:
    for name, model in named.items():
        for column in model.covariates:
            if column not in covariates:
                raise ValueError(
                    f"training: model `{name}` names the covariate `{column}`, which is not in "
                    f"cohort.covariates{nearest(column, covariates)}"
                )
        if isinstance(model, CovariatesModel) and not covariates:
            raise ValueError(
                f"training: model `{name}` reads covariates, and cohort.covariates names none, "
                f"such as [age, sex, stage]"
            )
        for other in model.of if isinstance(model, EnsembleModel) else ():
            if other not in named:
                raise ValueError(
                    f"training: model `{name}` is an ensemble of `{other}`, which is no model"
                    f"{nearest(other, [n for n in named if n != name])}"
                )
            if isinstance(named[other], STACKED) or named[other].covariates:
                raise ValueError(
                    f"training: model `{name}` is an ensemble of `{other}`, which is a regression "
                    f"on other models or on covariates itself; name models that read slides, and "
                    f"covariates as `covariates:` of the ensemble"
                )
