"""A task's result in a sentence."""

from __future__ import annotations

import pytest

from pipeline.report.sections.headline import _humbled
from pipeline.report.tables.metrics import describe


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
