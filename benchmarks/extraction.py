"""How fast tiles are read and encoded, against bare decoder, bare network and a plain loop.

    python benchmarks/extraction.py [--slide FILE] [--size 8192] [--slides 1] [--teachers NAME …]
                                    [--input-px 224] [--device auto] [--workers 0] [--tiles 2000]

Draws a tiled JPEG slide full of tissue-like texture at 0.25 µm/px (or takes FILE), lays tiles of
224 px at 0.5 µm/px over it, and measures in the same run: reading and preparing per core, the price
of three levels instead of one, one teacher end to end, and all teachers together. The plain loop is
what peers do: one `read_region` of OpenSlide a tile, Pillow's transform, and a second forward pass
for the inner levels. Teachers are names of the registry or of timm, with random weights, which cost
the same; by default five foundation models on a GPU, two small networks on a CPU. Where both run
in half precision, so does the plain loop. On a GPU rates are by the clock; on a CPU they are by
processor time shared among the threads, so that a busy machine distorts them less. A large GPU
wants `--size 32768 --tiles 6000 --slides 2`, or a run is over before it has begun. Prints tables;
nothing is asserted.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import openslide
import tifffile
import torch
from extraction_clocks import WaitingChannel, Work, machine, per_core, stopwatch, timed
from PIL import Image

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import registry
from pipeline.encoders.build import Encoder, build, encode
from pipeline.encoders.numerics import autocast
from pipeline.encoders.transforms import prepare
from pipeline.extraction.devices import choose_batch_size, choose_devices
from pipeline.extraction.engine import encoding, run
from pipeline.extraction.engine.messages import Settings, SlideToRead
from pipeline.extraction.engine.run import extract
from pipeline.runtime.cpu_budget import cpu_budget
from pipeline.slides.slide import open_slide
from pipeline.tile_reading.grid import Grid
from pipeline.tile_reading.reader import open_source

MPP, TARGET_MPP, TILE_PX = 0.25, 0.5, 224
CELL = 256  # side of the slide's own JPEG tiles
QUALITY = 85
LEVELS = ("low", "mid", "high")
FIVE = ("uni2_h", "virchow2", "gigapath", "h_optimus_1", "phikon_v2")
SMALL = ("vit_small_patch16_224", "resnet18")
SLIDE_TILES = 10_000  # a large slide, for slides per hour and megabytes a slide
READING = 400  # tiles of the comparison on one core
ROUNDS = 5  # every way is measured in turn, so often; the best counts
JPEG_SPACE = {tifffile.PHOTOMETRIC.RGB: 2, tifffile.PHOTOMETRIC.YCBCR: 3}  # libjpeg's numbers


def main() -> None:
    """Run all measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slide", type=Path, help="a slide; one is drawn without it")
    parser.add_argument("--size", type=int, default=8192, help="side of the drawn slide, pixels")
    parser.add_argument("--slides", type=int, default=1, help="how often it is encoded in a row")
    parser.add_argument("--teachers", nargs="+", help="names of the registry, or of timm")
    parser.add_argument("--input-px", type=int, default=TILE_PX, help="of timm's networks")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", action="store_true", help="the blocks of transformers")
    parser.add_argument("--workers", type=int, default=0, help="threads; 0: all that are allowed")
    parser.add_argument("--tiles", type=int, default=2000, help="at most so many tiles")
    options = parser.parse_args()
    workers = options.workers or cpu_budget()
    (device, *_) = choose_devices(options.device)
    with tempfile.TemporaryDirectory() as folder:
        path = options.slide or draw(Path(folder) / "slide.svs", options.size)
        grid = lay(path, options.tiles)
        print(machine(device, workers))
        print(f"{path.name}: {len(grid.coords)} tiles of {grid.side} px at level {grid.level}\n")
        reading(path, grid, options.input_px)
        encoders = [
            build(
                name,
                teacher(name, options.input_px),
                precision=options.precision,
                compiled=options.compile,
                device=device,
            )
            for name in options.teachers or (FIVE if device.type == "cuda" else SMALL)
        ]
        if device.type == "cuda":
            on_the_gpu(path, grid, encoders, workers)
        levels(encoders[0], grid.side)
        end_to_end([path] * options.slides, grid, encoders, workers, Path(folder))


def teacher(name: str, input_px: int) -> TeacherConfig:
    """A teacher with random weights."""
    if name in registry.models():
        return TeacherConfig(weights="random", acknowledge_licence=True)
    return TeacherConfig(source="timm", model=name, weights="random", input_px=input_px)


def draw(path: Path, size: int) -> Path:
    """A tiled JPEG TIFF with Aperio's description, full of two-coloured texture."""
    rng = np.random.default_rng(0)
    period = min(size, 4096)
    coarse = rng.random((period // 64, period // 64)).astype(np.float32)
    fine = rng.random((period // 6, period // 6)).astype(np.float32)
    mixed = sum(cv2.resize(field, (period, period)) for field in (coarse, fine)) / 2
    pink, violet = np.float32([236, 190, 214]), np.float32([104, 66, 142])
    weight = np.clip((mixed - 0.3) * 2.5, 0, 1)[..., None]
    patch = (pink * (1 - weight) + violet * weight).astype(np.uint8)
    repeats = -(-size // period)
    image = np.tile(patch, (repeats, repeats, 1))[:size, :size]
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(
            image,
            tile=(CELL, CELL),
            photometric="ycbcr",
            subsampling=(2, 2),
            compression="jpeg",
            compressionargs={"level": QUALITY},
            description=f"Aperio Image Library v1\n{size}x{size} |AppMag = 40|MPP = {MPP}",
            metadata=None,
        )
    return path


def lay(path: Path, limit: int) -> Grid:
    """Tiles side by side over the whole slide, read from level 0."""
    with open_slide(path) as slide:
        width, height = slide.dimensions
    side = round(TILE_PX * TARGET_MPP / MPP)
    xs, ys = np.meshgrid(np.arange(0, width - side, side), np.arange(0, height - side, side))
    coords = np.stack([xs.ravel(), ys.ravel()], axis=1).astype(np.int32)[:limit]
    return Grid(coords, 0, 1.0, side, "benchmark", {})


# --- reading --------------------------------------------------------------------------------------


def reading(path: Path, grid: Grid, input_px: int) -> None:
    """Tiles per second of one core's time, by each way of reading and preparing."""
    grid = dataclasses.replace(grid, coords=grid.coords[:READING])
    torch.set_num_threads(1)
    transform = build(
        "resnet10t",
        TeacherConfig(source="timm", model="resnet10t", weights="random", input_px=input_px),
    ).transform

    def ours(direct: bool, prepared: bool) -> int:
        source = open_source(path, grid, 1, direct)
        buffer = np.empty((32, grid.side, grid.side, 3), np.uint8)
        for start in range(0, len(grid.coords), 32):
            stop = min(start + 32, len(grid.coords))
            source.read(start, stop, buffer[: stop - start])
            if prepared:
                prepare(torch.from_numpy(buffer[: stop - start]), transform)
        source.close()
        return len(grid.coords)

    def plain() -> int:
        return sum(1 for _ in plain_tiles(path, grid, input_px, transform.mean, transform.std))

    def bare() -> int:
        """Decode the same compressed tiles and drop the pixels."""
        with tifffile.TiffFile(path) as file, path.open("rb") as data:
            page = file.pages[0]
            columns = -(-page.imagewidth // page.tilewidth)
            for cell in touched(grid, page.tilewidth, page.tilelength, columns):
                data.seek(page.dataoffsets[cell])
                imagecodecs.jpeg8_decode(
                    data.read(page.databytecounts[cell]),
                    tables=page.jpegtables,
                    colorspace=JPEG_SPACE[page.photometric],
                    outcolorspace=JPEG_SPACE[tifffile.PHOTOMETRIC.RGB],
                )
        return len(grid.coords)

    ways: dict[str, Callable[[], int]] = {
        "bare decoder, pixels dropped": bare,
        "direct, bytes for a GPU": lambda: ours(True, False),
        "direct, prepared": lambda: ours(True, True),
        "regions, bytes for a GPU": lambda: ours(False, False),
        "regions, prepared": lambda: ours(False, True),
        "plain loop, prepared": plain,
    }
    rates = dict.fromkeys(ways, 0.0)
    for _ in range(ROUNDS):
        for name, work in ways.items():
            rates[name] = max(rates[name], per_core(work))
    print("Reading on one core (tiles per second of its time):")
    for name, rate in rates.items():
        print(
            f"  {name:<30}{rate:9.0f}   {rate / rates['plain loop, prepared']:6.2f} x plain loop"
            f"   {rate / rates['bare decoder, pixels dropped']:5.0%} of the decoder"
        )
    print()


def touched(grid: Grid, width: int, height: int, columns: int) -> list[int]:
    """The compressed tiles below a grid, each once."""
    found: set[int] = set()
    for x, y in grid.coords.tolist():
        for row in range(y // height, -(-(y + grid.side) // height)):
            for column in range(x // width, -(-(x + grid.side) // width)):
                found.add(row * columns + column)
    return sorted(found)


def plain_tiles(
    path: Path, grid: Grid, px: int, mean: Sequence[float], std: Sequence[float]
) -> Iterator[torch.Tensor]:
    """One `read_region` and one Pillow transform a tile."""
    with openslide.OpenSlide(str(path)) as slide:
        for x, y in grid.coords.tolist():
            region = slide.read_region((x, y), grid.level, (grid.side, grid.side)).convert("RGB")
            values = np.asarray(region.resize((px, px), Image.Resampling.BICUBIC), np.float32) / 255
            yield torch.from_numpy((values - np.float32(mean)) / np.float32(std)).permute(2, 0, 1)


def on_the_gpu(path: Path, grid: Grid, encoders: Sequence[Encoder], workers: int) -> None:
    """Tiles per second by the clock: what both decoders bring, and how fast tiles are prepared."""
    device = encoders[0].device
    batch = 256

    def read(place: torch.device | None) -> None:
        source = open_source(path, grid, workers, True, place)
        shape = (batch, grid.side, grid.side, 3)
        buffer = torch.empty(shape, dtype=torch.uint8, device=place)
        for start in range(0, len(grid.coords), batch):
            stop = min(start + batch, len(grid.coords))
            part = buffer[: stop - start]
            source.read(start, stop, part if source.device else part.numpy())
        assert source.device == place, "the GPU's decoder does not agree with the CPU's"
        source.close()

    tiles = torch.randint(
        0, 256, (batch, grid.side, grid.side, 3), dtype=torch.uint8, device=device
    )
    print("Getting tiles to the network (tiles per second by the clock):")
    for name, place in ((f"decoded by {workers} threads", None), ("decoded by the GPU", device)):
        seconds = min(timed(lambda p=place: read(p), device) for _ in range(3))
        print(f"  {name:<30}{len(grid.coords) / seconds:9.0f}")
    for encoder in encoders:
        seconds = min(
            timed(lambda e=encoder: prepare(tiles, e.transform), device) for _ in range(5)
        )
        print(f"  {'prepared for ' + encoder.name:<30}{batch / seconds:9.0f}")
    print()


# --- encoding -------------------------------------------------------------------------------------


def levels(encoder: Encoder, side: int) -> None:
    """The price of three levels instead of one."""
    batch = 16 if encoder.device.type == "cpu" else 128
    tiles = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, device=encoder.device)
    kinds = {"three levels": LEVELS, "one level": ("high",)}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(2 * ROUNDS):
        for name, wanted in kinds.items():
            some = Encoder(**{**vars(encoder), "levels": wanted})
            seconds[name].append(timed(lambda e=some: encode(e, tiles), encoder.device))
    best = {name: min(times) for name, times in seconds.items()}
    ratio = best["three levels"] / best["one level"]
    print(
        f"Three levels of {encoder.name} cost {ratio - 1:+.1%} against one (best of {2 * ROUNDS})\n"
    )


def end_to_end(
    paths: Sequence[Path], grid: Grid, encoders: Sequence[Encoder], workers: int, folder: Path
) -> None:
    """Each teacher alone and all together, against the ceiling and the plain loop."""
    device = encoders[0].device
    if device.type == "cpu":
        torch.set_num_threads(workers)
    print(
        f"{'end to end':<24}{'tiles/s':>9}{'ceiling':>9}{'of it':>7}{'busy':>7}{'waiting':>9}"
        f"{'plain':>8}{'x plain':>9}{'MB/slide':>10}{'slides/h':>10}   (slides of {SLIDE_TILES:,})"
    )
    ceilings = {}
    for encoder in encoders:
        size = choose_batch_size("auto", [encoder], grid.side, device)
        ceilings[encoder.name] = ceiling(encoder, size, workers)
        loop = plain_loop(paths[0], grid, encoder, workers)
        limit = ceilings[encoder.name]
        row(encoder.name, paths, grid, [encoder], limit, loop, workers, size, folder)
    if len(encoders) > 1:
        size = choose_batch_size("auto", encoders, grid.side, device)
        together = 1 / sum(1 / rate for rate in ceilings.values())
        row("all together", paths, grid, encoders, together, None, workers, size, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    text = f"\nPeak memory of the process: {peak:.1f} GB"
    if device.type == "cuda":
        text += f", of the GPU: {torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB"
    print(text)


def row(
    name: str,
    paths: Sequence[Path],
    grid: Grid,
    encoders: Sequence[Encoder],
    limit: float,
    loop: float | None,
    workers: int,
    size: int,
    folder: Path,
) -> None:
    """One line of the table."""
    device = encoders[0].device
    jobs = []
    for i, path in enumerate(paths):
        outputs = {e.name: folder / f"{e.name}_{i}.h5" for e in encoders}
        jobs.append(
            SlideToRead(f"slide {i}", path, grid, outputs, dict.fromkeys(outputs, "benchmark"))
        )
    tiles = len(paths) * len(grid.coords)
    waits: list[WaitingChannel] = []
    work = Work(device)
    encoding.launch = work.launch  # type: ignore[assignment]
    run.Channel = lambda n, stop: waits.append(WaitingChannel(n, stop)) or waits[-1]  # type: ignore[assignment,misc,return-value,func-returns-value]
    clock, begin = stopwatch(device, workers), time.perf_counter()
    records = extract(jobs, {device: list(encoders)}, Settings(size, workers), name)
    rate = tiles / clock()
    wall = time.perf_counter() - begin
    assert all(r.status == "ok" for r in records.values()), records
    # The device's loop reads the first channel.
    waiting = waits[0].waited / wall
    written = [output for job in jobs for output in job.outputs.values()]
    megabytes = sum(output.stat().st_size for output in written) / tiles / 1e6
    plain = f"{loop:8.1f}{rate / loop:9.2f}" if loop else f"{'-':>8}{'-':>9}"
    print(
        f"{name:<24}{rate:9.1f}{limit:9.1f}{rate / limit:7.0%}{work.seconds() / wall:7.0%}"
        f"{waiting:9.0%}{plain}{megabytes * SLIDE_TILES:10.1f}{rate * 3600 / SLIDE_TILES:10.2f}"
    )


def ceiling(encoder: Encoder, size: int, workers: int) -> float:
    """Tiles per second of the network on ready tensors (one level, nothing else)."""
    crop = encoder.transform.crop
    images = torch.randn(size, 3, crop, crop, device=encoder.device)
    if encoder.taps.prefix is None:
        images = images.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward() -> None:
        with autocast(encoder.precision, encoder.device):
            encoder.module(images)

    forward()
    return size / min(timed(forward, encoder.device, workers) for _ in range(5))


def plain_loop(path: Path, grid: Grid, encoder: Encoder, workers: int, limit: int = 256) -> float:
    """Tiles per second of the loop that peers use, with two forward passes."""
    few = Grid(grid.coords[:limit], grid.level, grid.downsample, grid.side, "", {})
    transform = encoder.transform
    clock = stopwatch(encoder.device, workers)
    batch: list[torch.Tensor] = []
    tiles = plain_tiles(path, few, transform.crop, transform.mean, transform.std)
    for count, tile in enumerate(tiles, 1):
        batch.append(tile)
        if len(batch) == 32 or count == len(few.coords):
            images = torch.stack(batch).to(encoder.device)
            with torch.inference_mode(), autocast(encoder.precision, encoder.device):
                encoder.module.forward_intermediates(images, intermediates_only=True)
                encoder.module(images).cpu()
            batch = []
    return len(few.coords) / clock()


if __name__ == "__main__":
    main()
