"""What the student's prediction is made of, from what its trainings wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.whole import Config
from pipeline.report import results
from pipeline.report.sections import student_parts


def test_the_shares_are_those_really_used_and_sum_to_one(whole: tuple[Config, Path]) -> None:
    config, root = whole
    found = student_parts.table(results.read(config, root), "survival", "shazam_v2")
    assert found is not None
    shares = {str(row[0].html): float(row[1].key) for row in found.rows}
    assert sum(shares.values()) == pytest.approx(100)
    # Folds: network 0.25 and 0.75; of the rest, own probes a third (of 1.5) and a fifth (of 2.5).
    assert shares["network"] == pytest.approx(50)
    assert shares["linear probe of the composition by kinds of tissue"] == pytest.approx(
        50 * (0.75 * 2 / 3 + 0.25 * 4 / 5)
    )
    assert shares["linear probe of vit_tiny"] == pytest.approx(50 * (0.75 / 3 + 0.25 / 5 * 0.75))
    assert shares["linear probe of all teachers together"] == 0
    used = {str(row[0].html): str(row[2].html) for row in found.rows}
    assert used["linear probe of convnext_atto"] == "1 of 2"
    evidence = {str(row[0].html): str(row[3].html) for row in found.rows}
    assert evidence["linear probe of vit_tiny"] == "9.0"  # 8 and 10


def test_a_network_that_has_everything_leaves_nothing_to_probes() -> None:
    network = {"share": 1.0, "anchor": {"teachers": {"a": {"spread": 0.4}}, "parts": {"apart": 1}}}
    shares = student_parts._shares(network, ("a",))
    assert shares["network"] == 1 and sum(shares.values()) == 1


def test_a_student_without_probes_has_no_such_table(whole: tuple[Config, Path]) -> None:
    config, root = whole
    assert student_parts.table(results.read(config, root), "survival", "concat") is None
