"""From a model's config to a network: which teachers and levels it reads, and what it is."""

from __future__ import annotations

import torch

from pipeline.aggregators.fusion import Concat, Mean, PerTeacher
from pipeline.aggregators.network import Network, Shape, parameter_count
from pipeline.config.models import (
    STACKED,
    ConcatModel,
    FinetunedModel,
    FusionModel,
    LinearModel,
    ModelConfig,
    ShazamV1Model,
    ShazamV2Model,
    SingleModel,
    SizableFusion,
)
from pipeline.contracts.case_map import CaseMap
from pipeline.distillation.shazam_v1 import LEVEL, ShazamV1
from pipeline.distillation.shazam_v2 import ShazamV2
from pipeline.errors import ConfigError, nearest
from pipeline.linear.linear import LinearOfCases


def reads(model: ModelConfig, mapping: CaseMap) -> tuple[list[str], list[str]]:
    """The teachers and levels that a model reads.

    Args:
        model: the model's config; `teacher: each` has been expanded.
        mapping: the feature files of each case.

    Returns:
        teachers that have at least one of the levels, and the levels.

    Raises:
        ConfigError: no such teacher, or none that has the level.
    """
    known = list(mapping.teachers)
    teachers = known
    if isinstance(model, SingleModel | LinearModel | FinetunedModel) and model.teacher != "all":
        if model.teacher not in known:
            raise ConfigError(f"no features of `{model.teacher}`{nearest(model.teacher, known)}")
        teachers = [model.teacher]
    elif isinstance(model, FusionModel | ShazamV1Model | ShazamV2Model):
        teachers = [t for t in known if t not in model.drop_teachers]
    assert not isinstance(model, STACKED)  # those read other models, and no features
    levels: list[str] = [LEVEL] if isinstance(model, ShazamV1Model) else list(model.levels)
    able = [t for t in teachers if set(levels) & set(mapping.teachers[t].dims)]
    if not able:
        raise ConfigError(
            f"none of the teachers {', '.join(teachers) or '(none left)'} has the level "
            f"{' or '.join(levels)}; imported features have `high` only"
        )
    if isinstance(model, SingleModel | FusionModel) and len(able) < len(teachers):
        lacking = sorted(set(teachers) - set(able))
        wanted = " or ".join(f"`{level}`" for level in levels)
        raise ConfigError(f"{', '.join(lacking)} has no level {wanted}; use `levels: [high]`")
    return able, levels


def build_network(model: ModelConfig, shape: Shape) -> Network:
    """The network of a model config (`sized`), with freshly drawn weights."""
    if isinstance(model, SingleModel | FusionModel):
        return _pooled(model, shape)
    if isinstance(model, LinearModel):
        return LinearOfCases(shape, model)
    if isinstance(model, FinetunedModel):
        # With it come the encoders' libraries, which other trainings need not wait for.
        from pipeline.aggregators.finetuned import Finetuned

        return Finetuned(shape, model)
    if isinstance(model, ShazamV1Model):
        return ShazamV1(shape, model)
    assert isinstance(model, ShazamV2Model)
    return ShazamV2(shape, model)


def _pooled(model: SingleModel | FusionModel, shape: Shape) -> PerTeacher:
    own = (shape, model.aggregator, model.arguments())
    return (
        Concat(*own, model.d_model, model.dropout) if isinstance(model, ConcatModel) else Mean(*own)
    )


def sized(model: ModelConfig, mapping: CaseMap, outputs: int) -> ModelConfig:
    """A fusion that is `sized_as` a student with the width that makes it so; others as they are.

    The student is counted with the levels that it reads itself, which a fusion does not.

    Args:
        model: the model's config.
        mapping: the feature files of each case.
        outputs: of the task's head.

    Raises:
        ConfigError: the fusion's size does not depend on d_model.
    """
    if not isinstance(model, SizableFusion) or model.sized_as is None:
        return model
    assert not isinstance(model.sized_as, str)  # Config.model_specs has replaced the name
    size = _size(model.sized_as, _shape(model.sized_as, mapping, outputs))
    width = matched_width(model, _shape(model, mapping, outputs), size)
    return model.model_copy(update={"d_model": width, "sized_as": None})


def _shape(model: ModelConfig, mapping: CaseMap, outputs: int) -> Shape:
    """What a network of this model must fit."""
    teachers, levels = reads(model, mapping)
    dims = [
        {level: has[level] for level in levels if level in has}
        for has in (mapping.teachers[teacher].dims for teacher in teachers)
    ]
    return Shape(tuple(teachers), tuple(dims), outputs)


def matched_width(model: SizableFusion, shape: Shape, size: int) -> int:
    """The d_model, a multiple of 8, with which a fusion comes nearest to `size` parameters.

    Args:
        model: the fusion.
        shape: teachers, widths, outputs.
        size: number of parameters.

    Raises:
        ConfigError: its size does not depend on d_model.
    """

    def at(width: int) -> int:
        return _size(model.model_copy(update={"d_model": width, "sized_as": None}), shape)

    if at(8) == at(16):
        raise ConfigError(f"sized_as: the size of `{model.aggregator}` does not depend on d_model")
    low, high = 8, 16
    while at(high) < size:
        low, high = high, 2 * high
    while high - low > 8:
        middle = (low + high) // 16 * 8
        low, high = (middle, high) if at(middle) < size else (low, middle)
    return min(low, high, key=lambda width: abs(at(width) - size))


def _size(model: ModelConfig, shape: Shape) -> int:
    """Trained parameters of a model, counted without making its weights."""
    with torch.device("meta"):
        return parameter_count(build_network(model, shape))
