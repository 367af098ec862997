"""From a model's config to its network."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from pipeline.aggregators.network import Shape, fitted_count, parameter_count
from pipeline.config.models import ModelConfig
from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.contracts.case_map import CaseMap, TeacherLevels
from pipeline.errors import ConfigError
from pipeline.training.models import build_network, reads, sized

DIMS = ({"low": 64, "mid": 128, "high": 256}, {"low": 96, "mid": 96, "high": 96})
MAPPING = CaseMap({"a": TeacherLevels(DIMS[0]), "b": TeacherLevels(DIMS[1])}, {})


def read(model: dict[str, Any]) -> ModelConfig:
    return TypeAdapter(ModelConfig).validate_python(model)


def config(**fusion: object) -> Config:
    student = {"kind": "shazam_v2", "d_model": 64}
    return parse(
        {
            "training": {
                "models": {
                    "shazam_v2": student,
                    "matched": {"kind": "concat", "sized_as": "shazam_v2", **fusion},
                }
            },
        }
    )


def size(model: Any) -> int:
    """Parameters of the model, with the teachers' levels that it reads."""
    teachers, levels = reads(model, MAPPING)
    known = MAPPING.teachers
    dims = tuple({level: known[t].dims[level] for level in levels} for t in teachers)
    return parameter_count(build_network(model, Shape(tuple(teachers), dims, 3)))


@pytest.mark.parametrize("aggregator", ["abmil", "mean_pool"])
def test_a_fusion_can_be_of_a_students_size(aggregator: str) -> None:
    """The student reads three levels, the fusion one."""
    specs = config(aggregator=aggregator).model_specs()
    student = size(specs["shazam_v2"])
    told = read(specs["matched"].model_dump(mode="json"))  # as a job is told
    matched = sized(told, MAPPING, 3)
    assert size(matched) == pytest.approx(student, rel=0.1)
    plain = read({"kind": "concat", "aggregator": aggregator})
    assert abs(size(plain) - student) > abs(size(matched) - student)
    assert sized(plain, MAPPING, 3) is plain


@pytest.mark.parametrize("kind", ["concat", "mean", "shazam_v1", "shazam_v2"])
def test_dropped_teachers_are_not_read(kind: str) -> None:
    assert reads(read({"kind": kind, "drop_teachers": ["a"]}), MAPPING)[0] == ["b"]


def test_only_a_student_and_only_by_width_can_a_fusion_be_sized() -> None:
    with pytest.raises(ConfigError, match=r"sized_as `shazam_v3`.*did you mean `shazam_v2`"):
        config(sized_as="shazam_v3")
    with pytest.raises(ConfigError, match="sized_as: not a key of `kind: mean`"):
        config(aggregator="mean_pool", kind="mean")


def test_a_size_that_no_width_changes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.training.models._size", lambda *_: 7)
    with pytest.raises(ConfigError, match="`abmil` does not depend on d_model"):
        sized(config().model_specs()["matched"], MAPPING, 3)


def test_numbers_that_are_fitted_into_buffers_are_counted() -> None:
    """Of a fusion: a shift and a scale for each feature, and the limit of the scaler."""
    shape = Shape(("a", "b"), DIMS, 3)
    plain = build_network(read({"kind": "concat", "aggregator": "mean_pool"}), shape)
    kept = sum(value.numel() for value in plain.state_dict().values())
    scaler = 2 * sum(sum(dims.values()) for dims in DIMS) + 1
    assert fitted_count(plain) == scaler
    assert parameter_count(plain) + fitted_count(plain) == kept
