"""Attention of any case after the training, and the command that writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from pydantic import TypeAdapter

from pipeline.commands import tools
from pipeline.config.models import ModelConfig
from pipeline.config.tasks import TaskConfig
from pipeline.config.training import TrainingConfig
from pipeline.contracts.folds_summary import write_folds_summary
from pipeline.errors import UserError
from pipeline.files.parquet import write_table
from pipeline.training import attention_lookup, stage
from tests.training.conftest import CASES, DIMS, folds_summary

TASK = {"type": "regression", "targets": ["score"]}
MODEL = {"kind": "single", "teacher": "deep", "aggregator": "abmil", "d_model": 8}


def train(root: Path, **model: Any) -> None:
    stage.run(
        cfg=TrainingConfig(epochs=2, batch_size=6, attention_cases_per_fold=2),
        model_name="single",
        model=TypeAdapter(ModelConfig).validate_python(model or MODEL),
        task_name="score",
        task=TypeAdapter(TaskConfig).validate_python(TASK),
        root=root,
        versions="",
        workers=1,
        device="cpu",
    )


def look(
    root: Path, cases: list[str] | None = None, **options: Any
) -> list[attention_lookup.Looked]:
    settings = {"seed": None, "limit": None, "device": "cpu", **options}
    return list(attention_lookup.look(root, "score", "single", cases, **settings))


def test_each_case_is_looked_at_by_the_network_that_had_not_seen_it(root: Path) -> None:
    train(root)
    found = {one.case: one for one in look(root)}
    assert sorted(found) == CASES
    assert all(one.part == "test" for one in found.values())
    assert [found[case].fold for case in CASES] == [i % 2 for i in range(len(CASES))]
    # The same numbers as the training itself keeps of a few cases.
    for fold in range(2):
        kept = pd.read_parquet(
            root / f"models/score/single/fold_{fold}/seed_0/attention.parquet"
        ).groupby("case_id")
        for case, rows in kept:
            np.testing.assert_allclose(found[str(case)].table["score"], rows["score"], rtol=1e-5)
            assert found[str(case)].fold == fold


def test_a_case_without_a_label_and_one_that_is_never_tested(root: Path) -> None:
    for k in range(2):
        path = root / f"folds/score/fold_{k}.csv"
        lines = path.read_text().splitlines()
        kept = [line for line in lines if "case01" not in line]  # no label
        path.write_text("\n".join(line.replace("case02,test", "case02,train") for line in kept))
    write_folds_summary(root, folds_summary("score", tests="incomplete"))
    train(root)
    parts = {one.case: (one.fold, one.part) for one in look(root, ["case01", "case02", "case05"])}
    assert parts == {"case01": (0, "none"), "case02": (0, "train"), "case05": (1, "test")}


def test_what_cannot_be_looked_at_is_said(root: Path) -> None:
    train(root, kind="single", teacher="deep", aggregator="mean_pool")
    with pytest.raises(UserError, match="case99"):
        look(root, ["case99"])
    with pytest.raises(UserError, match=r"no attention.*`mean_pool` weighs all tiles alike"):
        look(root, ["case01"])
    with pytest.raises(UserError, match="no finished training of seed 7"):
        look(root, ["case01"], seed=7)


def test_the_command_writes_tables_for_all_and_pictures_for_the_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(root)
    coverage = pd.read_parquet(root / "coverage.parquet")
    write_table(root / "slides.parquet", coverage[["slide_id", "case_id"]].drop_duplicates())
    config = {
        "cohort": {"name": "x"},
        "extraction": {"teachers": {t: {"source": "import", "path": "x"} for t in DIMS}},
        "tasks": {"score": TASK},
        "training": {"models": {"single": MODEL}},
        "evaluation": {"student": "single"},
    }
    (root / "x.yaml").write_text(yaml.safe_dump(config))
    (root / "results").mkdir()
    (root / "results/x").symlink_to(root)
    monkeypatch.chdir(root)
    out = Path("out")
    tools.attention(
        "score", Path("x.yaml"), case=["case00"], slide=["case06-1"], out=out, device="cpu"
    )
    assert {p.stem for p in out.glob("*.png")} == {"case00-0", "case00-1", "case06-1"}
    table = pd.read_parquet(out / "case00-0.parquet")
    squares = json.loads((out / "case00-0.geojson").read_text())["features"]
    assert len(squares) == len(table.drop_duplicates(["x", "y"]))
    assert {"attention deep", "attention deep rank"} <= set(
        squares[0]["properties"]["measurements"]
    )
    assert set(table["part"]) == {"test"}
    with Image.open(out / "case06-1.png") as picture:
        assert picture.width > 600
    tools.attention("score", Path("x.yaml"), out=Path("all"), device="cpu")
    assert {p.name for p in Path("all").iterdir()} == {
        f"{slide}.parquet" for slide in coverage.query("teacher == 'deep'")["slide_id"]
    }
    with pytest.raises(UserError, match=r"--slide case06-9: not in the sheet; did you mean"):
        tools.attention("score", Path("x.yaml"), slide=["case06-9"])
