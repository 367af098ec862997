"""The conda environment asks for what the package asks for."""

from __future__ import annotations

import tomllib

import pytest
import yaml
from house import REPOSITORY


@pytest.mark.parametrize("name", ["shazam", "rudolfv_2"])
def test_conda_environment_is_in_step_with_the_package(name: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((REPOSITORY / "workflow" / "envs" / f"{name}.yaml").read_text())
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert pip[: len(project["dependencies"])] == project["dependencies"]
