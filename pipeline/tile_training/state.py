"""Where a training stands, in one file that is written whole or not at all.

Everything that a step draws follows from the seed and the step's number, so that the number is the
whole state of the sampler and of the random generators.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.files.artifacts import atomic_path
from pipeline.runtime.machine_errors import is_machines

FILE = "training.pt"


@dataclasses.dataclass
class State:
    """What a training has come to.

    Attributes:
        fingerprint: of all that decides its course.
        step: steps done.
        module: parameters and buffers.
        mean: their exponential moving averages.
        optimiser: the optimiser's state.
        best: the averages at the best validation so far.
        best_score: of that validation; the larger the better.
        best_step: when that was.
        rows: the curve: one row for each validation.
        losses: sums of the losses since the last validation.
        since: steps since then.
        unreadable: slide, tile and reason of tiles that could not be read.
        learner: what the learner itself remembers.
    """

    fingerprint: str
    step: int
    module: dict[str, Tensor]
    mean: dict[str, Tensor]
    optimiser: dict[str, Any]
    best: dict[str, Tensor]
    best_score: float
    best_step: int
    rows: list[dict[str, float]]
    losses: dict[str, Tensor]
    since: int
    unreadable: list[list[Any]]
    learner: dict[str, Any]


def save_state(folder: Path, state: State) -> None:
    """Write the state; a kill leaves the one before."""
    with atomic_path(folder / FILE) as temporary:
        torch.save({f.name: getattr(state, f.name) for f in dataclasses.fields(state)}, temporary)


def load_state(folder: Path, fingerprint: str, device: torch.device) -> State | None:
    """The state of an earlier start of the same training; None where there is none.

    Args:
        folder: of the training.
        fingerprint: of all that decides its course; a state of another one is left aside.
        device: where its tensors go.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # zip and pickle errors have no common class
        if is_machines(error):
            raise
        return None
    return State(**found) if found.get("fingerprint") == fingerprint else None


def forget_state(folder: Path) -> None:
    """Once the result is written, the state is not needed."""
    (folder / FILE).unlink(missing_ok=True)
