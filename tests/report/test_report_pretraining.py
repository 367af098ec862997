"""The report of pre-trained encoders, from what the stage would leave."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.config.whole import Config
from pipeline.contracts.pretrained import PretrainedFacts, Raised, write_pretrained
from pipeline.report.sections import encoders, pretrained_methods, pretraining, probes
from tests.report.test_report_probes import row

NAME = "own_transductive"
CONFIG = {
    "pretraining": {"teachers": {"own": {"alarms": {"least_spread": 0.4, "then": "go_on"}}}},
    "probing": {},
}


def write_probes(root: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (root / "probing").mkdir(exist_ok=True)
    content = {"teacher": name, "level": "high", "rows": rows, "reason": "", "n_tiles": 9}
    (root / f"probing/{name}.json").write_text(json.dumps(content))


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    """One encoder whose spread falls below its limit, with two slides' clusters and one picture."""
    folder = tmp_path / "teachers" / NAME
    (folder / "clusters").mkdir(parents=True)
    curve = {"step": [10, 20, 30], "loss": [1.0, 0.5, 0.4], "spread": [0.6, 0.5, 0.3],
             "rank": [9.0, 8.0, 7.0], "information": [0.1, 0.5, 0.6]}  # fmt: skip
    pd.DataFrame(curve).to_csv(folder / "curve.csv", index=False)
    facts = PretrainedFacts(
        teacher=NAME, control=False, title="own", method="clusiam", pool="all", licence="",
        parameters=5_400_000, slides=8, cases=7, tiles=400,
        held_out=2, steps=30, best_step=20, images=960, seconds=12.0, waited=3.0,
        alarms=[Raised(30, "features", "features of all tiles are alike (spread 0.300)")],
        maps=["s1", "s2"],
    )  # fmt: skip
    write_pretrained(folder, facts)
    for slide, numbers in (("s1", [1, 1, 1, 2]), ("s2", [2, 3, 3, 3])):
        squares = [
            {"properties": {"classification": {"name": f"cluster {n}", "color": [n, 0, 255]}}}
            for n in numbers
        ]
        (folder / f"clusters/{slide}.geojson").write_text(json.dumps({"features": squares}))
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(folder / "clusters/s1.png")
    for name in (NAME, "own_untrained"):
        write_probes(tmp_path, name, [])
    return SimpleNamespace(root=tmp_path, config=Config.model_validate(CONFIG))


def test_what_it_learned_from_and_how_it_went(opened: Any) -> None:
    found = pretraining.section(opened)
    assert found is not None and found.gains is None
    (said,) = found.sentences
    assert "5.4 M parameters" in said and "400 tiles of 8 slides of 7 cases" in said
    assert "Transductive" in said and "1 alarm, the last at step 30" in said
    (course,) = found.courses.rows
    shown = [str(cell.html) for cell in course]
    assert shown[:4] == [NAME, "clusiam", "30", "20"] and shown[6:] == ["25", "1"]
    assert len(course) == len(found.courses.columns)


def test_each_sign_has_a_panel_with_its_limit(opened: Any) -> None:
    found = pretraining.section(opened)
    assert found is not None
    (drawing,) = found.signs
    for title in ("loss", "spread of features", "effective rank", "information of clusters, nats"):
        assert title in drawing.document
    assert "tiles found again" not in drawing.document  # a column that the curve does not have
    assert drawing.document.count("stroke-dasharray") == 3  # of spread, rank and information
    assert "spread 0.3" in drawing.document.replace("spread of features", "spread")


def test_clusters_have_a_legend_with_shares_over_all_slides(opened: Any) -> None:
    found = pretraining.section(opened)
    assert found is not None
    (clusters,) = found.clusters
    assert [one.slide for one in clusters.maps] == ["s1"]
    assert clusters.absent == "No picture of s2."
    rows = [[str(cell.html) for cell in row] for row in clusters.shares.rows]
    assert [row[1:] for row in rows] == [
        ["37.5", "75.0", "0.0"], ["37.5", "0.0", "75.0"], ["25.0", "25.0", "25.0"]
    ]  # fmt: skip
    assert "background:#0100ff" in rows[0][0] and rows[0][0].endswith("cluster 1")


def test_a_collapse_and_slides_of_their_own_are_said() -> None:
    facts = PretrainedFacts(
        teacher="own", control=False, title="own", method="byol", pool="separate", licence="",
        parameters=1_000_000, steps=40, best_step=20, collapsed=True,
    )  # fmt: skip
    said = pretraining.sentence(facts)
    assert "ended the training after step 40" in said and "step 20, was kept" in said
    assert "Transductive" not in said and "no label" in said


def test_gains_stand_with_the_stage_that_made_the_encoder(opened: Any) -> None:
    gain = {
        "teacher": NAME, "control": "own_untrained", "probe": "knn_20", "value": 0.8,
        "before": 0.7, "difference": 0.1, "low": 0.02, "high": 0.18, "p_value": 0.01, "n_cases": 7,
    }  # fmt: skip
    (opened.root / "probing/all").mkdir()
    content = {"rows": [gain], "absent": {}}
    (opened.root / "probing/all/gains.json").write_text(json.dumps(content))
    found = pretraining.section(opened)
    assert found is not None and found.gains is not None
    (shown,) = [[str(cell.html) for cell in row] for row in found.gains.rows]
    assert shown[1:4] == ["20-nearest neighbours", "0.800", "0.700"]
    assert "[0.020, 0.180]" in shown[4]
    assert probes.gains(opened, "encoder_distillation") is None
    assert encoders.section(opened) is None


def test_made_encoders_are_probed_beside_their_controls(opened: Any) -> None:
    for name in (NAME, "own_untrained"):
        write_probes(opened.root, name, [row("knn_20", "balanced_accuracy", 0.8)])
    found = probes.section(opened)
    assert found is not None and found.summary is not None
    assert [str(row[0].html) for row in found.summary.rows] == [NAME, "own_untrained"]


def test_methods_stand_by_measure_with_what_they_started_as(opened: Any, monkeypatch: Any) -> None:
    """F1 of the nearest tile, balanced accuracy of the others; models of slides by aggregator."""
    assert pretrained_methods.table(opened) is None
    for name, value in ((NAME, 0.8), ("own_untrained", 0.6)):
        rows = [
            row("logistic", "balanced_accuracy", value),
            row("logistic", "f1", 0.1),
            row("knn_1", "balanced_accuracy", 0.1),
            row("knn_1", "f1", value - 0.1),
            row("few_shot", "balanced_accuracy", 0.1),
        ]
        write_probes(opened.root, name, rows)
    models = {"kind": "single", "teacher": "each", "aggregator": "dsmil"}
    opened.config = Config.model_validate(
        CONFIG
        | {
            "tasks": {"grade": {"type": "classification", "label": "grade"}},
            "training": {"models": {"slides": models}},
            "evaluation": {"student": f"slides_{NAME}"},
        }
    )
    opened.tasks = ["grade"]
    measured = SimpleNamespace(
        primary="auc",
        row=lambda name: {"value": 0.9, "low": 0.8, "high": 1.0} if NAME in name else {},
    )
    monkeypatch.setattr(pretrained_methods, "read_evaluation", lambda *given: measured)
    found = pretrained_methods.table(opened)
    assert found is not None
    assert [column.label for column in found.columns[2:]] == [
        "tiles: logistic regression, balanced accuracy", "tiles: nearest neighbour, macro F1",
        "grade: dsmil, AUC",
    ]  # fmt: skip
    first, second = ([str(cell.html) for cell in of] for of in found.rows)
    assert first[:2] == [NAME, "clusiam"] and second[:2] == ["own_untrained", "–"]
    assert "0.800" in first[2] and "0.700" in first[3] and "0.900" in first[4]
    assert "0.600" in second[2] and "0.500" in second[3] and "0.900" not in second[4]
