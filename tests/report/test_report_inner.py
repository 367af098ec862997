"""What nested cross-validation chose, as the page shows it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pipeline.config.whole import Config
from pipeline.files.parquet import write_table
from pipeline.report import results, stage
from pipeline.report.evaluated import read_evaluation
from pipeline.report.results import describe
from pipeline.report.sections import nested_cv
from tests.report.conftest import small_config

GRID = {"learning_rate": [0.001, 0.0001], "tiles_per_step": [16, None]}
POINTS = [(0.001, 16), (0.001, None), (0.0001, 16), (0.0001, None)]
# For each model and fold the inner scores of the four points; the highest was chosen.
SCORES = {
    "shazam_v2": [[0.60, 0.70, 0.66, 0.50], [0.61, 0.71, 0.69, 0.51]],
    "concat": [[0.60, 0.60, 0.65, 0.60], [0.66, 0.60, 0.60, 0.60]],
}


@pytest.fixture
def nested(small: Path) -> tuple[Config, Path]:
    rows = []
    for model, folds in SCORES.items():
        for fold, scores in enumerate(folds):
            for point, (rate, tiles) in enumerate(POINTS):
                chosen = scores[point] == max(scores)
                rows.append(
                    {
                        "model": model, "seed": 0, "fold": fold, "point": point,
                        "learning_rate": rate, "tiles_per_step": tiles, "epoch": 5 + fold,
                        "inner": scores[point], "inner_std": 0.08, "chosen": chosen,
                        "judged_by": "c_index", "n_inner": 20, "n_shared": 0,
                        "outer": 0.6 if chosen else None,
                    }
                )  # fmt: skip
    write_table(small / "evaluation/survival/nested.parquet", pd.DataFrame(rows))
    return small_config(training={"nested": {"grid": GRID}}, folds={"inner": 3}), small


def built(config: Config, root: Path) -> nested_cv.InnerSection:
    opened = read_evaluation(root, "survival", "shazam_v2")
    infos = {name: describe(config, name) for name in opened.order}
    found = nested_cv.section(results.read(config, root), opened, infos, opened.order)
    assert found is not None
    return found


def test_the_summary_says_what_was_chosen_and_how_far_it_was_ahead(
    nested: tuple[Config, Path],
) -> None:
    cells = {str(row[0].html): [str(c.html) for c in row] for row in built(*nested).summary.rows}
    assert cells["Shazam v2"] == [
        "Shazam v2", "0.001, null", "2 of 2", "5 to 6", "0.705", "0.030", "0.200", "0.080", "0.600",
        "0 of 40",
    ]  # fmt: skip
    assert cells["Concatenation"][2] == "1 of 2"


def test_every_choice_and_every_point_is_there(nested: tuple[Config, Path]) -> None:
    found = built(*nested)
    assert len(found.choices.rows) == 4
    shown = [[str(cell.html) for cell in row] for row in found.choices.rows]
    assert ["Concatenation", "1", "0", "0.001", "16", "6", "0.660 ± 0.080", "0.600", "20"] in shown
    for label in ("Shazam v2", "Concatenation", "0.0001"):
        assert label in found.drawing.document
    assert "learning_rate, tiles_per_step" in found.drawing.title


@pytest.mark.usefixtures("undrawn")
def test_the_page_shows_it_only_where_a_run_is_nested(nested: tuple[Config, Path]) -> None:
    config, root = nested
    stage.run(config=config, root=root)
    assert "What the inner folds chose" in (root / "report.html").read_text()
    assert (root / "report" / "survival-inner.svg").is_file()
    opened = read_evaluation(root, "survival", "shazam_v2")
    assert nested_cv.section(results.read(small_config(), root), opened, {}, opened.order) is None
