"""A cohort whose only teachers are encoders that it makes itself, from slides to report."""

from __future__ import annotations

import copy
import json

import pandas as pd
import pytest
from house import TINY, House

OWN = {
    "method": "simclr",
    "encoder": {"source": "timm", "model": "resnet10t", "weights": "random", "input_px": 32},
    "projection": 16,
    "hidden": 16,
    "course": {"steps": 4, "batch_size": 8, "tiles_per_visit": 4, "validate_every": 2,
               "held_out_tiles": 16},
    "alarms": {"then": "go_on"},
}  # fmt: skip


def own_config() -> dict:
    config = copy.deepcopy(TINY)
    config["cohort"]["chunks"] = 1
    config["extraction"] = {"levels": ["high"]}
    config["pretraining"] = {"teachers": {"own": OWN}}
    config["training"]["models"] = {
        "each": {"kind": "single", "teacher": "each", "d_model": 16},
        "all": {"kind": "concat", "d_model": 16},
    }
    config["evaluation"]["student"] = "each_own_transductive"
    return config


@pytest.mark.slow
def test_the_way_goes_from_slides_to_report(tmp_path) -> None:
    house = House.build(tmp_path / "run", own_config())
    house.run("--cores", "2")
    results = house.path / "results" / "tiny"
    mapping = json.loads((results / "case_to_features.json").read_text())
    assert list(mapping["teachers"]) == ["own_transductive"] and len(mapping["cases"]) == 12
    tables = {
        model: pd.read_parquet(results / "models" / "survival" / model / "predictions.parquet")
        for model in ("each_own_transductive", "each_own_untrained", "all")
    }
    for table in tables.values():
        assert set(table.loc[table.split == "test", "case_id"]) == set(mapping["cases"])
    page = (results / "report.html").read_text()
    assert "own_transductive" in page and "learned without labels by simclr" in page


def test_without_tasks_the_lost_slides_are_counted_all_the_same(tmp_path) -> None:
    config = own_config()
    config["tasks"], config["training"], config["evaluation"] = {}, {}, {"attribution": False}
    planned = set(House.build(tmp_path / "run", config).planned())
    assert {"mapping_check", "report"} <= planned
    assert not {job for job in planned if job.startswith(("training", "folds"))}
