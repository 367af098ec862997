"""The models that come with a student, to take it apart."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.controls import Controls
from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.errors import ConfigError

TEACHERS = {t: {"source": "import", "path": f"/features/{t}"} for t in "abc"}


def config(models: dict[str, Any], student: str = "v2", **evaluation: Any) -> Config:
    return parse(
        {
            "extraction": {"teachers": TEACHERS},
            "tasks": {"t": {"type": "survival", "time": "time", "event": "event"}},
            "training": {"models": models},
            "evaluation": {"student": student, **evaluation},
        }
    )


def test_a_student_brings_its_learner_on_each_teacher_itself_undistilled_and_plain_models() -> None:
    made = config({"v2": {"kind": "shazam_v2", "layers": 1}, "single": {"kind": "single"}})
    specs, found = made.model_specs(), made.controls()
    assert found.alone == {t: f"v2_on_{t}" for t in "abc"}
    assert specs["v2_on_a"] == specs["v2"].model_copy(update={"drop_teachers": ("b", "c")})
    assert found.without_distillation == "v2_without_distillation"
    assert specs["v2_without_distillation"].distillation.weight == 0
    assert specs["v2_without_distillation"].layers == 1
    assert found.plain == {
        **{f"single_{t}": t for t in "abc"},
        **{f"linear_{t}": t for t in "abc"},
    }
    assert set(found.simple) == set(found.plain)


@pytest.mark.parametrize("kind", ["shazam_v1", "concat", "mean"])
def test_every_model_of_several_teachers_can_be_taken_apart(kind: str) -> None:
    made = config({"v2": {"kind": kind}})
    alone = made.model_specs()["v2_on_b"]
    assert (alone.kind, alone.drop_teachers) == (kind, ("a", "c"))
    assert bool(made.controls().without_distillation) == (kind == "shazam_v1")


def test_a_linear_student_is_its_own_plain_model() -> None:
    made = config({"v2": {"kind": "linear", "teacher": "all"}})
    assert made.controls().alone == {t: f"linear_{t}" for t in "abc"}
    assert set(made.model_specs()) == {"v2", "linear_a", "linear_b", "linear_c"}


def test_a_model_that_the_config_names_is_not_trained_twice() -> None:
    made = config(
        {
            "v2": {"kind": "shazam_v2"},
            "plain": {"kind": "linear", "teacher": "each"},
            "alone": {"kind": "shazam_v2", "drop_teachers": ["b", "c"]},
            "undistilled": {"kind": "shazam_v2", "distillation": {"weight": 0, "plain": 0}},
        }
    )
    found = made.controls()
    assert found.alone["a"] == "alone" and found.without_distillation == "undistilled"
    assert set(found.plain) == {"plain_a", "plain_b", "plain_c"}
    assert set(made.model_specs()) == {
        "v2", "plain_a", "plain_b", "plain_c", "alone", "undistilled", "v2_on_b", "v2_on_c",
    }  # fmt: skip


def test_dropped_teachers_have_no_control() -> None:
    made = config({"v2": {"kind": "shazam_v2", "drop_teachers": ["b"]}})
    assert made.controls().alone == {"a": "v2_on_a", "c": "v2_on_c"}
    assert made.model_specs()["v2_on_a"].drop_teachers == ("b", "c")


@pytest.mark.parametrize(
    ("models", "more"),
    [
        ({"v2": {"kind": "single", "teacher": "a"}}, {}),
        ({"v2": {"kind": "shazam_v2", "drop_teachers": ["a", "b"]}}, {}),
        ({"v2": {"kind": "shazam_v2"}}, {"attribution": False}),
    ],
)
def test_one_teacher_or_attribution_false_brings_nothing(models: dict, more: dict) -> None:
    made = config(models, **more)
    assert made.controls() == Controls() and set(made.model_specs()) == {"v2"}


def test_a_name_that_a_control_needs_is_refused_for_another_model() -> None:
    with pytest.raises(ConfigError, match="`v2_on_a`, which is the name of a control"):
        config({"v2": {"kind": "shazam_v2"}, "v2_on_a": {"kind": "concat"}})
