from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.config.extraction import ExtractionConfig
from pipeline.config.probing import ProbingConfig
from pipeline.config.whole import Config
from pipeline.report.sections import probes


def opened(root: Path, facts: dict[str, dict[str, Any]]) -> Any:
    (root / "probing").mkdir()
    for teacher, content in facts.items():
        content = {"teacher": teacher, "level": "high", **content}
        (root / f"probing/{teacher}.json").write_text(json.dumps(content))
    teachers = {name: {"source": "timm", "model": "x"} for name in facts}
    config = Config(
        probing=ProbingConfig(), extraction=ExtractionConfig.model_validate({"teachers": teachers})
    )
    return SimpleNamespace(root=root, config=config)


def row(probe: str, metric: str, value: float, training: str = "all") -> dict[str, Any]:
    numbers = {"value": value, "low": value - 0.1, "high": value + 0.1, "fold_std": 0.02}
    counts = {"n_train": 80, "n_test": 100}
    return {"probe": probe, "training": training, "metric": metric, **numbers, **counts}


def test_teachers_stand_side_by_side_and_the_silent_one_is_named(tmp_path: Path) -> None:
    rows = [
        row("knn_20", "auc", 0.9),
        row("knn_20", "balanced_accuracy", 0.8),
        row("knn_20", "balanced_accuracy", 0.6, "0.1"),
        row("few_shot", "balanced_accuracy", 0.7, "5 a class"),
    ]
    whole = {"rows": rows, "reason": "", "level": "high", "classes": {"fat": 40, "tumour": 60}}
    counts = {"n_tiles": 100, "n_slides": 9, "n_cases": 7}
    silent = {"rows": [], "reason": "no tile has a class"}
    found = probes.section(opened(tmp_path, {"a": {**whole, **counts}, "b": silent}))
    assert found is not None
    assert found.summary is not None
    labels = [column.label for column in found.summary.columns]
    assert labels == ["teacher", "20-NN", "5-shot", "tiles"]
    cells = [cell.html for cell in found.summary.rows[0]]
    assert cells[1].startswith("0.800")
    assert "[0.600, 0.800]" in cells[2]
    assert "fat 40, tumour 60" in found.summary.read
    assert len(found.details[0].rows) == 4
    assert found.absent == ["b: no tile has a class."]
