"""The tiny cohort from slides to report, as Snakemake runs it."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pandas as pd
import pytest
from house import House

from pipeline.accounting.job_records import read_records


@pytest.fixture(scope="module")
def results(finished: House):
    return finished.path / "results" / "tiny"


def test_features_stand_row_by_row_with_their_tiles(results) -> None:
    records = json.loads((results / "tiles" / "manifest" / "0.json").read_text())["slides"]
    used = [r for r in records if r["status"] == "ok"]
    assert used
    for record in used:
        with h5py.File(results / record["path"]) as tiles:
            coords = tiles["coords"][:]
        assert record["facts"]["n_tiles"] == len(coords) > 0
        for teacher in ("resnet10t", "vit_tiny"):
            with h5py.File(results / "features" / teacher / f"{record['slide_id']}.h5") as file:
                assert np.array_equal(file["coords"][:], coords)
                for level in ("low", "mid", "features"):
                    assert file[level].dtype == np.float16
                    assert len(file[level]) == len(coords)
                    assert np.isfinite(file[level][:]).all()


def test_every_case_is_predicted_once_as_a_test_case(results) -> None:
    cases = set(json.loads((results / "case_to_features.json").read_text())["cases"])
    for model in ("single_resnet10t", "single_vit_tiny", "shazam_v2"):
        table = pd.read_parquet(results / "models" / "survival" / model / "predictions.parquet")
        test = table[table.split == "test"]
        assert set(test.case_id) == cases
        assert not test.case_id.duplicated().any()
        for _, fold in table.groupby(["seed", "fold"]):
            assert not fold.case_id.duplicated().any(), "a case stands in two parts of a fold"


def test_the_page_stands_alone_and_names_every_model(results) -> None:
    page = (results / "report.html").read_text()
    for needed in ("shazam_v2", "single_vit_tiny", "single_resnet10t", "C-index"):
        assert needed in page
    for outside in ('src="http', "src='http", '<link rel="stylesheet"', "@import"):
        assert outside not in page, "the page must open offline"


def test_every_job_left_a_record_of_how_it_ended(results) -> None:
    records = read_records(results)
    stages = (
        "cohort_chunk cohort tiling extraction_check extraction mapping mapping_check "
        "probing folds training evaluation"
    )
    assert {r.stage for r in records} == set(stages.split())
    assert {r.outcome for r in records} == {"ok"}
    assert all(r.host and r.seconds > 0 and r.memory_mb > 0 for r in records)
    assert "Every attempt, by stage and node" in (results / "report.html").read_text()


def test_every_teacher_is_probed_on_the_tissue_that_was_drawn(results) -> None:
    for teacher in ("resnet10t", "vit_tiny"):
        facts = json.loads((results / "probing" / f"{teacher}.json").read_text())
        assert facts["reason"] == ""
        assert set(facts["classes"]) <= {"tumour", "stroma", "fat"}
        table = pd.read_csv(results / "probing" / f"{teacher}.csv")
        assert set(table.probe) == {"logistic", "knn_1", "few_shot"}
    assert "Tile probes" in (results / "report.html").read_text()


def test_random_weights_are_admitted_on_the_page(results) -> None:
    assert "random" in (results / "report.html").read_text().lower()


def test_snakemakes_own_views_work(finished: House) -> None:
    assert "digraph" in finished.run("--rulegraph").stdout
    assert "digraph" in finished.run("--dag").stdout
    finished.run("--report", "snakemake-report.zip")
    assert (finished.path / "snakemake-report.zip").stat().st_size > 10_000
    assert finished.planned() == {}
