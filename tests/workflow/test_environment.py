"""The conda environment asks for what the package asks for."""

from __future__ import annotations

import tomllib

import yaml
from house import REPOSITORY


def test_conda_environment_is_in_step_with_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((REPOSITORY / "workflow" / "envs" / "shazam.yaml").read_text())
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert pip == project["dependencies"]
