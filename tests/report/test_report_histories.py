"""Curves of training, and which models have any."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.report import histories

HEAD = "epoch,train_loss,val_loss,val_metric,learning_rate\n"


def history(root: Path, model: str, epochs: int) -> None:
    folder = root / "models/task" / model / "fold_0/seed_0"
    folder.mkdir(parents=True)
    rows = [f"{e},{1 / e},{1.1 / e},0.5,0.001\n" for e in range(1, epochs + 1)]
    (folder / "history.csv").write_text(HEAD + "".join(rows))


def test_a_model_that_is_solved_at_once_has_no_curve(tmp_path: Path) -> None:
    history(tmp_path, "linear", 1)
    history(tmp_path, "network", 5)
    training: Any = SimpleNamespace(seeds=[0])
    results: Any = SimpleNamespace(root=tmp_path, config=SimpleNamespace(training=training))
    infos: Any = {
        name: SimpleNamespace(label=f"the {name} model", colour="#0072b2")
        for name in ("linear", "network")
    }
    drawn = histories.drawing(results, "task", infos, ["linear", "network"])
    assert drawn is not None
    assert "Loss curves of 1 models" in drawn.document
    assert histories.drawing(results, "task", infos, ["linear"]) is None
