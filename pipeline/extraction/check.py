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
from pipeline.contracts.teacher_check import TeacherCheck, write_teacher_check
from pipeline.encoders.teachers import check_teacher
from pipeline.errors import ConfigError
from pipeline.files.artifacts import sweep

# Raised when teachers have to be checked again. 1: the first.
VERSION = 1


def run(*, teacher: str, settings: TeacherConfig, weights_dir: str | None, out: Path) -> None:
    """Check a teacher and write what was verified.

    Args:
        teacher: its name in the config.
        settings: its config.
        weights_dir: folder of local weights.
        out: the JSON to write; without times or paths, so that equal facts give equal bytes.

    Raises:
        ConfigError: a step failed; says which and what to do. Or the teacher is imported.
    """
    if settings.source == "import":
        raise ConfigError(f"teacher `{teacher}` is imported: its files are checked when read")
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
    write_teacher_check(out, TeacherCheck(**facts, verified=verified))


def pinned(settings: TeacherConfig, found: TeacherCheck | None) -> TeacherConfig:
    """The teacher's config with the revision that was checked."""
    if settings.weights != "hub" or found is None:
        return settings
    return settings.model_copy(update={"revision": found.revision})
