"""A task's result in a sentence."""

from __future__ import annotations

import pytest

from pipeline.config.reading import parse
from pipeline.report.sections.headline import _humbled, has_more_cases
from pipeline.report.tables.metrics import describe

NESTED = {"folds": {"inner": 3}, "training": {"nested": {"grid": {"dropout": [0.1]}}}}


@pytest.mark.parametrize(
    ("student", "more", "expected"),
    [
        ({}, {}, True),
        ({"refit": False}, {}, False),
        ({"fallback": "off"}, {}, False),
        ({"faithful": True}, {}, False),
        ({}, NESTED, False),
    ],
)
def test_a_student_that_learns_from_more_cases_than_others(
    student: dict, more: dict, expected: bool
) -> None:
    """Within nested folds all models learn from both parts."""
    models = {"v2": {"kind": "shazam_v2", **student}, "mean": {"kind": "mean"}}
    training = {**more.get("training", {}), "models": models}
    cfg = parse({**more, "training": training, "evaluation": {"student": "v2"}}).training
    assert has_more_cases(cfg, "v2") is expected
    assert not has_more_cases(cfg, "mean")


@pytest.mark.parametrize(
    ("metric", "low", "humbled"),
    [("c_index", 0.48, True), ("c_index", 0.51, False), ("r2", -0.01, True), ("r2", None, False),
     ("mae", -1.0, False)],
)  # fmt: skip
def test_a_student_that_chance_could_have_made_is_called_that(
    metric: str, low: float | None, humbled: bool
) -> None:
    said = _humbled({"low": low}, describe(metric))
    assert ("does not show that it predicts" in said) is humbled


def test_the_page_says_so(page: str) -> None:
    said = "probes also learn from the validation cases"
    assert said in page
