"""Models of other models and of columns: handed over, they say what the workflow said."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config.reading import parse
from pipeline.errors import UserError
from pipeline.prediction.covariates import read_given
from pipeline.prediction.export import export
from pipeline.prediction.markdown import model_card
from pipeline.prediction.model_file import ModelFile, read_model
from pipeline.prediction.onnx_export import write_onnx
from pipeline.prediction.run import Options, run, run_cases
from pipeline.prediction.stacks import open_ensemble
from tests.prediction.conftest import NAME, STACKED, source
from tests.prediction.test_predict import out_of_fold, slides_of

TASKS = ("survival", "subtype", "score")


def handed(stacked: Path, task: str, model: str, out: Path) -> ModelFile:
    """An exported model, opened."""
    with contextlib.chdir(stacked):
        export(source(stacked, task, model, parse(STACKED)), out, "auto")
    return read_model(out)


def sheet(stacked: Path, path: Path, columns: Sequence[str], cases: Sequence[str]) -> Path:
    """The columns of some cases, as a user would give them."""
    table = pd.read_parquet(stacked / "results" / NAME / "cases.parquet")
    own = table[table["case_id"].isin(cases)]
    own[["case_id", *columns]].to_csv(path, index=False)
    return path


def agrees(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    columns = [c for c in found if c in wanted and c.startswith(("risk", "prob_", "pred_"))]
    assert columns and sorted(found.index) == sorted(wanted.index)
    np.testing.assert_allclose(
        found.loc[wanted.index, columns], wanted[columns], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("survival", "ensemble"),
        ("subtype", "staged"),
        pytest.param("survival", "staged", marks=pytest.mark.slow),
        pytest.param("subtype", "ensemble", marks=pytest.mark.slow),
        pytest.param("score", "ensemble", marks=pytest.mark.slow),
    ],
)
def test_a_slide_gets_what_the_workflow_gave_it_out_of_fold(
    stacked: Path, tmp_path: Path, task: str, model: str
) -> None:
    file = handed(stacked, task, model, tmp_path / "m.safetensors")
    assert {one.name for one in file.card.stacked} >= {"single"}
    wanted = out_of_fold(stacked, task, model, 1).iloc[:4]
    cases = list(wanted.index)
    names = [one.name for one in file.card.covariates]
    columns = read_given(
        sheet(stacked, tmp_path / "c.csv", names, cases), file.card.covariates, cases
    )
    given = slides_of(stacked, cases)
    run(file, given, Options(tmp_path / "out", fold=1, maps=False), columns)
    agrees(pd.read_parquet(tmp_path / "out/members.parquet").set_index("case_id"), wanted)


@pytest.mark.parametrize("task", TASKS)
def test_a_model_of_columns_predicts_the_cases_of_a_table(
    stacked: Path, tmp_path: Path, task: str
) -> None:
    file = handed(stacked, task, "table", tmp_path / "m.safetensors")
    assert not file.card.encoders and not file.tensors
    wanted = out_of_fold(stacked, task, "table", 0)
    path = sheet(stacked, tmp_path / "c.csv", ["age", "stage"], list(wanted.index))
    columns = read_given(path, file.card.covariates, None)
    table = run_cases(file, columns, Options(tmp_path / "out", fold=0))
    assert table["case_id"].tolist() == pd.read_csv(path)["case_id"].tolist()
    agrees(pd.read_parquet(tmp_path / "out/members.parquet").set_index("case_id"), wanted)
    text = model_card(file.card, "m.safetensors")
    assert "| age | number |" in text and "predict --model m.safetensors --covariates" in text


def test_the_page_of_an_ensemble_shows_its_members_maps(stacked: Path, tmp_path: Path) -> None:
    file = handed(stacked, "survival", "ensemble", tmp_path / "m.safetensors")
    slide = slides_of(stacked, ["SYN-0003"])[0]
    path = sheet(stacked, tmp_path / "c.csv", ["age"], ["SYN-0003"])
    columns = read_given(path, file.card.covariates, ["SYN-0003"])
    table = run(file, [slide], Options(tmp_path / "out"), columns)
    assert table["status"].tolist() == ["ok"]
    squares = json.loads((tmp_path / "out" / f"{slide.slide_id}.geojson").read_text())["features"]
    assert len(squares) == table["tiles"][0]
    assert (tmp_path / "out" / f"{slide.slide_id}.html").is_file()
    with pytest.raises(UserError, match="--onnx: `ensemble` is a regression"):
        write_onnx(file, tmp_path / "onnx")


def test_a_missing_value_counts_as_in_training(stacked: Path, tmp_path: Path) -> None:
    """A number is the median of the training cases, which the fold's design knows."""
    file = handed(stacked, "survival", "table", tmp_path / "m.safetensors")
    medians = [one.stack["design"]["medians"]["age"] for one in file.card.members]
    path = tmp_path / "c.csv"
    path.write_text(f"case_id,age,stage\na,,III\nb,{medians[1]},III\nc,NA,\n")
    columns = read_given(path, file.card.covariates, None)
    ensemble = open_ensemble(file, 1, torch.device("cpu"), columns)

    def store(*of: object) -> object:
        raise AssertionError(of)

    a, b, c = (ensemble.outputs(case, store)[0] for case in "abc")  # type: ignore[arg-type]
    np.testing.assert_allclose(a, b)
    assert np.isfinite(c).all() and not np.allclose(a, c)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case_id,age\na,50\n", "no column `stage`. The columns are case_id, age, stage"),
        ("case_id,age,stag\na,50,I\n", "no column `stage`; did you mean"),
        ("case_id,age,stage,sex\na,50,I,f\n", "column `sex` is none that the model reads"),
        ("case_id,age,stage\na,old,I\n", "age"),
        ("case_id,age,stage\na,50,IX\n", "`IX` is none of the categories that the models know"),
        ("case_id,age,stage\na,50,I\na,51,I\n", "case a: more than one row"),
        ("case_id,age,stage\nb,50,I\n", "no row for case a"),
        ("case_id,age,stage\n", "has no rows"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    stacked: Path, tmp_path: Path, text: str, message: str
) -> None:
    wanted = handed(stacked, "survival", "table", tmp_path / "m.safetensors").card.covariates
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_given(tmp_path / "c.csv", wanted, ["a"])
    with pytest.raises(UserError, match="the model reads age, stage of each case; give a table"):
        read_given(None, wanted, ["a"])
    with pytest.raises(UserError, match="the model reads no covariates"):
        read_given(tmp_path / "c.csv", [], ["a"])


def test_the_command_predicts_cases_and_refuses_slides(stacked: Path, tmp_path: Path) -> None:
    handed(stacked, "subtype", "table", tmp_path / "m.safetensors")
    (tmp_path / "c.csv").write_text("case_id,age,stage\nme,61,II\n")
    of = ["predict", "--model", str(tmp_path / "m.safetensors"), "--covariates"]
    of += [str(tmp_path / "c.csv"), "--out", str(tmp_path / "p")]
    done = CliRunner().invoke(app, of)
    assert done.exit_code == 0 and "1 cases predicted" in done.output
    assert pd.read_csv(tmp_path / "p/predictions.csv")["case_id"].tolist() == ["me"]
    with pytest.raises(UserError, match="reads no slides"):
        CliRunner().invoke(app, [*of, "a.svs"], catch_exceptions=False)
