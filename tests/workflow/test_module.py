"""Another workflow uses this one as a module."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from house import REPOSITORY, TINY, House

STUDY = """
configfile: "study.yaml"


module shazam:
    snakefile:
        "{snakefile}"
    config:
        config["shazam"]


use rule * from shazam


rule summary:
    default_target: True
    input:
        rules.all.input,
    output:
        "summary.txt",
    shell:
        "wc -c {{input}} > {{output}}"
"""


def study(folder: Path, repository: Path) -> Path:
    """A workflow of somebody else, in a folder of its own."""
    (folder / "workflow").mkdir(parents=True)
    snakefile = repository / "workflow" / "Snakefile"
    (folder / "workflow" / "Snakefile").write_text(STUDY.format(snakefile=snakefile))
    (folder / "study.yaml").write_text(yaml.safe_dump({"shazam": TINY, "theirs": {"a": 1}}))
    return folder


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "XDG_CACHE_HOME": str(folder / ".cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
    )


def test_its_rules_are_planned_with_the_other_workflows_config(tmp_path: Path) -> None:
    done = call(study(tmp_path / "a study", REPOSITORY), "-n", "--quiet", "rules")
    assert done.returncode == 0, done.stderr
    for rule in ("cohort_chunk", "tiling", "extraction", "training", "report", "summary"):
        assert rule in done.stdout + done.stderr
    assert "12 cases in 2 chunks" in done.stderr


@pytest.mark.slow
def test_its_stages_run_the_package_that_lies_beside_it(tmp_path: Path) -> None:
    house = House.build(tmp_path / "clone", TINY)
    cli = house.path / "pipeline" / "cli.py"
    cli.write_text(cli.read_text() + '\nprint("from the clone")\n')
    folder = study(tmp_path / "it's a $(touch study)", house.path)
    target = "results/tiny/tiles/manifest/0.json"
    done = call(folder, "--cores", "2", "--show-failed-logs", "--", target)
    assert done.returncode == 0, done.stderr[-4000:]
    assert (folder / target).exists()
    assert "from the clone" in (folder / "results/tiny/logs/tiling/0.log").read_text()
    assert not list(folder.rglob("study")), "a folder's name is not a command"


def test_the_catalog_finds_what_it_asks_for() -> None:
    catalog = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())
    usage = catalog["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment"}
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
    deployment = usage["software-stack-deployment"]
    assert set(deployment) == {"conda", "apptainer", "apptainer+conda", "report"}
    assert all(isinstance(value, bool) for value in deployment.values())
    profile = usage["mandatory-flags"]["flags"].split()[-1]
    assert (REPOSITORY / profile / "profile.yaml").is_file()
    readme = (REPOSITORY / "README.md").read_text().lower()
    assert "snakemake" in readme and "workflow" in readme
    for file in ("workflow/Snakefile", "config/README.md"):
        assert (REPOSITORY / file).is_file()
    assert list((REPOSITORY / "workflow" / "rules").glob("*.smk"))
