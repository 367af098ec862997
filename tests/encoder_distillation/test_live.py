"""Patch tokens of teachers that run beside the student."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from pipeline.config.encoder_distillation import EncoderStudent
from pipeline.config.extraction import TeacherConfig
from pipeline.config.whole import Config
from pipeline.encoder_distillation.live import build_live, token_loss, tokens_of
from pipeline.encoder_distillation.student import Student, start
from pipeline.encoders.build import make_network
from pipeline.encoders.taps import find_taps, forward_levels, forward_maps
from pipeline.errors import ConfigError
from pipeline.plan import encoder_jobs
from tests.encoder_distillation.made import CFG, TINY, job_of, results_folder, run

VIT = TeacherConfig(
    source="timm", model="vit_tiny_patch16_224", weights="random", seed=1, input_px=64
)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("cfg", "pooling", "grid"),
    [(VIT, "cls", 4), (VIT, "mean", 4), (TINY, None, 1), (TINY, "stage", 1)],
)
def test_maps_come_with_the_very_output(cfg: TeacherConfig, pooling: str | None, grid: int) -> None:
    module = make_network("t", cfg).module.eval()
    taps = find_taps(module, pooling)
    px = cfg.input_px or 0
    images = torch.rand(2, 3, px, px)
    with torch.no_grad():
        found, maps = forward_maps(module, images, taps)
        plain = forward_levels(module, images, taps, ("high",))["high"]
    torch.testing.assert_close(found, plain)
    assert maps.shape[2:] == (grid, grid)
    if pooling != "cls":
        torch.testing.assert_close(maps.mean((2, 3)), plain)


def test_with_a_token_for_each_teacher_maps_are_of_patches_alone() -> None:
    cfg = EncoderStudent(encoder=VIT, tokens="per_teacher", teachers=("a", "b"), depth=2)
    module, plan = start("s", cfg, None)
    taps = find_taps(module, plan.pooling)
    whole = Student(module.eval(), taps, {"a": 3, "b": 4}, True, (), 8, 64, live={"a": 5}).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        embedding, read, maps = whole.look(images)
        plain, reads = whole.embed(images)
    torch.testing.assert_close(embedding, plain)
    torch.testing.assert_close(read[1], reads[1])
    assert maps.shape == (2, 192, 4, 4) and whole.token_head("a")(maps).shape == (2, 5, 4, 4)


def squared(answer: Tensor, target: Tensor) -> Tensor:
    return (answer - target).square().mean()


@pytest.mark.parametrize("finer", [1, 2])
def test_tokens_are_compared_where_they_lie(finer: int) -> None:
    """A teacher with a finer grid is averaged to the student's."""
    wanted = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    seen = nn.functional.layer_norm(wanted.permute(0, 2, 3, 1), (6,)).permute(0, 3, 1, 2)
    wanted = wanted.repeat_interleave(finer, 2).repeat_interleave(finer, 3)
    head = nn.Identity()
    assert float(token_loss(head, seen, wanted, squared)) == pytest.approx(0, abs=1e-6)
    assert float(token_loss(head, seen.roll(1, 3), wanted, squared)) > 0.5
    # Each token is normalised by itself: a teacher that is louder says the same.
    assert float(token_loss(head, seen, 7 * wanted, squared)) == pytest.approx(0, abs=1e-5)


def test_teachers_take_turns_and_have_no_gradient(tmp_path: Path) -> None:
    live = build_live({"a": TINY, "b": VIT}, tmp_path, None, CPU, 1.0)
    assert [live.at(step).name for step in range(3)] == ["a", "b", "a"] and live.px == 64
    tokens = tokens_of(live.at(1), torch.rand(1, 3, 100, 100, requires_grad=True) * 255)
    assert tokens.shape == (1, 192, 4, 4) and not tokens.requires_grad


def test_the_stage_learns_tokens_too(tmp_path: Path) -> None:
    root = results_folder(tmp_path)
    cfg = EncoderStudent.model_validate(CFG.model_dump() | {"patches": {"weight": 2.0}})
    folder = run(root, "p", job_of(cfg, live={"a": VIT, "b": TINY}))
    curve = pd.read_csv(folder / "curve.csv")
    assert curve["loss_tokens"][1:].gt(0).all()
    plain = pd.read_csv(run(root, "plain") / "curve.csv")
    assert (curve["loss"] > plain["loss"])[1:].all()


def test_only_teachers_that_it_learns_from_run() -> None:
    tiny = {"source": "timm", "model": "resnet10t", "weights": "random"}
    student = {"encoder": tiny, "pool": "all", "teachers": ["a"], "patches": {}}
    data = {
        "extraction": {"teachers": {"a": tiny, "b": tiny}},
        "encoder_distillation": {"students": {"s": student}},
    }
    assert encoder_jobs.live(Config.model_validate(data), "s") == ["a"]
    student["patches"] = {"teachers": ["b"]}
    with pytest.raises(ConfigError, match="does not learn from `b`"):
        encoder_jobs.live(Config.model_validate(data), "s")
