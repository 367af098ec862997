"""Claim: stored tile features are scored against many prompts, smoothed over neighbours and pooled,
in memory that does not grow with the number of tiles, at a useful share of the speed of the plain
matrix product.

    python benchmarks/vision_language.py --tiles 1000000 --prompts 200

Makes one slide's feature file of that many random half-precision features and times, each in a
process of its own so that its largest memory is its own:

- product: the baseline, every feature in memory, one matrix product, nothing smoothed or pooled;
- pooled: `score_case` without smoothing;
- smoothed: `score_case` with 8 neighbours.

Prints tiles per second of processor time, which a busy machine hardly changes, the ratio to the
baseline, and the largest memory of each.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from pipeline.bags.files import open_features, read_level
from pipeline.encoders.registry import ALIGNED
from pipeline.vision_language.scoring import score_case

WIDTH = 512
TOP = (1, 5, 10, 50, 100)


def make(path: Path, tiles: int) -> None:
    """A slide of so many tiles in rows, as tiling sorts them, with gaps as tissue has them."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(tiles * 1.3)))
    chosen = np.sort(rng.choice(side * side, tiles, replace=False))
    with h5py.File(path, "w") as file:
        file["coords"] = (np.stack([chosen % side, chosen // side], 1) * 224).astype(np.int32)
        file.create_dataset("features", data=np.zeros((tiles, 1), np.float16), chunks=(1024, 1))
        data = file.create_dataset(
            ALIGNED, shape=(tiles, WIDTH), dtype=np.float16, chunks=(1024, WIDTH)
        )
        for start in range(0, tiles, 65_536):
            stop = min(start + 65_536, tiles)
            data[start:stop] = rng.standard_normal((stop - start, WIDTH), dtype=np.float32)


def weights(prompts: int) -> np.ndarray:
    """Random unit vectors, float32 (prompts, D)."""
    drawn = np.random.default_rng(1).standard_normal((prompts, WIDTH)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def measure(how: str, path: Path, prompts: int) -> dict[str, float]:
    """Seconds of processor time and the largest memory of one way.

    Args:
        how: product, pooled or smoothed.
        path: the feature file.
        prompts: how many.
    """
    torch.set_num_threads(1)
    file, columns = open_features(path), weights(prompts)
    begun = time.process_time()
    if how == "product":
        features = torch.from_numpy(read_level(file, ALIGNED, np.arange(file.n_tiles))).float()
        checksum = float((features @ torch.from_numpy(columns).T).sum())
    else:
        smoothing = (8,) if how == "smoothed" else (0,)
        checksum = float(score_case([file], columns, smoothing, TOP).sum())
    seconds = time.process_time() - begun
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert np.isfinite(checksum)
    return {"seconds": seconds, "mb": largest / 1024}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiles", type=int, default=1_000_000)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--how", default="")
    parser.add_argument("--file", type=Path)
    given = parser.parse_args()
    if given.how:
        print(json.dumps(measure(given.how, given.file, given.prompts)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.h5"
        make(path, given.tiles)
        found = {}
        for how in ("product", "pooled", "smoothed"):
            command = [sys.executable, __file__, "--how", how, "--file", str(path),
                       "--prompts", str(given.prompts)]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[how] = json.loads(done.stdout.splitlines()[-1])
    base = found["product"]
    print(f"{given.tiles:,} tiles, {given.prompts} prompts, {WIDTH} dimensions, one thread")
    for how, one in found.items():
        speed = given.tiles / one["seconds"]
        print(
            f"{how:>9}: {speed:>9,.0f} tiles/s, {speed * base['seconds'] / given.tiles:.2f} of the "
            f"product's speed; {one['mb']:>7,.0f} MB, {one['mb'] / base['mb']:.2f} of its memory"
        )


if __name__ == "__main__":
    main()
