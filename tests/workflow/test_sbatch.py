"""What the cluster profiles ask their schedulers for, on machines that have none.

Stand-ins for `sbatch` and `bsub` write down how they were called and refuse, so that nothing waits.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from house import House

OUTPUTS = {
    "cohort_chunk": "slides/0.parquet",
    "tiling": "tiles/manifest/0.json",
    "extraction": "features/vit_tiny/manifest/0.json",
    "training": "models/survival/single_vit_tiny/predictions.parquet",
    "evaluation": "evaluation/survival/evaluation.json",
}
# What every job has and no site changes: names and places of this run.
OF_THE_RUN = {"--parsable", "--job-name", "--output", "--comment", "--wrap", "-D", "--export"}
TAKE_A_VALUE = {"--job-name", "--output", "--comment", "--wrap", "-D", "-t", "--mem", "-p", "-A"}
CPU = {"--requeue", "--ntasks=1"}
GPU = {"--requeue", "--gpus=1"}
SLURM = {
    "cohort_chunk": CPU | {"-t 60", "--mem 4000", "--cpus-per-task=4"},
    "tiling": CPU | {"-t 40", "--mem 8000", "--cpus-per-task=4"},
    "extraction": GPU | {"-t 30", "--mem 32000", "--cpus-per-task=8"},
    "training": GPU | {"-t 240", "--mem 32000", "--cpus-per-task=4"},
    "evaluation": CPU | {"-t 60", "--mem 8000", "--cpus-per-task=1"},
}
LSF = {
    "tiling": "-env all -q q -W 40 -n 4 -R rusage[mem=2000.0] -R span[hosts=1]",
    "extraction": "-env all -q q -W 30 -n 8 -R rusage[mem=4000.0] -R span[hosts=1] "
    "-gpu num=1:mode=shared:j_exclusive=yes",
}


@pytest.fixture(scope="module")
def copy(finished: House, tmp_path_factory: pytest.TempPathFactory) -> House:
    return finished.copy(tmp_path_factory.mktemp("sbatch") / "run")


def tools(folder: Path, scripts: dict[str, str]) -> str:
    """A folder of commands; returns a PATH that finds them first."""
    folder.mkdir()
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def submitted(house: House, rule: str, path: str, log: Path, *arguments: str) -> str:
    """How the scheduler is called when a job's output is missing."""
    output = house.path / "results" / "tiny" / OUTPUTS[rule]
    content = output.read_bytes()
    output.unlink()
    try:
        done = house.run(
            *arguments, "--retries", "0", str(output.relative_to(house.path)),
            environment={"PATH": path}, check=False,
        )  # fmt: skip
        assert log.exists(), f"nothing was submitted:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return log.read_text()
    finally:
        output.write_bytes(content)
        log.unlink(missing_ok=True)


def flags(call: list[str]) -> set[str]:
    """Flags with their values, less those that belong to the run."""
    words = iter(call)
    found = set()
    for word in words:
        value = next(words) if word in TAKE_A_VALUE else ""
        if word.split("=")[0] not in OF_THE_RUN:
            found.add(f"{word} {value}".strip())
    return found


@pytest.mark.parametrize("rule", SLURM)
def test_sbatch_is_asked_for_exactly_this(copy: House, tmp_path: Path, rule: str) -> None:
    log = tmp_path / "sbatch.log"
    path = tools(
        tmp_path / "bin",
        {
            "sbatch": f"printf '%s\\037' \"$@\" > {log}; exit 1",
            "squeue": "exit 0",
            "sinfo": "exit 0",
            "sacct": "exit 1",
            "sacctmgr": "exit 1",
            "scontrol": 'echo "MinJobAge = 300 sec"',
        },
    )
    profile = ("--workflow-profile", "profiles/slurm", "--slurm-no-account")
    quick = (
        "--slurm-init-seconds-before-status-checks",
        "1",
        "--seconds-between-status-checks",
        "1",
    )
    call = submitted(copy, rule, path, log, *profile, *quick).split("\037")[:-1]
    assert flags(call) == SLURM[rule]
    assert call[call.index("--job-name") + 1].startswith("shazam_")


@pytest.mark.slow  # this plugin looks at its jobs after 20 s for the first time
@pytest.mark.skipif(
    importlib.util.find_spec("snakemake_executor_plugin_lsf") is None,
    reason="pip install snakemake-executor-plugin-lsf",
)
@pytest.mark.parametrize("rule", LSF)
def test_bsub_is_asked_for_exactly_this(copy: House, tmp_path: Path, rule: str) -> None:
    log = tmp_path / "bsub.log"
    (tmp_path / "lsbatch" / "mine" / "configdir").mkdir(parents=True)
    (tmp_path / "lsbatch" / "mine" / "configdir" / "lsb.params").write_text("DEFAULT_QUEUE = q\n")
    facts = f"conf\\nLSB_SHAREDIR = {tmp_path}\\nLSF_CONFDIR = {tmp_path}\\n"
    path = tools(
        tmp_path / "bin",
        {
            "bsub": f"printf '%s\\037' \"$@\" > {log}; exit 1",
            "badmin": f"printf '{facts}'",
            "lsclusters": "printf 'NAME\\nmine ok\\n'",
            "bhist": "exit 1",
            "bqueues": "exit 0",
        },
    )
    call = submitted(copy, rule, path, log, "--workflow-profile", "profiles/lsf").split("\037")
    asked = " ".join(call[call.index("-env") : call.index("-cwd")])
    assert asked == LSF[rule]
