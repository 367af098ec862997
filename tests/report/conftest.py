"""Fabricated results folders: what the other stages would have left."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.report import stage
from pipeline.report.figures import style
from tests.report import fabricate


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A run with three tasks and its report, made once; not to be written to."""
    config = parse(fabricate.CONFIG)
    root = tmp_path_factory.mktemp("results") / "demo"
    fabricate.results(config, root)
    stage.run(config=config, root=root)
    return config, root


@pytest.fixture(scope="session")
def page(whole: tuple[Config, Path]) -> str:
    return (whole[1] / "report.html").read_text()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty figures, for tests of what stands around them: to draw them is most of the work."""
    monkeypatch.setattr(style, "svg", lambda fig, name, alt: f'<svg role="img"><!--{name}--></svg>')


def small_config(**changes: Any) -> Config:
    """The survival task alone; sections updated by `changes`."""
    data = copy.deepcopy(fabricate.CONFIG)
    data["tasks"] = {"survival": data["tasks"]["survival"]}
    for section, values in changes.items():
        data[section] = {**data.get(section, {}), **values}
    return parse(data)


@pytest.fixture
def small(whole: tuple[Config, Path], tmp_path: Path) -> Path:
    """A copy of the folder without its report, to be read with `small_config` and spoilt."""
    kept = shutil.ignore_patterns("report", "report.html")
    return Path(shutil.copytree(whole[1], tmp_path / "demo", ignore=kept))
