"""How far a job is, as a line in its log at least every 30 s: 12 of 40 slides, 35 tiles/s, 2 min.

A bar that redraws itself is of no use in a log file. So the stages count here what they have done,
and while a job is `reported`, a thread writes where it stands, also during a step that takes long.
Without `reported` (in tests, in worker processes) counting says nothing. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

EVERY_SECONDS = 30.0
REDRAWN_SECONDS = 0.3
BAR_WIDTH = 24
RATED = "tiles"  # the unit whose rate is told

_lock = threading.RLock()
_job: str | None = None
_parts: list[Part] = []  # the outermost first


class Part:
    """Some steps of a job, e.g. its slides, or the epochs of one of its trainings.

    Attributes:
        unit: what is counted, in the plural.
        total: how many there are.
        done: how many are done.
        begun: how many were done before this job.
        also: other things counted on the way, e.g. the tiles of the slides.
        note: what else is to be told, e.g. the loss.

    Args:
        unit: what is counted, in the plural.
        total: how many there are.
        done: how many were done before this job.
    """

    def __init__(self, unit: str, total: int, done: int = 0) -> None:
        self.unit, self.total, self.done, self.begun = unit, total, done, done
        self.also: dict[str, int] = {}
        self.note = ""
        self.started = time.monotonic()

    def step(self, number: int = 1, **also: int) -> None:
        """Count steps as done, and what came with them. May be called from any thread."""
        with _lock:
            self.done += number
            for unit, count in also.items():
                self.also[unit] = self.also.get(unit, 0) + count

    @property
    def text(self) -> str:
        counts = [f"{self.done:,} of {self.total:,} {self.unit}"]
        counts += [f"{count:,} {unit}" for unit, count in self.also.items()]
        new = {self.unit: self.done - self.begun, **self.also}.get(RATED, 0)
        seconds = time.monotonic() - self.started
        if new and seconds > 0:
            counts.append(f"{new / seconds:,.1f} {RATED}/s")
        return ", ".join(counts) + (f" ({self.note})" if self.note else "")


@contextlib.contextmanager
def reported(job: str) -> Iterator[None]:
    """Write to the log where the job stands, as long as the block lasts.

    Args:
        job: its name in every line.
    """
    global _job
    end = threading.Event()
    started = time.monotonic()

    def keep_saying() -> None:
        while not end.wait(EVERY_SECONDS):
            say(where() or f"at work for {duration(time.monotonic() - started)}")

    with _lock:
        before, _job = _job, job
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    on = f", GPU {devices}" if devices else ""
    say(f"started on {socket.gethostname()}, process {os.getpid()}{on}")
    threading.Thread(target=keep_saying, daemon=True).start()
    try:
        yield
        say(f"finished in {duration(time.monotonic() - started)}")
    finally:
        end.set()
        with _lock:
            _job = before


@contextlib.contextmanager
def bar() -> Iterator[None]:
    """Redraw one line on the terminal with where the innermost part stands, as long as the block
    lasts. Says nothing where the error output is no terminal."""
    if not sys.stderr.isatty():
        yield
        return
    end = threading.Event()

    def redraw() -> None:
        while not end.wait(REDRAWN_SECONDS):
            sys.stderr.write(f"\r{_bar(shutil.get_terminal_size().columns - 1)}")
            sys.stderr.flush()

    threading.Thread(target=redraw, daemon=True).start()
    try:
        yield
    finally:
        end.set()
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()


def _bar(width: int) -> str:
    """A bar of the innermost part with the counts of all, as wide as the terminal."""
    with _lock:
        parts = list(_parts)
    if not parts:
        return " " * width
    share = parts[-1].done / max(1, parts[-1].total)
    filled = round(BAR_WIDTH * min(1.0, share))
    told = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {where()}"
    return told[:width].ljust(width)


@contextlib.contextmanager
def part(unit: str, total: int, done: int = 0) -> Iterator[Part]:
    """Count steps in the block.

    Args:
        unit: what is counted, in the plural.
        total: how many there are, those included that were done before.
        done: how many were done before.
    """
    own = Part(unit, total, done)
    with _lock:
        _parts.append(own)
    finished = False
    try:
        yield own
        finished = True
    finally:
        with _lock:
            outermost = _parts[:1] == [own]
            if own in _parts:  # else an outer part ended first, by an exception
                del _parts[_parts.index(own) :]
        if outermost and finished:
            say(f"{own.text} in {duration(time.monotonic() - own.started)}")


def counted(items: Iterable[T], unit: str, total: int | None = None) -> Iterator[T]:
    """The items one by one; each counts as done when the next one is asked for.

    Args:
        items: what to go through.
        unit: what the items are, in the plural.
        total: how many there are; taken from `items` where these know it.
    """
    if total is None:
        assert isinstance(items, Collection)
        total = len(items)
    with part(unit, total) as own:
        for item in items:
            yield item
            own.step()


def note(text: str) -> None:
    """What else to tell of the steps that are being counted, e.g. the loss."""
    if _parts:
        _parts[-1].note = text


def say(text: str) -> None:
    """Write a line now, if a job is reported. A log on a full disk does not end the job."""
    if _job is not None and text:
        with contextlib.suppress(OSError):
            print(f"{time.strftime('%H:%M:%S')} {_job}: {text}", file=sys.stderr, flush=True)


def where() -> str:
    """All that is being counted, and how long it may still take; empty where nothing is."""
    with _lock:
        parts = list(_parts)
        if not parts:
            return ""
        told = ", ".join(p.text for p in parts)
        left = _seconds_left(parts)
    return told if left is None else f"{told}; about {duration(left)} left"


def duration(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _seconds_left(parts: list[Part]) -> float | None:
    """By what the outermost part has done since it began; a step counts by how far it is."""
    inside = 0.0
    for inner in reversed(parts):
        inside = min(1.0, (inner.done + inside) / inner.total) if inner.total else 0.0
    first = parts[0]
    before = first.begun / first.total if first.total else 0.0
    if inside <= before or inside >= 1:
        return None
    return (time.monotonic() - first.started) * (1 - inside) / (inside - before)
