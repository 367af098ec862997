"""Every ablation as a difference to the student."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pipeline.config.whole import Config
from pipeline.files.parquet import write_table
from pipeline.report import results
from pipeline.report.evaluated import read_evaluation
from pipeline.report.results import describe
from pipeline.report.sections import ablations
from tests.report.conftest import small_config


@pytest.mark.parametrize(
    ("ablation", "said"),
    [
        ({"distillation": {"weight": 0.0}}, "distillation.weight: 0"),
        ({"levels": ["high"], "gate": "off"}, "levels: [high], gate: off"),
        ({"faithful": True}, "faithful: true"),
        ({"kind": "concat", "sized_as": "shazam_v2"}, "kind: concat, sized_as: shazam_v2"),
        ({"kind": "mean"}, "kind: mean"),
    ],
)
def test_what_an_ablation_changes_is_said_as_the_config_has_it(ablation: dict, said: str) -> None:
    changes = {"v2_no_distillation": {"kind": "shazam_v2", **ablation}}
    config = small_config(training={"ablations": changes})
    assert ablations.changed(config, "v2_no_distillation") == said


def test_differences_are_those_of_the_ablation_to_the_student(
    whole: tuple[Config, Path], small: Path
) -> None:
    config, _ = whole
    name = "v2_no_distillation"

    def built() -> tuple[list[str], str]:
        opened = read_evaluation(small, "survival", "shazam_v2")
        infos = {n: describe(config, n) for n in opened.order}
        found = ablations.table(results.read(config, small), opened, infos, [name])
        assert found is not None
        assert len({len(row) for row in [*found.rows, found.columns]}) == 1
        return [str(cell.html) for cell in found.rows[1]], found.read

    path = small / "evaluation/survival/comparisons.parquet"
    pairs = pd.read_parquet(path)
    mine = (pairs["other"] == name) & (pairs["metric"] == "c_index")
    numbers = {"difference": 0.05, "low": -0.01, "high": 0.1, "p_value": 0.3, "p_holm": 0.9,
               "verdict": "open"}  # fmt: skip
    pairs.loc[mine, list(numbers)] = list(numbers.values())
    write_table(path, pairs)
    row, read = built()
    assert row[0] == name and "distillation.weight: 0" in row[1]
    assert row[3] == '−0.050<span class="ci">[−0.100, +0.010]</span>'
    assert row[5:7] == ["0.30", "0.90"]
    assert "does not show that any of them differs" in read
    pairs.loc[mine, "verdict"] = "worse"
    write_table(path, pairs)
    assert built()[1].endswith(f"Shown to differ from the student: {name}.")
