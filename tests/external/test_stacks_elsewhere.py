"""Models of other models and of columns on a cohort that had no part in their training."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.cohort.covariates import check_read
from pipeline.config.reading import parse
from pipeline.contracts.covariates import read_covariates
from pipeline.contracts.slide_row import SlideRow
from pipeline.errors import SheetError, UserError
from pipeline.external import predictions
from pipeline.plan import stage_params
from pipeline.prediction.run import Options, run
from pipeline.prediction.slides import SlideGiven
from pipeline.prediction.stacks import open_ensemble
from tests.external.conftest import EXTERNAL, TRAINED
from tests.prediction.test_stacks import handed

SECOND = "results/second"
ALL = {**EXTERNAL, "external": {"trained": TRAINED}}


@pytest.fixture
def here(stacks: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(stacks)
    return stacks


def said(root: Path, task: str, model: str, fold: int) -> pd.DataFrame:
    table = pd.read_parquet(root / "models" / task / model / "predictions.parquet")
    return table[(table["split"] == "test") & (table["fold"] == fold)].set_index("case_id")


@pytest.mark.parametrize(("task", "model"), [("survival", "ensemble"), ("subtype", "staged")])
def test_a_case_gets_what_the_exported_model_says_of_its_slides(
    here: Path, tmp_path: Path, task: str, model: str
) -> None:
    file = handed(here, task, model, tmp_path / "m.safetensors")
    wanted = said(here / SECOND, task, model, 1).iloc[:3]
    slides = pd.read_parquet(here / SECOND / "slides.parquet")
    own = slides[slides["case_id"].isin(wanted.index)]
    given = [
        SlideGiven(str(r["slide_id"]), str(r["case_id"]), here / str(r["path"]))
        for r in own.to_dict("records")
    ]
    cases = pd.read_parquet(here / SECOND / "cases.parquet")
    kinds = {one.name: one.kind for one in file.card.covariates}
    columns = read_covariates({name: cases[name].tolist() for name in cases}, kinds)
    run(file, given, Options(tmp_path / "out", fold=1, maps=False), columns)
    found = pd.read_parquet(tmp_path / "out/members.parquet").set_index("case_id")
    names = [c for c in found if c in wanted and c.startswith(("risk", "prob_"))]
    np.testing.assert_allclose(found.loc[wanted.index, names], wanted[names], rtol=1e-3, atol=1e-4)


def test_all_models_are_measured(here: Path) -> None:
    assert parse(ALL).applied() == ["single", "linear", "ensemble", "table", "staged"]
    table = pd.read_parquet(here / SECOND / "evaluation/survival/metrics.parquet")
    assert {"ensemble", "table", "staged"} <= set(table["model"])


def test_columns_come_from_the_sheet(here: Path, tmp_path: Path) -> None:
    """Another age gives another risk, none the risk of the median; an unknown stage is refused."""
    root = Path(shutil.copytree(here / SECOND, tmp_path / "second"))
    job = stage_params.external_predictions(parse(ALL), "survival", "table")
    cases = pd.read_parquet(root / "cases.parquet")
    cases["age"] = [np.nan, *cases["age"].astype(float)[1:]]
    cases["stage"] = "III"
    cases.to_parquet(root / "cases.parquet")
    predictions.run(job=job, root=root, task="survival", model="table")
    found = said(root, "survival", "table", 0)
    file = handed(here, "survival", "table", tmp_path / "m.safetensors")
    columns = read_covariates(
        {name: cases[name].tolist() for name in ("case_id", "age", "stage")},
        {"age": "number", "stage": "category"},
    )
    ensemble = open_ensemble(file, 0, torch.device("cpu"), columns)
    for case in found.index:
        wanted = ensemble.outputs(case, lambda *of: pytest.fail(str(of)))[0]
        assert found.loc[case, "risk"] == pytest.approx(float(wanted[0]), abs=1e-6)
    cases.assign(stage="IX").to_parquet(root / "cases.parquet")
    with pytest.raises(UserError, match="`IX` is none of the categories that the models know"):
        predictions.run(job=job, root=root, task="survival", model="table")
    cases.drop(columns="age").to_parquet(root / "cases.parquet")
    with pytest.raises(UserError, match="no column `age`, which the model `table` reads"):
        predictions.run(job=job, root=root, task="survival", model="table")


def test_a_sheet_without_a_column_is_refused_before_any_work() -> None:
    rows = [SlideRow("s", "c", "s.svs", None, "", "", "", {"stage": "I"}, 2)]
    check_read(rows, {"single": (), "staged": ("stage",)})
    with pytest.raises(SheetError, match="`table` reads a column `age`, which is missing"):
        check_read(rows, {"table": ("age", "stage")})
