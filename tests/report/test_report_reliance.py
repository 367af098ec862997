"""What the student leans on, from what its trainings wrote."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.whole import Config
from pipeline.report import results
from pipeline.report.sections import reliance


def test_teachers_are_ordered_by_the_part_they_have(whole: tuple[Config, Path]) -> None:
    config, root = whole
    found = reliance.table(results.read(config, root), "survival", "shazam_v2")
    assert found is not None
    cells = [[str(cell.html) for cell in row] for row in found.rows]
    assert cells == [
        ["vit_tiny", "9.0 ± 1.0", "0.86", "2 of 2"],  # evidence 8 and 10, spread 0.6 of 0.7
        ["convnext_atto", "1.0 ± 0.0", "0.14", "1 of 2"],
        ["resnet10t", "0.0 ± 0.0", "0.00", "0 of 2"],
    ]
    assert "has 50% of the prediction" in found.read
    assert "the teachers' own have 25%, one that reads how much of a case is" in found.read
    assert "kind of tissue 75%" in found.read
    assert "all teachers together" not in found.read


def test_a_student_without_fallback_has_no_such_table(whole: tuple[Config, Path]) -> None:
    config, root = whole
    assert reliance.table(results.read(config, root), "survival", "concat") is None
