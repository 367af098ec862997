"""The device's part of the engine: batches of tiles to features, several batches in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from pipeline.encoders.build import Encoder, encode
from pipeline.extraction.engine.channel import Channel
from pipeline.extraction.engine.messages import Batch, Result
from pipeline.extraction.writer import Block

CPU_PART = 4  # tiles that one thread takes through a network
IN_FLIGHT = 2  # batches on a GPU whose results have not been fetched


def encode_batches(
    batches: Channel[Batch],
    to: Channel[Result],
    device: torch.device,
    encoders: Sequence[Encoder],
    workers: int,
) -> None:
    """Encode batches until there are no more, and pass on what each teacher says of them.

    Args:
        batches: tiles of the slides.
        to: where the results go.
        device: where the networks are.
        encoders: the teachers.
        workers: threads that may compute at once.
    """
    flying: deque[tuple[Batch, Callable[[], Mapping[str, Mapping[str, np.ndarray]]]]] = deque()

    most: dict[str, int] = {}
    pool = None if device.type == "cuda" else ThreadPoolExecutor(max(1, workers))

    def land() -> None:
        batch, fetch = flying.popleft()
        features = {
            teacher: Block(batch.rows, levels, batch.dropped) for teacher, levels in fetch().items()
        }
        to.put(Result(batch.job, features))

    for batch in batches:
        if batch.tiles is None:
            while flying:
                land()
            to.put(Result(batch.job, None, batch.error))
            continue
        wanted = [e for e in encoders if e.name in batch.job.outputs]
        flying.append((batch, launch(wanted, batch.tiles, device, most, pool)))
        while len(flying) > (IN_FLIGHT if device.type == "cuda" else 0):
            land()
    if pool is not None:
        pool.shutdown()
    to.close()


def launch(
    encoders: Sequence[Encoder],
    tiles: torch.Tensor,
    device: torch.device,
    most: dict[str, int],
    pool: ThreadPoolExecutor | None = None,
) -> Callable[[], Mapping[str, Mapping[str, np.ndarray]]]:
    """Start a batch on the device.

    Args:
        encoders: the networks to run it through.
        tiles: uint8 (B, S, S, 3) in the host's memory, pinned for a GPU.
        device: where the networks are.
        most: teacher to the tiles that fit at once, where that is known; learnt here.
        pool: for a CPU, threads that share the batch.

    Returns:
        a function that waits for the results: teacher to level to float16 (B, D).
    """
    if pool is not None:
        waiting = {e.name: _share(e, tiles, pool) for e in encoders}
        return lambda: {name: _joined(parts) for name, parts in waiting.items()}
    there = tiles.to(device, non_blocking=True)
    results = {e.name: encode_in_parts(e, there, most) for e in encoders}
    if device.type != "cuda":
        return lambda: {k: {m: t.numpy() for m, t in v.items()} for k, v in results.items()}
    here = {
        name: {level: _to_host(values) for level, values in levels.items()}
        for name, levels in results.items()
    }
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(device))

    def fetch() -> Mapping[str, Mapping[str, np.ndarray]]:
        done.synchronize()
        return {k: {m: t.numpy() for m, t in v.items()} for k, v in here.items()}

    return fetch


def _share(
    encoder: Encoder, tiles: torch.Tensor, pool: ThreadPoolExecutor
) -> list[Future[dict[str, torch.Tensor]]]:
    """The batch in parts of one size, each for one thread.

    Threads that share one forward pass would sum in another order for each number of them, and a
    machine with more cores would give other features.
    """
    return [pool.submit(encode, encoder, part) for part in tiles.split(CPU_PART)]


def _joined(parts: Sequence[Future[dict[str, torch.Tensor]]]) -> dict[str, np.ndarray]:
    found = [part.result() for part in parts]
    return {level: torch.cat([part[level] for part in found]).numpy() for level in found[0]}


def encode_in_parts(
    encoder: Encoder, tiles: torch.Tensor, most: dict[str, int]
) -> dict[str, torch.Tensor]:
    """`encode`, in as many tiles at once as the device's memory has room for.

    What did not fit is halved, and what fits is remembered, so that later batches do not run into
    the same wall.

    Args:
        encoder: the network.
        tiles: on the device.
        most: teacher to the tiles that fit at once; lowered here.

    Raises:
        torch.OutOfMemoryError: not even one tile fits.
    """
    parts = []
    for part in tiles.split(min(len(tiles), most.get(encoder.name, len(tiles)))):
        try:
            parts.append(encode(encoder, part))
            continue
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
        torch.cuda.empty_cache()
        most[encoder.name] = -(-len(part) // 2)
        parts.append(encode_in_parts(encoder, part, most))
    return {level: torch.cat([part[level] for part in parts]) for level in parts[0]}


def _to_host(values: torch.Tensor) -> torch.Tensor:
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)
