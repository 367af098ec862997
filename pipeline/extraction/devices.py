"""What there is to work with: devices, the batch that suits them, and who decodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from pipeline.encoders.build import Encoder, encode
from pipeline.errors import ConfigError
from pipeline.tile_reading.decoders import gpu_decodes, require_gpu_decoder

CPU_BATCH = 32
GPU_BATCHES = (32, 64, 128, 256, 512)
WORTH = 1.03  # a larger batch must be this much faster per tile
# What a core decodes in JPEG pixels a second, and what a current GPU sustains in half and in full
# precision: only for the choice of the decoder, where a factor of two is neither here nor there.
PIXELS_PER_CORE = 1.5e8
FLOPS = {False: 2e14, True: 4e13}


def choose_devices(requested: str) -> list[torch.device]:
    """The devices to run on.

    Args:
        requested: `auto`: all GPUs that this process may see, else the CPU; or names with commas,
            e.g. `cpu`, `cuda`, `cuda:1`, `cuda:0,cuda:1`.

    Raises:
        ConfigError: there is no such device.
    """
    if requested == "auto":
        gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
        return gpus or [torch.device("cpu")]
    devices = []
    for name in requested.split(","):
        try:
            device = torch.device(name.strip())
        except RuntimeError:
            raise ConfigError(f"device `{name}`: not auto, cpu, cuda or cuda:<number>") from None
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(
                f"device `{name}`: torch sees {torch.cuda.device_count()} GPUs; use --device cpu, "
                "or check the driver and CUDA_VISIBLE_DEVICES"
            )
        devices.append(device)
    return devices


def choose_batch_size(
    requested: int | str, encoders: Sequence[Encoder], side: int, device: torch.device
) -> int:
    """Tiles per forward pass.

    On a GPU, `auto` tries growing batches and stops where a larger one does not fit or is not
    faster. On a CPU it is fixed, so that a rerun gives the same numbers.

    Args:
        requested: a number, or `auto`.
        encoders: the networks that every batch goes through.
        side: a tile's side in pixels, as read.
        device: where.
    """
    if isinstance(requested, int):
        return requested
    if device.type != "cuda":
        return CPU_BATCH

    def seconds(size: int) -> float:
        tiles = torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8, device=device)
        for round_ in range(3):
            if round_ == 1:  # the first pass also tunes kernels and allocates
                torch.cuda.synchronize(device)
                start = time.perf_counter()
            for encoder in encoders:
                encode(encoder, tiles)
        torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / 2

    best = grow(GPU_BATCHES, seconds)
    torch.cuda.empty_cache()
    return best


def decodes_on_gpu(
    requested: str, encoders: Sequence[Encoder], side: int, workers: int, device: torch.device
) -> bool:
    """Whether JPEG blocks go to the GPU as they are.

    `auto` says yes where the cores cannot keep up with the networks and nvImageCodec is installed.
    That is reckoned from the networks' arithmetic and not measured, so that a rerun on the same
    machine decides alike.

    Args:
        requested: auto, cpu or gpu.
        encoders: the networks that every batch goes through.
        side: a tile's side in pixels, as read.
        workers: decoding threads for this device.
        device: where the networks are.

    Raises:
        ConfigError: `gpu` is asked for, and the package that does it is missing.
    """
    if device.type != "cuda" or requested == "cpu":
        return False
    if requested == "gpu":
        require_gpu_decoder()
        return True
    if not gpu_decodes():
        return False
    work = sum(
        float(e.facts["gflop_per_tile"]) * 1e9 / FLOPS[e.precision == "fp32"] for e in encoders
    )
    return workers * PIXELS_PER_CORE / side**2 < 1 / max(work, 1e-9)


def grow(sizes: Sequence[int], seconds: Callable[[int], float]) -> int:
    """The first of growing batch sizes after which none is faster per tile, or fits.

    Args:
        sizes: to try, in order.
        seconds: how long a batch takes; raises `torch.OutOfMemoryError` if it does not fit.
    """
    best, rate = 1, 0.0
    for size in sizes:
        try:
            here = size / seconds(size)
        except torch.OutOfMemoryError:
            break
        if here < rate * WORTH:
            break
        best, rate = size, here
    return best
