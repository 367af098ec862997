"""Cost beside accuracy: what a model costs is what its teachers and its own training cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.config.whole import Config
from pipeline.report import histories, results
from pipeline.report.sections import costs
from tests.report.conftest import small_config

SINGLES = ["single_vit_tiny", "single_resnet10t", "single_convnext_atto"]


def test_a_model_costs_its_teachers_and_its_training(whole: tuple[Config, Path]) -> None:
    config, root = whole
    opened = results.read(config, root)
    names = ["shazam_v2", "single_resnet10t", "average"]
    student, single, average = costs.costs(opened, "survival", names, SINGLES)
    tiles = [r.facts["n_tiles"] for r in opened.features["resnet10t"].values() if r.status == "ok"]
    assert single.teachers == ("resnet10t",)
    assert single.gflop == pytest.approx(1.0 * np.mean(tiles))
    assert student.gflop == pytest.approx((0.5 + 1.0 + 1.5) * np.mean(tiles))
    assert single.parameters == 40_000
    assert single.seconds == pytest.approx(2 * 1.0)  # two folds
    assert single.inference == pytest.approx(0.0025)  # median of the folds
    # The average is no training of its own: it costs what its members cost.
    assert average.teachers == student.teachers
    assert average.parameters == 20_000 + 40_000 + 60_000
    assert average.gflop == student.gflop


def test_what_imported_features_cost_is_not_known(small: Path) -> None:
    teacher = {"source": "import", "path": "features/resnet10t"}
    teachers = {**small_config().model_dump()["extraction"]["teachers"], "resnet10t": teacher}
    config = small_config(extraction={"teachers": teachers})
    opened = results.read(config, small)
    assert costs.gflop_per_slide(opened, "resnet10t") is None
    student, other = costs.costs(opened, "survival", ["shazam_v2", "single_vit_tiny"], SINGLES)
    assert student.gflop is None  # a sum with an unknown part is not known
    assert other.gflop is not None


def test_the_page_shows_costs_in_a_table_and_a_figure(page: str) -> None:
    assert 'id="survival-cost"' in page
    assert "GFLOP per slide" in page


def test_a_model_without_slides_costs_no_teacher(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for the average, which costs what its members cost."""
    opened = results.read(small_config(), small)
    known = {
        "age_alone": histories.Facts(3, 0.1, 0.0, ()),
        "single": histories.Facts(40_000, 1.0, 0.1, ("resnet10t",)),
    }
    monkeypatch.setattr(histories, "facts", lambda root, task, name: known[name])
    (alone,) = costs.costs(opened, "survival", ["age_alone"], ["single"])
    assert alone.teachers == () and alone.gflop is None and alone.parameters == 3
