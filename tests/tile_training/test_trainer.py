"""The trainer: broken off and gone on is as never broken off; parts add up; averages follow."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.config.tile_training import CourseConfig
from pipeline.errors import UserError
from pipeline.tile_training.loader import Share, Tiles, batches
from pipeline.tile_training.processes import Processes
from pipeline.tile_training.sampling import Sampler
from pipeline.tile_training.slides import TiledSlide
from pipeline.tile_training.state import FILE, load_state
from pipeline.tile_training.trainer import Fitted, _Run, fit, follow, learning_rate
from tests.tile_training.conftest import PLAIN, MeanColour

HERE = Processes(0, 1, torch.device("cpu"))
COURSE = CourseConfig(
    steps=12, batch_size=8, tiles_per_visit=2, validate_every=4, learning_rate=0.01, ema=0.9
)


def _tiles(slides: list[TiledSlide], course: CourseConfig = COURSE) -> Tiles:
    counts = tuple(len(s.grid.coords) for s in slides)
    sampler = Sampler(counts, course.tiles_per_visit, course.seed)
    visits = course.batch_size // course.accumulate // course.tiles_per_visit
    return Tiles(slides, Share(sampler, visits), PLAIN)


def _fit(
    slides: list[TiledSlide],
    folder: Path,
    stop_after: int | None = None,
    learner: MeanColour | None = None,
    course: CourseConfig = COURSE,
) -> Fitted:
    tiles = _tiles(slides, course)
    return fit(
        learner or MeanColour(), tiles, course, folder,
        fingerprint="f", here=HERE, workers=0, stop_after=stop_after,
    )  # fmt: skip


def test_it_learns(slides: list[TiledSlide], tmp_path: Path) -> None:
    course = COURSE.model_copy(update={"steps": 60, "validate_every": 20})
    fitted = _fit(slides, tmp_path, course=course)
    losses = [row["loss"] for row in fitted.rows]
    assert losses[-1] < 0.5 * losses[0]
    assert fitted.best_step > 0 and fitted.rows[-1]["step"] == 60


@pytest.mark.parametrize("broken", [1, 4, 6, 11])
def test_broken_off_anywhere_it_goes_on_to_the_last_bit(
    slides: list[TiledSlide], tmp_path: Path, broken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second start has a learner of other weights: all that counts is in the state."""
    whole = _fit(slides, tmp_path / "whole")
    monkeypatch.setattr("pipeline.tile_training.trainer.SAVE_SECONDS", -1.0)
    _fit(slides, tmp_path / "parts", stop_after=broken)
    assert load_state(tmp_path / "parts", "f", HERE.device).step == broken  # type: ignore[union-attr]
    learner = MeanColour(seed=99)
    parts = _fit(slides, tmp_path / "parts", learner=learner)
    assert parts.rows == whole.rows
    assert learner.seen == COURSE.steps
    assert all(torch.equal(parts.module[k], v) for k, v in whole.module.items())


def test_a_state_of_another_training_is_left_aside(
    slides: list[TiledSlide], tmp_path: Path
) -> None:
    _fit(slides, tmp_path)
    assert load_state(tmp_path, "g", HERE.device) is None
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:100])
    assert load_state(tmp_path, "f", HERE.device) is None


def test_parts_of_a_batch_add_up_to_the_whole(slides: list[TiledSlide], tmp_path: Path) -> None:
    """Without batch norm and draws, whose statistics are of a part."""

    class Plain(MeanColour):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.module = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))

        def backward(self, batch, now):  # type: ignore[no-untyped-def]
            images = batch.tiles.permute(0, 3, 1, 2).float() / 255
            loss = (self.module(images) - images.mean((2, 3))).square().mean()
            (loss * now.share).backward()
            return {"loss": loss}

    fitted = [
        _fit(slides, tmp_path / str(n), learner=Plain(),
             course=COURSE.model_copy(update={"accumulate": n}))
        for n in (1, 4)
    ]  # fmt: skip
    for key, value in fitted[0].module.items():
        torch.testing.assert_close(fitted[1].module[key], value, atol=1e-6, rtol=1e-4)


def test_a_loss_that_is_not_finite_ends_it(slides: list[TiledSlide], tmp_path: Path) -> None:
    course = COURSE.model_copy(update={"learning_rate": 1e30, "clip": 0.0})
    with pytest.raises(UserError, match="left the finite numbers"):
        _fit(slides, tmp_path, course=course)


def test_it_stops_when_validation_gets_no_better(slides: list[TiledSlide], tmp_path: Path) -> None:
    class Stuck(MeanColour):
        def validate(self, module: nn.Module) -> dict[str, float]:
            return {"score": 1.0}

    course = COURSE.model_copy(update={"steps": 400, "patience": 2})
    fitted = _fit(slides, tmp_path, learner=Stuck(), course=course)
    assert (fitted.steps, fitted.best_step) == (12, 4)


def test_the_rate_rises_then_falls() -> None:
    course = CourseConfig(steps=100, warm_up=0.1, learning_rate=1.0, minimum_learning_rate=0.1)
    rates = [learning_rate(step, course) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    assert rates[55] == pytest.approx(0.55, abs=0.01) and rates[-1] == pytest.approx(0.1, abs=0.01)


def test_a_steady_part_keeps_its_rate_once_it_has_risen(
    slides: list[TiledSlide], tmp_path: Path
) -> None:
    """SimSiam's predictor. Rates are those of the first parameter of either kind at each step."""
    seen: list[dict[bool, float]] = []

    class Steady(MeanColour):
        def __init__(self) -> None:
            super().__init__()
            self.module.steady = (next(iter(dict(self.module.named_parameters()))),)

        def stepped(self, step: int) -> None:
            super().stepped(step)
            seen.append({g["steady"]: g["lr"] for g in run.optimiser.param_groups if g["params"]})

    learner = Steady()
    course = COURSE.model_copy(update={"warm_up": 0.25})
    run = _Run(learner, course, tmp_path, "f", HERE)
    ahead = batches(_tiles(slides, course), range(course.steps), 0, HERE.device)
    for _ in range(course.steps):
        run.step(ahead)
    assert [rates[False] for rates in seen] == [learning_rate(s, course) for s in range(12)]
    assert [rates[True] for rates in seen[:3]] == [rates[False] for rates in seen[:3]]
    assert {rates[True] for rates in seen[3:]} == {course.learning_rate}
    assert seen[-1][False] < 0.1 * course.learning_rate


def test_averages_move_towards_the_module() -> None:
    mean, module = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    nn.init.constant_(module.weight, 3.0)
    module.num_batches_tracked += 5
    follow(mean, module, 0.75)
    assert torch.allclose(mean.weight, torch.full((2,), 1.5))
    assert int(mean.num_batches_tracked) == 5


@pytest.mark.slow
def test_two_processes_learn_what_one_does_with_both_halves(
    slides: list[TiledSlide], tmp_path: Path
) -> None:
    """`torchrun` on the CPU: gradients are averaged, files are the first one's."""
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent("""
        import sys, torch
        from pathlib import Path
        from pipeline.tile_training.processes import processes
        from torch import nn
        torch.manual_seed(0)
        module = nn.Linear(4, 2)
        data = torch.arange(32.0).reshape(8, 4) / 32
        with processes("cpu") as here:
            mine = data[here.rank * 8 // here.world : (here.rank + 1) * 8 // here.world]
            module(mine).square().mean().backward()
            here.average_gradients(module)
            if here.first:
                torch.save([p.grad for p in module.parameters()], sys.argv[1])
        """)
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    for world in (1, 2):
        run = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
        command = [sys.executable, *run, str(script), str(tmp_path / f"{world}.pt")]
        subprocess.run(command, env=environment, check=True, timeout=120)
    alone, both = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    for one, two in zip(alone, both, strict=True):
        torch.testing.assert_close(one, two)
    assert math.isfinite(float(alone[0].sum()))
