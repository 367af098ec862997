"""The history for TensorBoard."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.training.history import history_log


def row(epoch: int, loss: float) -> dict[str, float]:
    return {"epoch": epoch, "train_loss": loss, "val_loss": math.nan}


def test_no_one_watches_unless_asked(tmp_path: Path) -> None:
    with history_log(tmp_path, False) as watch:
        assert watch is None
    assert not list(tmp_path.iterdir())


def test_events_hold_every_finite_number_of_the_last_run_alone(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="pip install -e '.[tensorboard]'")
    for _ in range(2):
        with history_log(tmp_path, True) as watch:
            assert watch is not None
            watch(row(1, 0.5))
            watch(row(2, 0.25))
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert content.count(b"train_loss") == 2
    assert b"val_loss" not in content


def test_a_missing_library_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with (
        pytest.raises(UserError, match=r"training\.tensorboard: tensorboardX is not installed"),
        history_log(tmp_path, True),
    ):
        pass
