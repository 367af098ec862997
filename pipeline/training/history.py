"""The history of a training for TensorBoard, next to history.csv, while it runs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import UserError

Watch = Callable[[dict[str, float]], None] | None


@contextlib.contextmanager
def history_log(folder: Path, wanted: bool) -> Iterator[Watch]:
    """What is to be called with each epoch's row, or None if no one wants to see it.

    Writes event files to `<folder>/tensorboard/`; `tensorboard --logdir results/<cohort>/models`
    shows all models, folds and seeds.

    Raises:
        UserError: the library that writes them is not installed.
    """
    if not wanted:
        yield None
        return
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError(
            "training.tensorboard: tensorboardX is not installed; run "
            "`pip install 'shazam-pathology[tensorboard]'`, or set it to false (history.csv is "
            "always written)"
        ) from None
    events = folder / "tensorboard"
    for old in events.glob("events.*"):  # of a training that was broken off
        old.unlink()
    writer = SummaryWriter(str(events), flush_secs=10)

    def watch(row: dict[str, float]) -> None:
        for name, value in row.items():
            if name != "epoch" and math.isfinite(value):
                writer.add_scalar(name, value, int(row["epoch"]))

    try:
        yield watch
    finally:
        writer.close()
