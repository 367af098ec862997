"""Many regression targets on the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.files.parquet import write_table
from pipeline.report import results
from pipeline.report.evaluated import read_evaluation
from pipeline.report.results import describe
from pipeline.report.sections import targets
from tests.report.conftest import small_config

GENES = [f"<G{i}>" for i in range(40)]


def test_the_spread_of_the_targets_and_their_ends(small: Path) -> None:
    opened = read_evaluation(small, "score", "shazam_v2")
    rng = np.random.default_rng(0)
    rows, profiles = [], []
    for model in opened.order:
        for i, gene in enumerate(GENES):
            r = np.nan if i == 39 else 0.9 - 0.04 * i
            rows.append(
                {
                    "model": model, "target": gene, "pearson": r, "pearson_low": r - 0.1,
                    "pearson_high": r + 0.1, "p_value": 0.2, "q_value": 0.01 if i < 5 else 0.5,
                    "spearman": r, "r2": r**2, "mae": 1.0, "rmse": 1.2, "pearson_folds": r, "n": 40,
                }
            )  # fmt: skip
        profiles += [{"model": model, "case_id": f"C{i}", "pearson": rng.normal(0.3, 0.2)}
                     for i in range(30)]  # fmt: skip
    write_table(small / "evaluation/score/targets.parquet", pd.DataFrame(rows))
    write_table(small / "evaluation/score/profiles.parquet", pd.DataFrame(profiles))
    config = small_config(tasks={"score": {"type": "regression", "targets": GENES}})
    infos = {name: describe(config, name) for name in opened.order}
    found = targets.section(results.read(config, small), opened, infos, opened.order)
    assert found is not None
    first = [str(cell.html) for cell in found.summary.rows[0]]
    assert first[4:] == ["5 of 40", "0", first[6], "1"]
    shown = [str(row[0].html) for row in found.ends.rows]
    assert len(shown) == 15
    assert shown[0] == "<code>&lt;G0&gt;</code>" and shown[-1] == "<code>&lt;G38&gt;</code>"
    assert "median 0.14" in found.spread.document
    few = small_config(tasks={"score": {"type": "regression", "targets": GENES[:5]}})
    assert targets.section(results.read(few, small), opened, infos, opened.order) is None
