from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.config.probing import ProbingConfig
from pipeline.config.whole import Config
from pipeline.report.sections import tile_students

NOTHING = {"reason": "", "left": [], "rows": [], "comparisons": []}


def opened(root: Path, facts: dict[str, Any], **probing: Any) -> Any:
    (root / "probing/all").mkdir(parents=True)
    (root / "probing/all/students.json").write_text(json.dumps({**NOTHING, **facts}))
    config = Config(probing=ProbingConfig(**probing))
    return SimpleNamespace(root=root, config=config)


def rows(model: str, probe: str, value: float) -> list[dict[str, Any]]:
    numbers = {"low": value - 0.1, "high": value + 0.1, "fold_std": 0.02, "n_parameters": 1234}
    numbers |= {"n_train": 80, "n_test": 100}
    return [
        {"model": model, "probe": probe, "metric": metric, "value": value, **numbers}
        for metric in ("auc", "balanced_accuracy", "f1")
    ]


def test_students_stand_beside_the_probes_with_their_difference(tmp_path: Path) -> None:
    pair = {"model": "shazam_v1", "other": "a", "difference": 0.05, "low": -0.01, "high": 0.1}
    pair["metric"] = "balanced_accuracy"
    facts = {
        "rows": [*rows("a", "logistic", 0.8), *rows("a", "knn_20", 0.7),
                 *rows("shazam_v1", "student", 0.85)],
        "comparisons": [{**pair, "p_value": 0.2}],
        "reason": "", "left": ["c"], "n_tiles": 100, "n_cases": 7,
    }  # fmt: skip
    found = tile_students.table(opened(tmp_path, facts, students=("shazam_v1",)))
    assert not isinstance(found, str) and found is not None
    cells = [[str(cell.html) for cell in row] for row in found.rows]
    assert [row[0] for row in cells] == ["a", "a", "Shazam v1"]
    assert cells[1][1] == "20-nearest neighbours" and cells[0][6] == "–"
    assert cells[2][6] == '+0.050<span class="ci">[−0.010, +0.100]</span>'
    assert "tiles of another scale: c." in found.read
    assert {len(row) for row in cells} == {len(found.columns)}


def test_not_asked_for_or_nothing_to_compare(tmp_path: Path) -> None:
    results = opened(tmp_path, {"reason": "no tile has a class"}, students=("shazam_v1",))
    assert tile_students.table(results) == "All teachers together: no tile has a class."
    results.config = Config(probing=ProbingConfig())
    assert tile_students.table(results) is None
