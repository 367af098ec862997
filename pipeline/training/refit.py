"""The second fit: on training and validation cases, once validation has done its work."""

from __future__ import annotations

import numpy as np

from pipeline.training.job import Prepared, TrainingJob, prepare
from pipeline.training.loop import train


def refitted(
    job: TrainingJob, ready: Prepared, epochs: int, learning: dict[str, np.ndarray], draw: int
) -> Prepared:
    """The model anew on training and validation cases, for the epochs that validation has chosen.

    The head stays that of the training part, so that predictions of both fits have one unit.

    Args:
        job: what all trainings share.
        ready: the first fit.
        epochs: how many the first fit kept.
        learning: case numbers of `train` and `val`.
        draw: the seed.
    """
    both = np.sort(np.concatenate([learning["train"], learning["val"]]))
    again = prepare(job, job.cfg, job.model, both, draw, ready.head)
    parts = {"train": both, "val": both[:0]}
    train(again.trial(parts, job.cfg, draw), job.store, epochs)
    return again
