"""What a region costs LongViT, put together from tiles, next to the same region as one picture.

    python benchmarks/longvit.py [--regions 1024 4096 8192] [--blocks 1] [--threads 1]

For each side of a region in pixels, in a process of its own: seconds and peak memory of one pass
with `--blocks` of its 12 blocks, `tiles`, from features of tiles as the pipeline holds them, and
`picture`, from the pixels of the whole region in single precision. Prints ratios; nothing is
asserted. Seconds are the process's own, so that a busy machine distorts them less, and memory is
its peak beyond what it held before.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from pipeline.encoders.slide_level.longvit import LongViT
from pipeline.encoders.slide_level.registry import resolve

KINDS = ("tiles", "picture")
MEGABYTE = 2**20


def measure(kind: str, region: int, options: argparse.Namespace) -> dict[str, float]:
    """One pass, in this process."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    row = resolve(f"longvit_{region}")
    module = LongViT(row.input_dim, **row.kwargs, depth=options.blocks).eval()
    side = region // 256
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start = time.process_time()
    with torch.inference_mode():
        if kind == "tiles":
            tiles = torch.randn(side * side, row.input_dim)
            places = torch.arange(side * side)
            module(tiles, torch.stack([places % side, places // side], 1))
        else:
            module.encode(module.patch_embed(torch.randn(1, 3, region, region)))
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {"seconds": seconds, "megabytes": peak / MEGABYTE}


def in_own_process(kind: str, region: int) -> dict[str, float]:
    """The same in a process of its own, whose peak of memory is its own."""
    order = [*sys.argv, "--only", kind, str(region)]
    done = subprocess.run([sys.executable, *order], stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--regions", type=int, nargs="+", default=[1024, 4096, 8192])
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        kind, region = options.only
        print(json.dumps(measure(kind, int(region), options)))
        return
    print(f"{options.blocks} block(s)")
    print(f"{'region':>7} {'patches':>9}  {'from':<8} {'seconds':>8} {'MB':>7}  of tiles")
    for region in options.regions:
        own: dict[str, float] = {}
        for kind in KINDS:
            found = in_own_process(kind, region)
            own = own or found
            ratio = f"{found['seconds'] / own['seconds']:.2f} s, "
            ratio += f"{found['megabytes'] / max(own['megabytes'], 1):.2f} MB"
            print(
                f"{region:>7} {(region // 32) ** 2:>9,}  {kind:<8} {found['seconds']:>8.2f} "
                f"{found['megabytes']:>7.0f}  {ratio}",
                flush=True,
            )


if __name__ == "__main__":
    main()
