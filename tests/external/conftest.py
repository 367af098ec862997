"""A training cohort that ran to its end, and the second hospital's cohort up to its mapping."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.files.artifacts import write_text
from pipeline.plan import stage_params
from pipeline.report.sections import provenance
from tests.prediction import conftest as handing_over

TRAINED = f"results/{handing_over.NAME}"
TASKS = ("survival", "subtype")
EXTERNAL: dict[str, Any] = {
    "cohort": {
        "name": "second",
        "chunks": 1,
        "synthetic": {
            **handing_over.CONFIG["cohort"]["synthetic"],
            "cases": 12,
            "hospital": "second",
        },
    },
    "external": {"trained": TRAINED, "models": ["v2", "linear"]},
}


def upstream(config: Config) -> Iterator[list[str]]:
    """The jobs before the first model is applied."""
    for argv in handing_over.jobs(config):
        if argv[0] == "folds":
            return
        yield argv


def apply(config: Config, task: str) -> None:
    """Every job of a task after them."""
    root = f"results/{config.cohort.name}"
    for model in config.applied():
        cfg = stage_params.external_predictions(config, task, model).canonical()
        of = ["--cfg", cfg, "--root", root, "--task", task, "--model", model]
        handing_over.run("external-predictions", *of)
    cfg = stage_params.external(config, task).canonical()
    handing_over.run("external", "--cfg", cfg, "--root", root, "--task", task)


@pytest.fixture(scope="session")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both cohorts, with models of other models and of covariates."""
    folder = tmp_path_factory.mktemp("second") / "stacks"
    config = parse(handing_over.STACKED)
    shutil.copytree(handing_over.ran("stacked", tmp_path_factory.getbasetemp()), folder)
    with contextlib.chdir(folder):
        write_text(Path(TRAINED) / "report/config.yaml", provenance.config_yaml(config))
        external = parse({**EXTERNAL, "external": {"trained": TRAINED}})
        for argv in upstream(external):
            handing_over.run(*argv)
        for task in TASKS:
            apply(external, task)
    return folder


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of both cohorts."""
    folder = tmp_path_factory.mktemp("second") / "hospitals"
    config = parse(handing_over.CONFIG)
    shutil.copytree(handing_over.ran("study", tmp_path_factory.getbasetemp()), folder)
    with contextlib.chdir(folder):
        text = provenance.config_yaml(config)
        write_text(Path(TRAINED) / "report/config.yaml", text)
        external = parse(EXTERNAL)
        for argv in upstream(external):
            handing_over.run(*argv)
        for task in TASKS:
            apply(external, task)
    return folder
