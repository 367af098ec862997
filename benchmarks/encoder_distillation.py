"""What reading and augmenting tiles cost a student's training, against tiles that are ready.

    python benchmarks/encoder_distillation.py [--model vit_small_patch16_224] [--px 224]
                                              [--batch 256] [--steps 40] [--device auto]
                                              [--workers 0] [--slide FILE]

Draws a tiled JPEG slide (or takes FILE) and trains a student of two teachers of random features:
once as the stage does, from the slide, and once on one batch that lies ready on the device, with
the same network, losses and optimiser and without augmentation. Prints tiles per second of both and
their ratio, which on a GPU should be 0.90 or more, and the share of a step for which no tiles were
ready. On a CPU reading competes with the network for the same cores, so that the share of the time
outside forward and backward is what counts: it should be 15 % or less. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from extraction import draw, lay
from extraction_clocks import machine

from pipeline.config.encoder_distillation import EncoderStudent
from pipeline.config.extraction import TeacherConfig
from pipeline.config.tile_training import AugmentationConfig
from pipeline.encoder_distillation import learner
from pipeline.encoder_distillation.learner import Distillation
from pipeline.encoder_distillation.standardise import Standard
from pipeline.encoder_distillation.student import Student, start
from pipeline.encoders.taps import find_taps
from pipeline.extraction.devices import choose_devices
from pipeline.runtime.cpu_budget import cpu_budget
from pipeline.tile_training.augment import augment
from pipeline.tile_training.loader import Batch, Share, Tiles, batches
from pipeline.tile_training.processes import Processes
from pipeline.tile_training.sampling import Sampler
from pipeline.tile_training.slides import TiledSlide
from pipeline.tile_training.trainer import Pass, _Run

TEACHERS = {"a": 1536, "b": 1280}
WARM_UP = 3
NO_AUGMENTATION = AugmentationConfig(flips=False, stain=0, hue=0, brightness=0, blur=0)


class Answers:
    """Random features, made where tiles are read."""

    def __call__(self, slide: int, places: np.ndarray) -> dict[str, torch.Tensor]:
        return {name: torch.zeros(len(places), dim).half() for name, dim in TEACHERS.items()}


class Timed(Distillation):
    """Adds up the seconds of forward and backward, without those of augmentation."""

    seconds = 0.0

    def backward(self, batch: Batch, now: Pass) -> dict[str, torch.Tensor]:
        begun = time.perf_counter()
        with mock.patch.object(learner, "augment", self._augment):
            found = super().backward(batch, now)
        self.seconds += time.perf_counter() - begun
        return found

    def _augment(
        self, tiles: torch.Tensor, cfg: AugmentationConfig, generator: torch.Generator
    ) -> torch.Tensor:
        begun = time.perf_counter()
        images = augment(tiles, cfg, generator)
        self.seconds -= time.perf_counter() - begun
        return images


def main() -> None:
    """Measure both ways and print them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=0, help="cores; 0: all that are allowed")
    parser.add_argument("--size", type=int, default=8192, help="side of the drawn slide, pixels")
    parser.add_argument("--slide", type=Path)
    options = parser.parse_args()
    cores = options.workers or cpu_budget()
    (device, *_) = choose_devices(options.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = options.slide or draw(folder / "slide.svs", options.size)
        grid = lay(path, 10_000)
        print(machine(device, cores))
        print(f"{options.model} at {options.px} px, batches of {options.batch}")
        slides = [TiledSlide(f"s{i}", f"c{i}", path, grid) for i in range(8)]
        ready = _run(options, slides, folder, device, cores, ready=True)
        read = _run(options, slides, folder, device, cores, ready=False)
    for label, found in (("tiles ready", ready), ("from slides", read)):
        print(
            f"{label:>12}: {found['rate']:8.1f} tiles/s, waited for tiles {found['waited']:5.1%}, "
            f"outside forward and backward {found['outside']:5.1%}"
        )
    print(f"ratio of rates: {read['rate'] / ready['rate']:.3f}")


def _run(
    options: argparse.Namespace,
    slides: list[TiledSlide],
    folder: Path,
    device: torch.device,
    cores: int,
    ready: bool,
) -> dict[str, float]:
    torch.set_num_threads(max(1, cores - 1))
    readers = cores if device.type == "cuda" else min(1, cores - 1)
    cfg = EncoderStudent.model_validate(
        {
            "encoder": TeacherConfig(
                source="timm", model=options.model, weights="random", input_px=options.px
            ).model_dump(),
            "course": {"steps": options.steps + WARM_UP, "batch_size": options.batch},
            "augmentation": (NO_AUGMENTATION if ready else AugmentationConfig()).model_dump(),
        }
    )
    module, plan = start("benchmark", cfg, None)
    taps = find_taps(module, plan.pooling)
    whole = Student(module, taps, TEACHERS, False, (), cfg.head_width, options.px)
    whole = whole.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    standards = {n: Standard(torch.zeros(d), torch.eye(d), 1.0) for n, d in TEACHERS.items()}
    timed = Timed(whole, cfg, plan.transform, standards, lambda: iter(()))
    counts = tuple(len(slide.grid.coords) for slide in slides)
    sampler = Sampler(counts, cfg.course.tiles_per_visit, 0)
    share = Share(sampler, cfg.course.batch_size // cfg.course.tiles_per_visit)
    tiles = Tiles(slides, share, plan.transform, Answers())
    run = _Run(timed, cfg.course, folder / str(ready), "f", Processes(0, 1, device))
    ahead: Iterator[Batch]
    if ready:
        (batch,) = batches(tiles, [0], 0, device)
        ahead = iter(lambda: batch, None)
    else:
        ahead = batches(tiles, range(options.steps + WARM_UP), readers, device)
    for _ in range(WARM_UP):
        run.step(ahead)
    _finish(device)
    timed.seconds = run.seconds = run.waited = 0.0
    begun = time.perf_counter()
    for _ in range(options.steps):
        run.step(ahead)
    _finish(device)
    spent = time.perf_counter() - begun
    return {
        "rate": options.steps * options.batch / spent,
        "waited": run.waited / spent,
        "outside": 1 - timed.seconds / spent,
    }


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
