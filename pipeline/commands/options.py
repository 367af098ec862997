"""The options that several commands share."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

REQUIRED = inspect.Parameter.empty

Cfg = Annotated[
    str, typer.Option(help="The stage's parameters as JSON, made by pipeline.plan.stage_params.")
]
Root = Annotated[Path, typer.Option(help="The cohort's results folder, results/<cohort>.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes or threads that may work at once.")]
Gpus = Annotated[
    int, typer.Option(min=0, help="GPUs of this machine to claim; 0: whatever is visible.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<n>.")]
ChunkNumber = Annotated[int, typer.Option(min=0, help="The hash bucket of slides to work on.")]
Out = Annotated[Path, typer.Option(help="The manifest or table to write.")]
Base = Annotated[Path, typer.Option(help="Folder that the config's relative paths start from.")]
ConfigFile = Annotated[Path, typer.Option(help="The config file.")]

Teacher = Annotated[str, typer.Option(help="The teacher's name.")]
Task = Annotated[str, typer.Option(help="The task's name.")]
Model = Annotated[str, typer.Option(help="The model's name.")]

# What a stage may declare: type, and default where the option may be left out.
OPTIONS: dict[str, tuple[Any, Any]] = {
    "teacher": (Teacher, REQUIRED),
    "task": (Task, REQUIRED),
    "model": (Model, REQUIRED),
    "out": (Out, REQUIRED),
    "chunk": (ChunkNumber, 0),
    "workers": (Workers, 1),
    "gpus": (Gpus, 0),
    "device": (Device, "auto"),
    "base": (Base, Path()),
}
# Which part of a stage a job is: they name its record.
PARTS = ("teacher", "task", "model", "chunk")
