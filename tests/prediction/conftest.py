"""A small cohort that ran to its end, whose models are handed over."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config.models import STACKS
from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.plan import cohort_plan, stage_params
from pipeline.prediction.export import export
from pipeline.prediction.export_members import Source
from pipeline.prediction.model_file import ModelFile, read_model

NAME = "tiny"
TEACHER: dict[str, Any] = {
    "source": "timm",
    "model": "resnet10t",
    "weights": "random",
    "input_px": 32,
}
CONFIG: dict[str, Any] = {
    "cohort": {
        "name": NAME,
        "chunks": 1,
        "synthetic": {
            "cases": 14,
            "slide_px": [512, 600],
            "censoring": 0.2,
            "broken_slides": False,
            "two_slide_fraction": 0.3,
            "pen_fraction": 0,
        },
    },
    "tiling": {"tile_px": 112, "target_mpp": 1.0, "min_tissue_fraction": 0.2},
    "extraction": {
        "teachers": {
            "one": TEACHER,
            "two": {**TEACHER, "seed": 5},
        }
    },
    "tasks": {
        "survival": {"type": "survival", "time": "time", "event": "event", "loss": "cox"},
        "subtype": {"type": "classification", "label": "subtype", "auxiliary": {"score": 0.5}},
        "score": {"type": "regression", "targets": ["score"]},
    },
    "folds": {"k": 2, "validation_fraction": 0.3},
    "training": {
        "models": {
            "single": {"kind": "single", "teacher": "one", "d_model": 8},
            "linear": {"kind": "linear", "levels": ["low", "high"]},
            "v2": {"kind": "shazam_v2", "d_model": 8, "layers": 1},
        },
        "epochs": 2,
        "attention_cases_per_fold": 0,
    },
    "evaluation": {"student": "v2", "bootstraps": 50, "attribution": False},
}


def jobs(config: Config) -> Iterator[list[str]]:
    """Every job up to the evaluation, in an order that works."""
    cohort = cohort_plan.cohort_plan(config, Path.cwd())
    results = Path("results") / config.cohort.name
    root = ["--root", str(results)]
    for chunk in cohort.chunks:
        part = ["--chunk", str(chunk)]
        cfg = stage_params.chunk(config, cohort.table(chunk), cohort.cases_until(chunk))
        out = ["--out", str(results / f"slides/{chunk}.parquet")]
        yield ["cohort", "chunk", "--cfg", cfg.canonical(), *part, *out]
        cfg = stage_params.tiling(config, cohort.digest(chunk))
        out = ["--out", str(results / f"tiles/manifest/{chunk}.json")]
        yield ["tiling", "--cfg", cfg.canonical(), *root, *part, *out]
    yield [
        "cohort",
        "check",
        "--cfg",
        stage_params.of("cohort", config, sheet="").canonical(),
        *root,
    ]
    for teacher in config.extraction.teachers:
        out = ["--out", str(results / f"features/{teacher}/check.json")]
        cfg = stage_params.check(config, teacher)
        yield ["extraction-check", "--cfg", cfg.canonical(), *out]
        for chunk in cohort.chunks:
            cfg = stage_params.extraction(config, teacher, cohort.digest(chunk))
            out = ["--out", str(results / f"features/{teacher}/manifest/{chunk}.json")]
            chosen = ["--chunk", str(chunk), *out]
            yield ["extraction", "--cfg", cfg.canonical(), *root, *chosen]
    for name in ("mapping", "mapping-check"):
        yield [name, "--cfg", stage_params.mapping(config).canonical(), *root]
    for task in config.tasks:
        of = [*root, "--task", task]
        yield ["folds", "--cfg", stage_params.folds(config, task).canonical(), *of]
        specs = config.model_specs()
        stacks = [name for name, spec in specs.items() if spec.kind in STACKS]
        read = {one for name in stacks for one in getattr(specs[name], "of", ())}
        for model in [name for name in specs if name not in stacks]:
            cfg = stage_params.training(config, task, model)
            yield ["training", "--cfg", cfg.canonical(), *of, "--model", model]
            if model in read:
                yield ["out-of-fold", "--cfg", cfg.canonical(), *of, "--model", model]
        for model in stacks:
            cfg = stage_params.stacking(config, task, model)
            yield ["stacking", "--cfg", cfg.canonical(), *of, "--model", model]
        yield ["evaluation", "--cfg", stage_params.evaluation(config, task).canonical(), *of]


def run(*argv: str) -> str:
    """A command's output."""
    done = CliRunner().invoke(app, list(argv), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


# Models of other models and of columns, which need some cases to be weighed by.
STACKED: dict[str, Any] = {
    **CONFIG,
    "cohort": {
        **CONFIG["cohort"],
        "synthetic": {**CONFIG["cohort"]["synthetic"], "cases": 30},
        "covariates": {"age": "number", "stage": "category"},
    },
    "tasks": {
        "survival": CONFIG["tasks"]["survival"],
        "subtype": {"type": "classification", "label": "subtype"},
        "score": CONFIG["tasks"]["score"],
    },
    "training": {
        **CONFIG["training"],
        "models": {
            "single": {"kind": "single", "teacher": "one", "d_model": 8},
            "linear": {"kind": "linear", "teacher": "two"},
            "ensemble": {
                "kind": "ensemble", "of": ["linear", "single"], "covariates": ["age"],
            },
            "table": {"kind": "covariates"},
            "staged": {"kind": "single", "teacher": "one", "d_model": 8, "covariates": ["stage"]},
        },
    },
    "evaluation": {**CONFIG["evaluation"], "student": "single"},
}  # fmt: skip


CONFIGS = {"study": CONFIG, "stacked": STACKED}


@functools.cache
def ran(name: str, folder: Path) -> Path:
    """A working folder below `folder` with one of CONFIGS run to its end, made once in a process:
    tests of external cohorts copy it. Not to be written to below results/."""
    made = folder / f"ran_{name}"
    made.mkdir()
    with contextlib.chdir(made):
        for argv in jobs(parse(CONFIGS[name])):
            run(*argv)
    return made


@pytest.fixture(scope="session")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of the cohort with such models; not to be written to below results/."""
    return ran("stacked", tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of the cohort; not to be written to below results/."""
    folder = ran("study", tmp_path_factory.getbasetemp())
    (folder / "study.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return folder


@pytest.fixture
def here(study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the working folder of the test."""
    monkeypatch.chdir(study)
    return study


def source(study: Path, task: str, model: str, config: Config | None = None) -> Source:
    """Where a model is exported from."""
    return Source(study / "results" / NAME, config or parse(CONFIG), task, model, None)


def handed(study: Path, task: str, model: str, out: Path) -> ModelFile:
    """An exported model, opened."""
    with contextlib.chdir(study):
        export(source(study, task, model), out, "auto")
    return read_model(out)
