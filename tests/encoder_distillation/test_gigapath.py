"""`recipe: gigapath`: two passes give the plain gradient in little memory; a slide is a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from pipeline.config.encoder_distillation import EncoderStudent, SlideViewTold
from pipeline.config.extraction import TeacherConfig
from pipeline.config.whole import Config
from pipeline.encoder_distillation.gigapath import in_order
from pipeline.encoder_distillation.slide_view import apart, make_view, off_grid
from pipeline.encoder_distillation.two_pass import drawn, two_pass
from pipeline.errors import ConfigError
from pipeline.plan import encoder_jobs
from pipeline.tile_reading.grid import Grid
from pipeline.tile_training.loader import Batch
from pipeline.tile_training.slides import TiledSlide
from tests.encoder_distillation.made import CFG, job_of, results_folder, run

CPU = torch.device("cpu")
ATTRIBUTES = {"overlap": 0, "patch_size_level0": 32}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4)
    ).train()


def bag_loss(features: Tensor) -> Tensor:
    """Couples all tiles: attention over them."""
    return (features.softmax(0) * features).sum(0).square().sum()


class Alive:
    """How many parts' graphs are alive at once."""

    now = most = 0

    def __init__(self) -> None:
        Alive.now += 1
        Alive.most = max(Alive.most, Alive.now)

    def __del__(self) -> None:
        Alive.now -= 1


class Counted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.alive = Alive()
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


def parts_of(module: nn.Module, tiles: Tensor, each: int) -> Any:
    def part(number: int) -> tuple[Tensor, Tensor]:
        some = tiles[number * each : (number + 1) * each]
        with drawn(7 + number, CPU):
            found = module(some)
            if torch.is_grad_enabled():
                found = Counted.apply(found)
        return found, 0.1 * found.square().mean()

    return part


def test_the_gradient_in_two_passes_is_the_plain_one() -> None:
    tiles = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    plain, ours = network(), network()
    part = parts_of(plain, tiles, 16)  # the last part is smaller
    found = [part(i) for i in range(4)]
    loss = bag_loss(torch.cat([one for one, _ in found])) + torch.stack([o for _, o in found]).sum()
    loss.backward()
    said = two_pass(ours, parts_of(ours, tiles, 16), 4, bag_loss)
    assert float(said) == pytest.approx(float(loss.detach()), rel=1e-5)
    for (name, a), b in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        assert float(a.grad.norm()) > 0 or "0.bias" in name
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-6)
    for a, b in zip(plain.buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(b, a)  # running means have seen each tile once


def test_memory_is_that_of_one_part_however_many_tiles_a_slide_has() -> None:
    module, tiles = network(), torch.randn(10_000, 6)
    Alive.now = Alive.most = 0
    two_pass(module, parts_of(module, tiles, 64), 157, bag_loss)
    assert Alive.most <= 2 and Alive.now == 0


def slide(count: int = 12) -> TiledSlide:
    x, y = np.meshgrid(np.arange(4), np.arange(-(-count // 4)))
    coords = (np.stack([x.ravel(), y.ravel()], 1)[:count] * 32).astype(np.int32)
    return TiledSlide("s", "c", Path("s.svs"), Grid(coords, 0, 1.0, 32, "f", dict(ATTRIBUTES)))


@pytest.mark.parametrize("name", ["gigapath_flash_slide", "hipt_vit4k", "mean_pool", "gated_abmil"])
def test_views_have_a_gradient_for_every_tile_and_agree_with_themselves(name: str) -> None:
    settings = None if "slide" not in name and "hipt" not in name else TeacherConfig(
        source="slide", model=name, weights="random"
    )  # fmt: skip
    told = SlideViewTold(name=name, reads="a", settings=settings, precision="fp32")
    see = make_view(told, 8, None, CPU)
    one, places = slide(), np.arange(12)
    wanted = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    said = (wanted + 0.5 * torch.randn(12, 8)).requires_grad_(True)
    assert float(apart(see(wanted, one, places), see(wanted, one, places))) == pytest.approx(
        0, abs=1e-6
    )
    loss = apart(see(said, one, places), see(wanted, one, places))
    (gradient,) = torch.autograd.grad(loss, said)
    assert float(loss.detach()) > 1e-5 and bool((gradient.abs().sum(1) > 0).all())


def test_slides_off_the_grid_are_named() -> None:
    told = SlideViewTold(
        name="x", reads="a", settings=TeacherConfig(source="slide", model="gigapath_slide")
    )
    assert off_grid(told, slide()) == ""
    crooked = slide()
    crooked.grid.coords[3] += 11
    assert "grid" in off_grid(told, crooked)
    crooked.grid.attributes["overlap"] = 8
    assert "overlap" in off_grid(told, crooked)
    assert off_grid(SlideViewTold(name="mean_pool", reads="a"), crooked) == ""


def test_a_slides_tiles_come_in_their_order_and_once() -> None:
    slides, places = torch.tensor([1, 0, 1, 1, 1]), torch.tensor([5, 9, 2, 5, 3])
    batch = Batch(torch.arange(5)[:, None], slides, places, answers={"a": places[:, None]})
    found = in_order(batch, 1)
    assert found.places.tolist() == [2, 3, 5] and found.answers["a"][:, 0].tolist() == [2, 3, 5]
    assert found.tiles[:, 0].tolist()[:2] == [2, 4]


def student(**slide_loss: Any) -> EncoderStudent:
    data = CFG.model_dump() | {
        "recipe": "gigapath",
        "slide": {"encoder": "mean_pool", **slide_loss},
    }
    data["course"] |= {"batch_size": 12, "tiles_per_visit": 6}
    return EncoderStudent.model_validate(data)


VIEW = SlideViewTold(name="mean_pool", reads="a")


def test_the_stage_judges_slides_as_wholes(tmp_path: Path) -> None:
    root = results_folder(tmp_path)
    folder = run(root, "g", job_of(student(tile_batch=4), slide=VIEW))
    curve = pd.read_csv(folder / "curve.csv")
    assert curve["loss_slide"][1:].gt(0).all() and curve["slide_cosine"].between(-1, 1).all()
    mean = curve[["explained_a", "explained_b"]].mean(axis=1)
    wanted = (0.5 * mean + 0.5 * curve["slide_cosine"]).tolist()
    assert curve["score"].tolist() == pytest.approx(wanted, rel=1e-4)
    assert json.loads((folder / "facts.json").read_text())["left_out"] == []


def test_beta_of_one_leaves_the_tiles_alone(tmp_path: Path) -> None:
    root = results_folder(tmp_path)
    folder = run(root, "tiles", job_of(student(beta=1.0), slide=VIEW))
    curve = pd.read_csv(folder / "curve.csv")
    losses = curve[["loss_a", "loss_b"]]
    assert curve["score"].tolist() == pytest.approx(
        curve[["explained_a", "explained_b"]].mean(axis=1).tolist(), rel=1e-4
    )
    assert (curve["loss"] < losses.max(axis=1))[1:].all()


def config(slide_encoder: str, **student: Any) -> Config:
    tiny = {"source": "timm", "model": "resnet10t", "weights": "random"}
    teachers = {"a": tiny, "whole": {"source": "slide", "model": "hipt_vit4k", "input": "a"}}
    learner = {
        "encoder": tiny,
        "pool": "all",
        "recipe": "gigapath",
        "slide": {"encoder": slide_encoder},
    }
    return Config.model_validate(
        {
            "extraction": {"teachers": teachers},
            "encoder_distillation": {"students": {"g": learner | student}},
        }
    )


def test_what_a_view_reads_must_be_learned() -> None:
    told = encoder_jobs.slide_view(config("whole"), "g")
    assert told is not None and told.reads == "a" and told.settings is not None
    pooled = encoder_jobs.slide_view(config("abmil"), "g")
    assert pooled is not None and pooled.reads == "a" and pooled.settings is None
    with pytest.raises(ConfigError, match="neither a teacher with `source: slide`"):
        encoder_jobs.slide_view(config("hole"), "g")
    with pytest.raises(ValueError, match="gigapath needs"):
        config("whole", slide=None)
