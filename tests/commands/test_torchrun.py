"""Several GPUs are several processes of one training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer

from pipeline.commands.declared import command
from pipeline.runtime import gpu_locks, stages, torchrun
from tests.encoder_distillation.made import CFG, job_of, results_folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    seen: list[object] = []
    monkeypatch.setattr(gpu_locks, "claim", lambda count: seen.append(("claimed", count)))

    def launch(count: int, arguments: list[str]) -> int:
        seen.append((count, arguments))
        return 3

    monkeypatch.setattr(torchrun, "launch", launch)
    monkeypatch.setattr(sys, "argv", ["pipeline", "encoder-distillation", "--gpus", "2"])
    return seen


def ask(gpus: int, root: Path) -> None:
    run = command(stages.stage("encoder_distillation"))
    cfg = job_of().canonical()
    run(cfg=cfg, root=root, teacher="small", workers=1, gpus=gpus, device="cpu")


def test_each_gpu_gets_a_process_once_they_are_claimed(calls: list[object], tmp_path: Path) -> None:
    with pytest.raises(typer.Exit) as ended:
        ask(2, tmp_path)
    assert ended.value.exit_code == 3
    assert calls == [("claimed", 2), (2, ["encoder-distillation", "--gpus", "2"])]


def test_a_process_of_torchrun_claims_and_starts_nothing(
    calls: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(stages.Stage, "run", lambda self: lambda **given: calls.append("ran"))
    ask(2, tmp_path)
    assert calls == ["ran"]


@pytest.mark.slow
def test_two_processes_make_one_encoder(tmp_path: Path) -> None:
    root = results_folder(tmp_path)
    cfg = job_of(CFG).canonical()
    arguments = ["encoder-distillation", "--cfg", cfg, "--root", str(root), "--teacher", "small"]
    assert torchrun.launch(2, [*arguments, "--gpus", "2", "--device", "cpu"]) == 0
    facts = json.loads((root / "teachers/small/facts.json").read_text())
    assert facts["steps"] == 6
    wrong = [*arguments[:2], "{}", *arguments[3:]]
    assert torchrun.launch(2, [*wrong, "--device", "cpu"]) != 0
