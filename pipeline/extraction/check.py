"""The preflight of a teacher as a job of its own: what was verified, written down.

It runs once per teacher, on a CPU, before the first job that needs a GPU. What it finds also holds
the teacher still: every extraction job afterwards asks for the very revision that was checked, so
that a repository that moves on between two chunks cannot mix two models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders.teachers import check_teacher
from pipeline.errors import ConfigError
from pipeline.files.artifacts import read_json, sweep, write_json

# Raised when teachers have to be checked again. 1: the first.
VERSION = 1

FILE = "check.json"


def run(*, teacher: str, settings: TeacherConfig, weights_dir: str | None, out: Path) -> None:
    """Check a teacher and write what was verified.

    Args:
        teacher: its name in the config.
        settings: its config.
        weights_dir: folder of local weights.
        out: the JSON to write; without times or paths, so that equal facts give equal bytes.

    Raises:
        ConfigError: a step failed; says which and what to do.
    """
    facts: dict[str, Any] = {"teacher": teacher}
    verified: list[str] = []
    for step in check_teacher(teacher, settings, weights_dir):
        mark = {True: "ok", False: "FAILED", None: "-"}[step.ok]
        typer.echo(f"{mark:>6}  {step.name}: {step.detail}")
        if step.ok is False:
            raise ConfigError(f"teacher `{teacher}` is not ready ({step.name}): {step.detail}")
        facts |= step.facts
        if step.ok:
            verified.append(step.name)
    sweep(out.parent)
    write_json(out, {**facts, "verified": verified})


def checked(root: Path, teacher: str) -> dict[str, Any]:
    """What the preflight of a teacher found; empty if it was not run."""
    path = root / "features" / teacher / FILE
    return read_json(path) if path.is_file() else {}


def pinned(settings: TeacherConfig, found: dict[str, Any]) -> TeacherConfig:
    """The teacher's config with the revision that was checked."""
    if settings.weights != "hub" or not found:
        return settings
    return settings.model_copy(update={"revision": found["revision"]})
