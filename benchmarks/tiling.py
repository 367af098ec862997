"""How fast, and in how much memory, a large slide is tiled.

    python benchmarks/tiling.py [--size 40960 40960] [--slide FILE] [--keep FOLDER]

Draws a pyramidal JPEG slide full of tissue at 0.25 µm/px (the cohort generator's tissue, mirrored
and repeated), tiles it, and does the same job the plain way in the same run: a `read_region` per
tile, and Python loops over a mask. Prints a table and the ratios. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt

from pipeline.cohort.synthetic import embedded, painting
from pipeline.config.cohort import SyntheticConfig
from pipeline.config.tiling import TilingConfig
from pipeline.contracts.ledger import Record
from pipeline.slides import artefacts
from pipeline.slides.base import Slide
from pipeline.slides.mpp import find_scale
from pipeline.slides.slide import open_slide
from pipeline.tiling import examine as examine_module
from pipeline.tiling import write as write_module
from pipeline.tiling.examine import examine
from pipeline.tiling.write import Files, write

MPP = 0.25
TILE = 256
FIELD = 2048  # pixels of drawn tissue; mirrored to a period of twice that
PROCESS = """
import sys
from pathlib import Path
from pipeline.config.tiling import TilingConfig
from pipeline.tiling.stage import run_slide
slide, folder = map(Path, sys.argv[1:3])
record = run_slide(cfg=TilingConfig(), versions="", slide=slide, out_dir=folder)
assert record.status == "ok", record
status = Path("/proc/self/status").read_text()
print(status.split("VmHWM:")[1].split()[0])
"""


def field() -> npt.NDArray[np.uint8]:
    """A seamless picture of tissue, uint8 (2 * FIELD, 2 * FIELD, 3)."""
    facts = dict(embedded.slides(SyntheticConfig())[0].facts)
    facts |= {"width": 3 * FIELD, "height": 3 * FIELD, "mpp": MPP, "pen": ""}
    image = painting.paint(painting.Picture(**facts))
    # The square with the most stain in it: far from the outline.
    scale = 32
    small = cv2.resize(
        image, (3 * FIELD // scale, 3 * FIELD // scale), interpolation=cv2.INTER_AREA
    )
    stained = (cv2.cvtColor(small, cv2.COLOR_RGB2HSV)[..., 1] > 20).astype(np.float32)
    side = FIELD // scale
    sums = cv2.blur(stained, (side, side), anchor=(0, 0))[: 2 * side, : 2 * side]
    y, x = (int(v) * scale for v in np.unravel_index(int(np.argmax(sums)), sums.shape))
    part = image[y : y + FIELD, x : x + FIELD]
    rows = np.concatenate([part, part[:, ::-1]], axis=1)
    return np.ascontiguousarray(np.concatenate([rows, rows[::-1]], axis=0))


def make_slide(path: Path, width: int, height: int) -> None:
    """Write an Aperio-like BigTIFF with levels of 1, 4 and 16, its tissue an ellipse on glass.

    The tissue repeats, and so do its tiles: each different one is stored once, and the tables of
    all levels point at it. The file is small; every read decodes what it would of a large one.
    """
    pattern = field()
    columns, rows = width // TILE, height // TILE
    x = ((np.arange(columns) + 0.5) / columns - 0.5)[None, :]
    y = ((np.arange(rows) + 0.5) / rows - 0.5)[:, None]
    inside = np.hypot(x, y) < 0.53 + 0.02 * np.sin(5 * np.arctan2(y, x))
    with path.open("wb") as file:
        file.write(b"II" + struct.pack("<HHHQ", 43, 8, 0, 0))
        link = 8
        for factor in (1, 4, 16):
            size = (1 / factor, 1 / factor)
            small = cv2.resize(pattern, None, fx=size[0], fy=size[1], interpolation=cv2.INTER_AREA)
            blocks = cv2.resize(
                inside.astype(np.uint8),
                (math.ceil(columns / factor), math.ceil(rows / factor)),
                interpolation=cv2.INTER_NEAREST,
            )
            places = _write_tiles(file, small, blocks)
            shape = (columns * TILE // factor, rows * TILE // factor)
            link = _write_directory(file, link, shape, places, (width, height))


def _write_tiles(
    file: BinaryIO, pattern: npt.NDArray[np.uint8], inside: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint64]:
    """Write a level's different tiles; return where each of its tiles is: (n, 2) offset, length."""
    glass = np.full((TILE, TILE, 3), (242, 240, 243), np.uint8)
    period = max(1, len(pattern) // TILE)
    known: dict[tuple[int, int], tuple[int, int]] = {}
    places = []
    for row, column in np.ndindex(*inside.shape):
        key = (row % period, column % period) if inside[row, column] else (-1, -1)
        if key not in known:
            at = (key[0] * TILE, key[1] * TILE)
            tile = pattern[at[0] : at[0] + TILE, at[1] : at[1] + TILE]
            tile = np.ascontiguousarray(tile) if inside[row, column] else glass
            data = imagecodecs.jpeg_encode(
                tile, level=80, colorspace="rgb", outcolorspace="ycbcr", subsampling=(2, 2)
            )
            known[key] = (file.tell(), len(data))
            file.write(data)
        places.append(known[key])
    return np.array(places, np.uint64)


def _write_directory(
    file: BinaryIO,
    link: int,
    shape: tuple[int, int],
    places: npt.NDArray[np.uint64],
    whole: tuple[int, int],
) -> int:
    """Write a level's directory and chain it in; the place of its own link to the next."""
    text = f"Aperio Image Library v11.2.1 \n{whole[0]}x{whole[1]} (256x256) JPEG/RGB Q=80"
    text += f"|AppMag = 40|MPP = {MPP}\0"
    offsets, counts, words = file.tell(), 0, 0
    file.write(places[:, 0].tobytes())
    counts = file.tell()
    file.write(places[:, 1].tobytes())
    words = file.tell()
    file.write(text.encode())
    entries = [
        (256, 4, 1, shape[0]),
        (257, 4, 1, shape[1]),
        (258, 3, 3, 8 | 8 << 16 | 8 << 32),
        (259, 3, 1, 7),
        (262, 3, 1, 6),
        (270, 2, len(text), words),
        (277, 3, 1, 3),
        (322, 3, 1, TILE),
        (323, 3, 1, TILE),
        (324, 16, len(places), offsets),
        (325, 16, len(places), counts),
        (530, 3, 2, 2 | 2 << 16),
    ]
    here = file.tell()
    file.write(struct.pack("<Q", len(entries)))
    file.write(b"".join(struct.pack("<HHQQ", *entry) for entry in entries) + bytes(8))
    end = file.tell()
    file.seek(link)
    file.write(struct.pack("<Q", here))
    file.seek(end)
    return end - 8


class Clock:
    """Adds up the time that functions take, by label; a nested one's counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._thread = threading.local()

    @contextlib.contextmanager
    def watching(self, functions: Iterable[tuple[Any, str, str]]) -> Iterator[None]:
        """Watch (owner, name, label) until the block ends."""
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in functions]
        for owner, name, label in functions:
            setattr(owner, name, self._timed(getattr(owner, name), label))
        try:
            yield
        finally:
            for owner, name, function in before:
                setattr(owner, name, function)

    def _timed(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def timed(*args: Any, **keys: Any) -> Any:
            inner = self._thread.__dict__.setdefault("inner", [])
            inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **keys)
            finally:
                spent = time.perf_counter() - start
                self.seconds[label] = self.seconds.get(label, 0.0) + spent - inner.pop()
                if inner:
                    inner[-1] += spent

        return timed


READING = "(decoding, in other threads)"
WATCHED = [
    (Slide, "read_region", READING),
    (examine_module, "survey", "survey: waiting, focus, shrinking"),
    (artefacts, "find_pen", "pen, blur"),
    (artefacts, "find_blur", "pen, blur"),
    (examine_module, "segment", "segmentation"),
    (examine_module, "_tiles", "grid, outlines"),
    (examine_module, "_outlines", "grid, outlines"),
    (write_module, "picture", "picture"),
    (write_module, "encode_jpeg", "JPEG"),
    (write_module, "write_geojson", "GeoJSON"),
]


def ours(path: Path, folder: Path) -> tuple[dict[str, float], float, float, int]:
    """Seconds by part, seconds and CPU seconds in all, and tiles; warm, in this process."""
    clock, cfg = Clock(), TilingConfig()
    start, cpu = time.perf_counter(), time.process_time()
    with clock.watching(WATCHED):
        with open_slide(path) as slide:
            scale = find_scale(slide.properties, slide.dimensions, None, cfg)
            found = examine(slide, scale, cfg, None, None, path.stem)
        record = Record(path.stem, "tiling", "ok", facts=found.facts)
        write(Files.of(folder, path.stem), found, record, cfg, path, "benchmark")
    total, cpu = time.perf_counter() - start, time.process_time() - cpu
    clock.seconds["HDF5, the rest"] = total - sum(
        spent for label, spent in clock.seconds.items() if label != READING
    )
    return clock.seconds, total, cpu, len(found.coords)


def whole_process(path: Path, folder: Path) -> tuple[float, float]:
    """Seconds and peak MB of a process that does nothing but tile this slide."""
    shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()
    command = [sys.executable, "-c", PROCESS, str(path), str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, int(done.stdout) / 1024


def plain_reads(path: Path, every: int) -> tuple[float, int]:
    """A `read_region` for each tile, its saturation thresholded; one tile in `every`, scaled up."""
    import openslide

    slide = openslide.OpenSlide(str(path))
    side = round(224 * 0.5 / MPP)
    width, height = slide.dimensions
    places = [
        (x, y) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)
    ]
    kept, start = 0, time.perf_counter()
    for x, y in places[::every]:
        tile = np.asarray(slide.read_region((x, y), 0, (side, side)).convert("RGB"))
        kept += cv2.cvtColor(tile, cv2.COLOR_RGB2HSV)[..., 1].__gt__(15).mean() >= 0.5
    return (time.perf_counter() - start) * every, kept * every


def plain_loop(path: Path) -> tuple[float, int]:
    """Otsu on a low level, then a Python loop over the grid that cuts each tile from the mask."""
    import openslide

    start = time.perf_counter()
    slide = openslide.OpenSlide(str(path))
    level = slide.level_count - 1
    image = slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB")
    saturation = cv2.medianBlur(cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2HSV)[..., 1], 7)
    mask = saturation > 15
    scale, side = slide.level_downsamples[level], round(224 * 0.5 / MPP)
    kept = []
    width, height = slide.dimensions
    for y in range(0, height - side + 1, side):
        for x in range(0, width - side + 1, side):
            part = mask[
                int(y / scale) : int((y + side) / scale), int(x / scale) : int((x + side) / scale)
            ]
            if part.mean() >= 0.5:
                kept.append((x, y))
    canvas = np.array(image)
    for x, y in kept:
        corner, end = (
            (int(x / scale), int(y / scale)),
            (int((x + side) / scale), int((y + side) / scale)),
        )
        cv2.rectangle(canvas, corner, end, (0, 0, 255), 1)
    cv2.imencode(".jpg", canvas)
    return time.perf_counter() - start, len(kept)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", type=int, nargs=2, default=(40_960, 40_960), help="pixels of the drawn slide"
    )
    parser.add_argument("--slide", type=Path, help="tile this slide instead")
    parser.add_argument(
        "--keep", type=Path, help="folder to keep the drawn slide and the results in"
    )
    parser.add_argument(
        "--every", type=int, default=20, help="one tile in so many is read the plain way"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        width, height = options.size
        path = options.slide or folder / f"large_{width}x{height}.svs"
        if not path.exists():
            print(f"drawing {path.name} …", flush=True)
            make_slide(path, width, height)
        report(path, folder, options.every)


def report(path: Path, folder: Path, every: int) -> None:
    """Measure and print."""
    with open_slide(path) as slide:
        width, height = slide.dimensions
    runs = [ours(path, folder / f"warm{number}") for number in range(5)]
    parts, total, cpu, tiles = min(runs, key=lambda run: run[1])
    seconds, memory = min(whole_process(path, folder / f"cold{number}") for number in range(5))
    loop, loop_tiles = plain_loop(path)
    reads, read_tiles = plain_reads(path, every)
    print(f"{width} x {height} pixels ({width * height / 1e9:.2f} gigapixels), {tiles} tiles")
    for name, value in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"  {name:<34}{value:>9.3f} s")
    rows = [
        ("in all, start-up excluded", total, f"{60 / total:.0f} slides a minute, CPU {cpu:.3f} s"),
        ("one process, start-up included", seconds, f"peak {memory:.0f} MB"),
        ("plain: mask, loop over the grid", loop, f"{loop / total:.1f} x; {loop_tiles} tiles"),
        ("plain: read_region per tile", reads, f"{reads / total:.0f} x; {read_tiles} tiles"),
    ]
    for name, value, note in rows:
        print(f"{name:<36}{value:>9.3f} s   {note}")


if __name__ == "__main__":
    main()
