"""Several endpoints of one cohort in one config, through the commands that the workflow calls."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.commands import cases
from pipeline.commands.declared import command
from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.files.parquet import write_table
from pipeline.plan import stage_params
from pipeline.runtime.stages import stage
from tests.training.conftest import CASES, DIMS

OS = {"type": "survival", "time": "time", "event": "event", "loss": "cox"}
WITHOUT_DSS = {"case02", "case05", "case11"}  # cause of death not known


@pytest.fixture
def cohort(root: Path) -> Path:
    """The cohort with a second endpoint: disease-specific survival, which some cases lack."""
    table = pd.read_parquet(root / "cases.parquet")
    died = (table["event"] == 1) & (np.arange(len(table)) % 5 != 0)
    dss = died.astype(float).mask(table["case_id"].isin(WITHOUT_DSS))
    table = table.assign(dss=dss, site="", n_slides=1, n_usable_slides=1, complete=True)
    write_table(root / "cases.parquet", table)
    coverage = pd.read_parquet(root / "coverage.parquet")
    write_table(root / "coverage.parquet", coverage.assign(status="ok"))
    write_table(root / "slides.parquet", coverage[["slide_id", "case_id"]].drop_duplicates())
    return root


def config(nested: bool = False, **auxiliary: float) -> Config:
    inner: dict[str, Any] = {"inner": 2} if nested else {}
    return parse(
        {
            "extraction": {"teachers": {t: {"source": "import", "path": "x"} for t in DIMS}},
            "mapping": {"cases": "union"},
            "tasks": {
                "os": {**OS, "auxiliary": auxiliary},
                "dss": {**OS, "event": "dss", "loss": "nll", "bins": 2},
                "kind": {"type": "classification", "label": "kind"},
            },
            "folds": {"k": 2, **inner},
            "training": {
                "models": {
                    "single": {"kind": "single", "teacher": "deep", "d_model": 8},
                    "concat": {"kind": "concat", "aggregator": "mean_pool", "d_model": 8},
                },
                "epochs": 2,
                "batch_size": 8,
                "nested": {"grid": {"learning_rate": [0.01]}} if nested else None,
            },
            "evaluation": {"student": "concat", "bootstraps": 50, "attribution": False},
        }
    )


def run(cfg: Config, root: Path, task: str) -> None:
    split = command(stage("folds"))
    split(cfg=stage_params.folds(cfg, task).canonical(), root=root, task=task)
    for model in cfg.model_specs():
        cases.training(
            stage_params.training(cfg, task, model).canonical(), root, task, model, device="cpu"
        )
    cases.evaluation(stage_params.evaluation(cfg, task).canonical(), root, task)


def test_overall_and_disease_specific_survival_in_one_config(cohort: Path) -> None:
    cfg = config(dss=0.5, kind=0.3)
    for task in ("os", "dss"):
        run(cfg, cohort, task)
    alone = pd.read_parquet(cohort / "evaluation/dss/metrics.parquet")
    assert set(alone["n"]) == {len(CASES) - len(WITHOUT_DSS)}
    table = pd.read_parquet(cohort / "evaluation/os/auxiliary.parquet")
    assert set(table["role"]) == {"auxiliary"}
    assert set(table["model"]) == {"single", "concat"}
    counted = table.drop_duplicates("endpoint").set_index("endpoint")["n"].to_dict()
    assert counted == {"dss": len(CASES) - len(WITHOUT_DSS), "kind": len(CASES)}
    metrics = {name: set(rows["metric"]) for name, rows in table.groupby("endpoint")}
    # Discrete-time curves come from the other endpoint's own bin edges.
    assert {"c_index", "integrated_brier"} <= metrics["dss"] and "auc" in metrics["kind"]
    own = pd.read_parquet(cohort / "evaluation/os/metrics.parquet")
    assert set(own["metric"]).isdisjoint({"auc"}) and set(own["n"]) == {len(CASES)}
    assert not (cohort / "evaluation/dss/auxiliary.csv").exists()


def test_auxiliary_predictions_are_out_of_fold_and_survive_a_resume(cohort: Path) -> None:
    cfg = config(kind=0.3)
    run(cfg, cohort, "os")
    folder = cohort / "models/os/concat"
    first = pd.read_parquet(folder / "auxiliary/kind.parquet")
    main = pd.read_parquet(folder / "predictions.parquet")
    keys = ["seed", "fold", "split", "case_id"]
    pd.testing.assert_frame_equal(first[keys], main[keys])
    (folder / "auxiliary/kind.parquet").unlink()
    written = (folder / "fold_0/seed_0/meta.json").stat().st_mtime_ns
    cases.training(stage_params.training(cfg, "os", "concat").canonical(), cohort, "os", "concat")
    pd.testing.assert_frame_equal(first, pd.read_parquet(folder / "auxiliary/kind.parquet"))
    assert (folder / "fold_0/seed_0/meta.json").stat().st_mtime_ns == written
    run(config(), cohort, "os")
    assert not (cohort / "evaluation/os/auxiliary.csv").exists()


def test_nested_models_say_nothing_auxiliary_of_cases_they_learned_from(cohort: Path) -> None:
    run(config(nested=True, dss=0.3), cohort, "os")
    said = pd.read_parquet(cohort / "models/os/single/auxiliary/dss.parquet")
    assert set(said["split"]) == {"train", "test"}


def test_linear_models_trained_in_one_job_are_those_of_a_job_each(
    cohort: Path, tmp_path: Path
) -> None:
    cfg = parse(
        {
            "extraction": {"teachers": {t: {"source": "import", "path": "x"} for t in DIMS}},
            "mapping": {"cases": "union"},
            "tasks": {"os": OS},
            "folds": {"k": 2},
            "training": {
                "models": {
                    "linear": {"kind": "linear", "teacher": "each"},
                    "linear_all": {"kind": "linear"},
                    "mean": {"kind": "mean", "d_model": 8},
                }
            },
            "evaluation": {"student": "linear_all", "attribution": False},
        }
    )
    assert list(cfg.linear_models()) == [*(f"linear_{teacher}" for teacher in DIMS), "linear_all"]
    split = command(stage("folds"))
    split(cfg=stage_params.folds(cfg, "os").canonical(), root=cohort, task="os")
    apart = tmp_path / "apart"
    shutil.copytree(cohort, apart)
    cases.training_linear(stage_params.linear_models(cfg, "os").canonical(), cohort, "os")
    assert not (cohort / "models/os/mean").exists()
    for model in cfg.linear_models():
        of = stage_params.training(cfg, "os", model).canonical()
        cases.training(of, apart, "os", model, device="cpu")
        for name in ("predictions.parquet", "fold_1/seed_0/weights.safetensors"):
            made = Path("models/os", model, name)
            assert (cohort / made).read_bytes() == (apart / made).read_bytes()
    written = {path: path.stat().st_mtime_ns for path in cohort.glob("models/*/*/*/*/meta.json")}
    (cohort / "models/os/linear_deep/predictions.parquet").unlink()
    cases.training_linear(stage_params.linear_models(cfg, "os").canonical(), cohort, "os")
    assert (cohort / "models/os/linear_deep/predictions.parquet").is_file()
    assert written == {path: path.stat().st_mtime_ns for path in written}
