"""The command of a stage that declares what it is told and which options it has."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from pipeline.accounting.job_records import recorded
from pipeline.commands.options import OPTIONS, PARTS, Cfg, Root
from pipeline.plan import stage_params
from pipeline.runtime import gpu_locks, torchrun
from pipeline.runtime.stages import Stage


def command(stage: Stage) -> Callable[..., None]:
    """What `python -m pipeline <stage>` calls: its own function, or one made of the declaration.

    The latter reads `--cfg` as the stage's job, claims GPUs, writes the job's record, and calls
    the stage's `run(job=, root=, <its options>)`; of several GPUs each has a process of its own,
    where the stage can share its work so.
    """
    own = stage.own_command()
    if own is not None:
        return own

    def run(cfg: str, root: Path, **options: Any) -> None:
        job = stage_params.read(stage.job_class(), cfg)
        gpus = options.pop("gpus", 0)
        if not torchrun.started():
            gpu_locks.claim(gpus)
            if stage.torchrun and gpus > 1:
                raise typer.Exit(torchrun.launch(gpus, sys.argv[1:]))
        parts = {name: options[name] for name in PARTS if name in options}
        with recorded(root, stage.name, **parts):
            stage.run()(job=job, root=root, **options)

    kinds = {"cfg": (Cfg, inspect.Parameter.empty), "root": (Root, inspect.Parameter.empty)}
    kinds |= {name: OPTIONS[name] for name in stage.options}
    keyword = inspect.Parameter.KEYWORD_ONLY
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, keyword, annotation=kind, default=default)
            for name, (kind, default) in kinds.items()
        ]
    )
    run.__annotations__ = {name: kind for name, (kind, _) in kinds.items()}
    run.__doc__ = f"{stage.does[0].upper()}{stage.does[1:]}."
    return run
