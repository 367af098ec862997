"""`shazam init` and `shazam run`, from a clone and from a wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.commands import study
from pipeline.config.reading import load
from pipeline.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
BUILT_FROM = ("pipeline", "workflow", "profiles", "envs", "config")


def test_init_writes_a_config_that_is_valid_a_sheet_and_profiles(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    said = CliRunner().invoke(app, ["init", str(folder)], catch_exceptions=False)
    assert "shazam run -n" in said.output
    config = load(folder / "config/config.yaml")
    assert config.cohort.sheet == "config/slides.csv"
    header = (folder / "config/slides.csv").read_text().splitlines()[0].split(",")
    survival = config.tasks["survival"].model_dump()
    assert {"slide_id", "case_id", "path", survival["time"], survival["event"]} <= set(header)
    for name in study.PROFILES:
        assert (folder / "profiles" / name / "profile.yaml").is_file()


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/slides.csv").write_text("mine")
    with pytest.raises(UserError, match=r"slides.csv: is there already"):
        CliRunner().invoke(app, ["init", str(tmp_path)], catch_exceptions=False)
    assert (tmp_path / "config/slides.csv").read_text() == "mine"
    assert not (tmp_path / "config/config.yaml").exists()


def test_init_demo_is_the_embedded_cohort(tmp_path: Path) -> None:
    CliRunner().invoke(app, ["init", str(tmp_path), "--demo"], catch_exceptions=False)
    assert load(tmp_path / "config/config.yaml").cohort.source == "synthetic"


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    """The command that `shazam run` turns into."""
    calls: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, argv: calls.append(argv))
    CliRunner().invoke(app, ["run", *arguments], catch_exceptions=False)
    return calls[0][1:]


def test_run_hands_its_arguments_to_snakemake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="shazam init"):
        called(monkeypatch)
    snakefile = str(REPOSITORY / "workflow" / "Snakefile")
    own = called(monkeypatch, "--configfile", "mine.yaml", "-n")
    assert own[:4] == ["-m", "snakemake", "--snakefile", snakefile]
    assert own[-3:] == ["--configfile", "mine.yaml", "-n"]
    assert own[own.index("--workflow-profile") + 1].endswith("profiles/local")
    theirs = called(monkeypatch, "--configfile=mine.yaml", "--workflow-profile=profiles/slurm")
    assert theirs[4:] == ["--configfile=mine.yaml", "--workflow-profile=profiles/slurm"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel of this repository would put into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / "source" / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder / "source" / name)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('../made'))"
    subprocess.run(
        [sys.executable, "-c", build], cwd=folder / "source", check=True, capture_output=True
    )
    (wheel,) = (folder / "made").glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_has_the_workflow_and_all_that_it_reads(installed: Path) -> None:
    shipped = installed / "pipeline" / "shipped"
    for folder in ("workflow", "profiles", "envs", "config"):
        wanted = {p.relative_to(REPOSITORY) for p in (REPOSITORY / folder).rglob("*")}
        found = {p.relative_to(shipped) for p in (shipped / folder).rglob("*")}
        assert found == {p for p in wanted if "__pycache__" not in p.parts}
    assert (installed / "pipeline/encoders/registry.yaml").is_file()
    assert (installed / "pipeline/report/style.css").is_file()
    assert not (installed / "workflow").exists(), "the name is not this package's"


@pytest.mark.slow
def test_an_installed_package_plans_a_study_of_its_own(installed: Path, tmp_path: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(installed),
        "XDG_CACHE_HOME": str(tmp_path / ".cache"),
    }

    def shazam(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=tmp_path, env=environment, text=True, capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    shazam("init", ".", "--demo")
    said = shazam("run", "-n", "--cores", "1")
    assert "task survival: 100 cases" in said and "training" in said
