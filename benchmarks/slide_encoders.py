"""What a slide encoder costs for N tiles, next to the same network with full attention.

    python benchmarks/slide_encoders.py [--tiles 1000 4000 16000] [--blocks 1] [--width 768]
                                        [--full-up-to 16000] [--threads 1] [--device cpu]

For each N, in a process of its own: seconds and peak memory of one pass of GigaPath's slide encoder
(its published width and segments, `--blocks` of its 12 blocks), and of the same blocks where each
head attends to every tile, by torch's fused attention and as a matrix of all scores. Prints a table
with ratios; nothing is asserted. On a CPU seconds are the process's own, so that a busy machine
distorts them less, and memory is its peak beyond what it held before the pass.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from unittest import mock

import torch
import torch.nn.functional as F

from pipeline.encoders.slide_level import longnet

KINDS = ("dilated", "full, fused", "full, matrix")
MEGABYTE = 2**20


def full(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: object) -> torch.Tensor:
    """Attention to every tile, fused."""
    out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))
    return out.transpose(1, 2)


def matrix(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: object) -> torch.Tensor:
    """Attention to every tile, with all scores at once."""
    scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1) * q.shape[-1] ** -0.5
    return (scores.softmax(-1) @ v.transpose(1, 2)).transpose(1, 2)


def measure(kind: str, tiles: int, options: argparse.Namespace) -> dict[str, float]:
    """One pass, in this process."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    module = longnet.LongNetViT(1536, options.width, options.blocks).eval().to(device)
    x = torch.randn(1, tiles, 1536, device=device)
    side = int(tiles**0.5) + 1
    places = torch.arange(tiles, device=device)
    cells = torch.stack([places % side, places // side], 1)[None]
    attention = {"full, fused": full, "full, matrix": matrix}.get(kind, longnet.dilated_attention)
    with torch.inference_mode(), mock.patch.object(longnet, "dilated_attention", attention):
        module(x[:, :8], cells[:, :8])
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before, start = torch.cuda.memory_allocated(), time.perf_counter()
            module(x, cells)
            torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated() - before
            return {"seconds": time.perf_counter() - start, "megabytes": peak / MEGABYTE}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        start = time.process_time()
        module(x, cells)
        seconds = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {"seconds": seconds, "megabytes": peak / MEGABYTE}


def in_own_process(kind: str, tiles: int) -> dict[str, float]:
    """The same in a process of its own, whose peak of memory is its own."""
    order = [*sys.argv, "--only", kind, str(tiles)]
    done = subprocess.run([sys.executable, *order], stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiles", type=int, nargs="+", default=[1000, 4000, 16000])
    parser.add_argument("--full-up-to", type=int, default=16000)
    parser.add_argument("--matrix-up-to", type=int, default=8000)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        kind, tiles = options.only
        print(json.dumps(measure(kind, int(tiles), options)))
        return
    limits = dict(zip(KINDS, (sys.maxsize, options.full_up_to, options.matrix_up_to), strict=True))
    print(f"{options.blocks} block(s) of width {options.width}, {options.device}")
    print(f"{'tiles':>8}  {'attention':<13} {'seconds':>8} {'MB':>8}  {'times dilated':>22}")
    for tiles in options.tiles:
        own: dict[str, float] = {}
        for kind in KINDS:
            if tiles > limits[kind]:
                continue
            found = in_own_process(kind, tiles)
            own = own or found
            ratio = f"{found['seconds'] / own['seconds']:.1f} s, "
            ratio += f"{found['megabytes'] / max(own['megabytes'], 1):.1f} MB"
            print(
                f"{tiles:>8}  {kind:<13} {found['seconds']:>8.2f} {found['megabytes']:>8.0f}  "
                f"{ratio:>22}",
                flush=True,
            )


if __name__ == "__main__":
    main()
