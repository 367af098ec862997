"""What reading tiles and cutting views of them costs a pre-training, against views that are ready.

    python benchmarks/pretraining.py [--method simclr] [--model vit_small_patch16_224] [--px 224]
                                     [--batch 256] [--steps 40] [--device auto] [--workers 0]
                                     [--slide FILE]

Draws a tiled JPEG slide (or takes FILE) and trains a network by a method: once as the stage does,
from the slide, and once on views that lie ready on the device, the same at every step, with the
same network, loss and optimiser. Prints tiles per second of both and their ratio, which on a GPU
should be 0.90 or more, and the share of a step for which no tiles were ready. On a CPU reading
competes with the network for the same cores, so that the share of the time outside forward and
backward is what counts there. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from extraction import draw, lay
from extraction_clocks import machine
from pydantic import TypeAdapter
from torch import Tensor

from pipeline.config.pretraining import AnyTeacher, PretrainedTeacher, methods
from pipeline.extraction.devices import choose_devices
from pipeline.pretraining import learner
from pipeline.pretraining.backbone import start
from pipeline.pretraining.learner import SelfSupervised
from pipeline.pretraining.stage import build_method
from pipeline.pretraining.views import make_views
from pipeline.runtime.cpu_budget import cpu_budget
from pipeline.tile_training.loader import Batch, Share, Tiles, batches
from pipeline.tile_training.processes import Processes
from pipeline.tile_training.sampling import Sampler
from pipeline.tile_training.slides import TiledSlide
from pipeline.tile_training.trainer import Pass, _Run

WARM_UP = 3


class Timed(SelfSupervised):
    """Adds up the seconds of forward and backward, without those of cutting views; `ready` are
    views to take in their place."""

    seconds = 0.0
    ready: list[Tensor] | None = None

    def backward(self, batch: Batch, now: Pass) -> dict[str, Tensor]:
        begun = time.perf_counter()
        with mock.patch.object(learner, "make_views", self._views):
            found = super().backward(batch, now)
        self.seconds += time.perf_counter() - begun
        return found

    def _views(self, *given: Any) -> list[Tensor]:
        if self.ready is not None:
            return self.ready
        begun = time.perf_counter()
        views = make_views(*given)
        self.seconds -= time.perf_counter() - begun
        return views


def main() -> None:
    """Measure both ways and print them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--method", default="simclr", choices=sorted(methods()))
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
        print(f"{options.method}, {options.model} at {options.px} px, batches of {options.batch}")
        slides = [TiledSlide(f"s{i}", f"c{i}", path, grid) for i in range(8)]
        ready = _measured(options, slides, folder, device, cores, ready=True)
        read = _measured(options, slides, folder, device, cores, ready=False)
    for label, found in (("views ready", ready), ("from slides", read)):
        print(
            f"{label:>12}: {found['rate']:8.1f} tiles/s, waited for tiles {found['waited']:5.1%}, "
            f"outside forward and backward {found['outside']:5.1%}"
        )
    print(f"ratio of rates: {read['rate'] / ready['rate']:.3f}")


def _measured(
    options: argparse.Namespace,
    slides: list[TiledSlide],
    folder: Path,
    device: torch.device,
    cores: int,
    ready: bool,
) -> dict[str, float]:
    torch.set_num_threads(max(1, cores - 1) if device.type == "cpu" else 1)
    readers = cores if device.type == "cuda" else min(1, cores - 1)
    encoder = {"source": "timm", "model": options.model, "weights": "random"}
    course = {"steps": options.steps + WARM_UP, "batch_size": options.batch}
    cfg: PretrainedTeacher = TypeAdapter(AnyTeacher).validate_python(
        {
            "method": options.method,
            "encoder": {**encoder, "input_px": options.px},
            "course": course,
        }
    )
    tokens = methods()[cfg.method].load().tokens
    several = cfg.arguments().get("small_crops", 0) > 0
    begun = start("benchmark", cfg.encoder, None, tokens=tokens, several=several)
    method = build_method(cfg, begun)
    method = method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    timed = Timed(method, "benchmark", cfg, begun.transform, lambda: iter(()))
    sampler = Sampler(tuple(len(s.grid.coords) for s in slides), cfg.course.tiles_per_visit, 0)
    share = Share(sampler, cfg.course.batch_size // cfg.course.tiles_per_visit)
    tiles = Tiles(slides, share, begun.transform)
    run = _Run(timed, cfg.course, folder / str(ready), "f", Processes(0, 1, device))
    ahead: Iterator[Batch]
    if ready:
        (batch,) = batches(tiles, [0], 0, device)
        ahead = iter(lambda: batch, None)
        generator = torch.Generator(device).manual_seed(0)
        counts = (method.large, method.small)
        timed.ready = make_views(batch.tiles, cfg.views, begun.transform, counts, generator)
    else:
        ahead = batches(tiles, range(options.steps + WARM_UP), readers, device)
    for _ in range(WARM_UP):
        run.step(ahead)
    _finish(device)
    timed.seconds = run.seconds = run.waited = 0.0
    since = time.perf_counter()
    for _ in range(options.steps):
        run.step(ahead)
    _finish(device)
    spent = time.perf_counter() - since
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
