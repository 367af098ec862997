"""What benchmarks/extraction.py measures with: clocks, and parts of the engine that count."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.encoders.build import Encoder
from pipeline.extraction.engine.channel import Channel
from pipeline.extraction.engine.encoding import launch


class Work:
    """How long the device worked on batches: by its own events on a GPU, else by the clock."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._spans: list[tuple[Any, Any]] = []

    def launch(
        self,
        encoders: Sequence[Encoder],
        tiles: torch.Tensor,
        device: torch.device,
        most: dict[str, int],
        pool: Any = None,
    ) -> Any:
        """The engine's own launch, timed."""
        start = self._mark()
        fetch = launch(encoders, tiles, device, most, pool)
        self._spans.append((start, self._mark()))
        return fetch

    def seconds(self) -> float:
        """All batches together."""
        if not self._gpu:
            return sum(stop - start for start, stop in self._spans)
        return sum(start.elapsed_time(stop) for start, stop in self._spans) / 1e3

    def _mark(self) -> Any:
        if not self._gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class WaitingChannel(Channel):
    """A channel that knows how long its reader waited."""

    def __init__(self, size: int, stop: object) -> None:
        super().__init__(size, stop)  # type: ignore[arg-type]
        self.waited = 0.0

    def _get(self) -> object:
        start = time.perf_counter()
        try:
            return super()._get()
        finally:
            self.waited += time.perf_counter() - start


def per_core(work: Callable[[], int]) -> float:
    """Things per second of processor time, threads added up."""
    start = time.process_time()
    count = work()
    return count / (time.process_time() - start)


def timed(work: Callable[[], object], device: torch.device, workers: int = 1) -> float:
    """Seconds of one call, with the device's work finished."""
    clock = stopwatch(device, workers)
    work()
    return clock()


def stopwatch(device: torch.device, workers: int) -> Callable[[], float]:
    """A function that gives the seconds since now: see the module's text for which."""
    if device.type != "cuda":
        start = time.process_time()
        return lambda: (time.process_time() - start) / workers
    torch.cuda.synchronize(device)
    start = time.perf_counter()

    def seconds() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter() - start

    return seconds


def machine(device: torch.device, workers: int) -> str:
    """What this runs on."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    load = os.getloadavg()[0]
    return f"{name}, {workers} threads of {os.cpu_count()} cores, {gpu}, load {load:.1f}"
