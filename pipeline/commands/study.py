"""A study without a clone: `shazam init` writes its files, `shazam run` runs the workflow."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UserError
from pipeline.files.shipped import WORKFLOW, shipped

CONFIG = Path("config/config.yaml")
PROFILES = ("local", "local-gpu", "slurm", "lsf", "kubernetes")
ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}


def init(
    folder: Annotated[Path, typer.Argument(help="The study's folder; made where it is not there.")],
    demo: Annotated[
        bool, typer.Option("--demo", help="The embedded cohort, instead of slides of your own.")
    ] = False,
) -> None:
    """Write a study's config, a template of its sheet, and the profiles."""
    files = {"config/config.yaml": CONFIG}
    if not demo:
        files = {
            "config/templates/study.yaml": CONFIG,
            "config/templates/slides.csv": Path("config/slides.csv"),
        }
    files |= {
        f"profiles/{name}/profile.yaml": Path("profiles") / name / "profile.yaml"
        for name in PROFILES
    }
    there = [str(folder / name) for name in files.values() if (folder / name).exists()]
    if there:
        raise UserError(f"{there[0]}: is there already; nothing was written. Give another folder")
    for source, name in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shipped(source), folder / name)
    written = " and ".join(str(name) for name in files.values() if name.parts[0] == "config")
    typer.echo(f"{folder}: wrote {written}, and the profiles {', '.join(PROFILES)}.")
    typer.echo(f"cd {folder}, edit them, and then: shazam run -n")


def run(context: typer.Context) -> None:
    """Run the workflow here, with the config of `--configfile`, or config/config.yaml. All that
    Snakemake takes may be given, e.g. -n, --cores 8, --workflow-profile profiles/slurm; without a
    profile it is profiles/local."""
    given = list(context.args)
    names = {argument.partition("=")[0] for argument in given}
    if not names & {"--configfile", "--configfiles"} and not CONFIG.is_file():
        raise UserError(
            f"{CONFIG}: not in this folder. `shazam init DIR` writes one; or give --configfile FILE"
        )
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(shipped(WORKFLOW))]
    if not names & {"--profile", "--workflow-profile"}:
        own = Path("profiles/local")
        command += ["--workflow-profile", str(own if own.is_dir() else shipped("profiles/local"))]
    os.execv(sys.executable, [*command, *given])
