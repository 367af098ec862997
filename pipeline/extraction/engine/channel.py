"""A bounded queue between two threads that ends cleanly, also when another thread fails."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.1
_END = object()


class Stopped(Exception):
    """Another thread failed or the run was interrupted: leave quietly."""


class Channel(Generic[T]):
    """Hands items from one thread to another, at most `size` waiting.

    Args:
        size: how many items may wait; `put` blocks beyond that, which bounds memory.
        stop: set when the run ends early; `put` and iteration then raise `Stopped`.
    """

    def __init__(self, size: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[object] = queue.Queue(size)
        self._stop = stop

    def put(self, item: T) -> None:
        """Wait for room, then add an item."""
        self._put(item)

    def close(self) -> None:
        """Say that nothing more comes."""
        self._put(_END)

    def __iter__(self) -> Iterator[T]:
        while (item := self._get()) is not _END:
            yield item  # type: ignore[misc]

    def _put(self, item: object) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=POLL_SECONDS)
                return
            except queue.Full:
                continue
        raise Stopped

    def _get(self) -> object:
        while not self._stop.is_set():
            try:
                return self._queue.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
        raise Stopped
