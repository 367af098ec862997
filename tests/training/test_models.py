"""From a model's config to its network."""

from __future__ import annotations

import pytest

from pipeline.aggregators.network import Shape, parameter_count
from pipeline.config.models import FusionModel
from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.errors import ConfigError
from pipeline.training.models import build_network

DIMS = ({"low": 64, "mid": 128, "high": 256}, {"low": 96, "mid": 96, "high": 96})
SHAPE = Shape(("a", "b"), DIMS, 3)


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


@pytest.mark.parametrize("aggregator", ["abmil", "mean_pool"])
def test_a_fusion_can_be_of_a_students_size(aggregator: str) -> None:
    specs = config(aggregator=aggregator).model_specs()
    student = parameter_count(build_network(specs["shazam_v2"], SHAPE))
    model = FusionModel.model_validate(specs["matched"].model_dump(mode="json"))  # as a job is told
    matched = parameter_count(build_network(model, SHAPE))
    assert matched == pytest.approx(student, rel=0.1)
    plain = parameter_count(build_network(FusionModel(kind="concat", aggregator=aggregator), SHAPE))  # type: ignore[arg-type]
    assert abs(plain - student) > abs(matched - student)


def test_only_a_student_and_only_by_width_can_a_fusion_be_sized() -> None:
    with pytest.raises(ConfigError, match=r"sized_as `shazam_v3`.*did you mean `shazam_v2`"):
        config(sized_as="shazam_v3")
    spec = config(aggregator="mean_pool", kind="mean").model_specs()["matched"]
    with pytest.raises(ConfigError, match="does not depend on d_model"):
        build_network(spec, SHAPE)
