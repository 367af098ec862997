"""The conda environments and the images: what the package asks for, and the same commands."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path

import pytest
import yaml
from house import REPOSITORY, TINY, House

ENVS = REPOSITORY / "envs"


@pytest.mark.parametrize("name", ["shazam", "rudolfv_2", "slide_remote"])
def test_conda_environment_is_in_step_with_the_package(name: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ENVS / f"{name}.yaml").read_text())
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    own = pip[len(project["dependencies"]) :]
    assert pip == [*project["dependencies"], *own] and bool(own) == (name != "shazam")
    (python,) = [d for d in environment["dependencies"] if str(d).startswith("python ")]
    assert python == f"python {project['requires-python']}"


def test_the_images_are_in_step_with_the_package_and_each_other() -> None:
    docker, apptainer = ((ENVS / name).read_text() for name in ("Dockerfile", "shazam.def"))
    base = re.search(r"^FROM (\S+)", docker, re.M)
    assert base is not None and f"From: {base[1]}" in apptainer
    lowest = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert base[1].startswith(f"python:{lowest['requires-python'].removeprefix('>=')}")
    steps = re.findall(r"(?:apt-get update|pip install) .*", docker)
    assert len(steps) == 2
    for step in steps:
        assert step in apptainer
    for copied in re.findall(r"^COPY (.+) \S+$", docker, re.M):
        for name in copied.split():
            assert (REPOSITORY / name).exists(), name
    for line in re.findall(r"^    (\S+) /opt/shazam/\S+$", apptainer, re.M):
        assert (REPOSITORY / line).exists(), line


def test_every_rule_names_the_environment() -> None:
    for file in (REPOSITORY / "workflow" / "rules").glob("*.smk"):
        text = file.read_text()
        rules = len(re.findall(r"^\s*rule \w+:", text, re.M))
        named = len(re.findall(r'conda:\s+(?:"\.\./\.\./envs/shazam\.yaml"|environment)\n', text))
        assert named == rules, file.name


def executable(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


@pytest.mark.slow
def test_apptainer_runs_the_same_commands(tmp_path: Path) -> None:
    """A stand-in for apptainer that notes its image and runs the command in place."""
    house = House.build(tmp_path / "run", TINY)
    executable(
        tmp_path / "bin" / "apptainer",
        'if [ "$1" = --version ]; then echo "apptainer version 1.3.4"; exit; fi\n'
        f'echo "$@" >> {tmp_path}/calls\n'
        'while [ "$2" != -c ]; do shift; done\nexec "$@"\n',
    )
    (house.path / "shazam.sif").touch()
    path = f"{tmp_path}/bin{os.pathsep}{house.environment()['PATH']}"
    target = "results/tiny/tiles/manifest/0.json"
    house.run("--cores", "2", "--sdm", "apptainer", "--", target, environment={"PATH": path})
    assert (house.path / target).exists()
    calls = (tmp_path / "calls").read_text()
    assert "python -m pipeline tiling" in calls and "shazam.sif bash -c" in calls
