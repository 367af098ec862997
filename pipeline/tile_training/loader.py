"""Batches of tiles read straight from the slides, by processes that work ahead.

Batch number n is the same whoever makes it and whenever: the course of a training depends neither
on the number of workers nor on where it was broken off. Memory is bounded by the batches in flight.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.encoders.transforms import Transform, resized
from pipeline.errors import SlideError, UserError
from pipeline.tile_reading.single import SingleTiles
from pipeline.tile_training.sampling import Sampler
from pipeline.tile_training.slides import TiledSlide

OPEN_SLIDES = 24  # handles that a worker keeps


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some tiles.

    Attributes:
        tiles: uint8 (B, S, S, 3), of the side that the network takes.
        slides: int64 (B,), which slide each is of.
        places: int64 (B,), its place in the slide's coordinates.
        unreadable: (slide, place, reason) of tiles that were drawn and cannot be read; another tile
            of the same visit stands in for each.
        answers: teacher -> what it says of each tile, where such answers are kept.
    """

    tiles: Tensor
    slides: Tensor
    places: Tensor
    unreadable: tuple[tuple[int, int, str], ...] = ()
    answers: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def to(self, device: torch.device) -> Batch:
        """The same on a device; the copy does not wait."""
        return self._each(lambda values: values.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU copies from while it computes."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tiles, slides, places = change(self.tiles), change(self.slides), change(self.places)
        answers = {name: change(values) for name, values in self.answers.items()}
        return Batch(tiles, slides, places, self.unreadable, answers)

    def __len__(self) -> int:
        return len(self.tiles)

    def part(self, start: int, stop: int) -> Batch:
        """Some of the tiles.

        Args:
            start: the first.
            stop: the one after the last.
        """
        return dataclasses.replace(self._each(lambda values: values[start:stop]), unreadable=())

    def take(self, rows: Tensor) -> Batch:
        """Some of the tiles, in an order of their own.

        Args:
            rows: int64, which.
        """
        return dataclasses.replace(self._each(lambda values: values[rows]), unreadable=())


Draws = Callable[[int], list[tuple[int, np.ndarray]]]
# A slide's place and places of its tiles -> teacher -> (n, dimension).
Answers = Callable[[int, np.ndarray], dict[str, Tensor]]


class Tiles(Dataset[Batch]):
    """Numbered batches.

    Args:
        slides: where tiles are read from.
        draws: batch number -> slides' places, each with its tiles' places.
        transform: of the network; tiles are resized and cropped as it asks, not normalised.
        answers: what teachers say of a slide's tiles, read with them; None: nobody is asked.
    """

    def __init__(
        self,
        slides: Sequence[TiledSlide],
        draws: Draws,
        transform: Transform,
        answers: Answers | None = None,
    ) -> None:
        self._slides = list(slides)
        self._draws = draws
        self._transform = transform
        self._answers = answers
        self._open: collections.OrderedDict[int, SingleTiles] = collections.OrderedDict()

    def __getitem__(self, number: int) -> Batch:
        tiles, slides, places = [], [], []
        unreadable: list[tuple[int, int, str]] = []
        said: dict[str, list[Tensor]] = {}
        for slide, wanted in self._draws(number):
            pixels, read, bad = self._read(slide, wanted)
            tiles.append(resized(torch.from_numpy(pixels), self._transform))
            slides.append(np.full(len(read), slide))
            places.append(read)
            unreadable += bad
            for name, values in (self._answers(slide, read) if self._answers else {}).items():
                said.setdefault(name, []).append(values)
        return Batch(
            torch.cat(tiles),
            torch.from_numpy(np.concatenate(slides)),
            torch.from_numpy(np.concatenate(places)),
            tuple(unreadable),
            {name: torch.cat(values) for name, values in said.items()},
        )

    def _read(
        self, slide: int, wanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int, str]]]:
        source = self._source(slide)
        found: list[tuple[int, np.ndarray]] = []
        bad: list[tuple[int, int, str]] = []
        for place in wanted.tolist():
            try:
                found.append((place, source.read(place)))
            except SlideError as error:
                bad.append((slide, place, error.reason))
        if not found:
            slide_id = self._slides[slide].slide_id
            raise UserError(
                f"slide {slide_id}: none of {len(wanted)} tiles can be read ({bad[0][2]}); correct "
                "the file, or take the slide out of the sheet"
            )
        found += [found[i % len(found)] for i in range(len(wanted) - len(found))]
        return np.stack([pixels for _, pixels in found]), np.array([p for p, _ in found]), bad

    def _source(self, slide: int) -> SingleTiles:
        if slide in self._open:
            self._open.move_to_end(slide)
            return self._open[slide]
        if len(self._open) >= OPEN_SLIDES:
            self._open.popitem(last=False)[1].close()
        one = self._slides[slide]
        try:
            self._open[slide] = SingleTiles(one.path, one.grid)
        except SlideError as error:
            raise UserError(f"slide {one.slide_id}: {error.reason}") from None
        return self._open[slide]


@dataclasses.dataclass(frozen=True)
class Share:
    """Which visits make up a batch, for one of several processes that train together.

    Attributes:
        sampler: the order of all visits.
        visits: of one batch.
        rank: of this process.
        world: number of processes.
    """

    sampler: Sampler
    visits: int
    rank: int = 0
    world: int = 1

    def __call__(self, number: int) -> list[tuple[int, np.ndarray]]:
        first = (number * self.world + self.rank) * self.visits
        return [self.sampler.visit(visit) for visit in range(first, first + self.visits)]


@dataclasses.dataclass(frozen=True)
class Even:
    """A fixed choice of tiles, spread evenly over every slide, for validation.

    Attributes:
        tiles: of each slide, how many it has.
        per_slide: tiles taken of each, at most.
    """

    tiles: tuple[int, ...]
    per_slide: int

    def __len__(self) -> int:
        return len(self.tiles)

    def __call__(self, number: int) -> list[tuple[int, np.ndarray]]:
        """Batch n is slide n."""
        count = self.tiles[number]
        take = min(count, self.per_slide)
        return [(number, (np.arange(take) * count // take).astype(np.int64))]


def batches(
    tiles: Tiles, numbers: Iterable[int], workers: int, device: torch.device
) -> Iterator[Batch]:
    """The batches of some numbers, in their order, on a device.

    Args:
        tiles: what makes them.
        numbers: which.
        workers: processes that read ahead; 0: this one reads when asked.
        device: where they are wanted.
    """
    ahead = {"prefetch_factor": 2, "worker_init_fn": _alone} if workers else {}
    if workers:
        # Before the fork: a worker that inherits OpenCV's threads waits for them for ever, as they
        # do not exist in it, once it changes their number or calls what uses them.
        cv2.setNumThreads(1)
    loader = DataLoader(
        tiles,
        sampler=numbers,
        batch_size=None,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # else it draws from the one that dropout draws from
        **ahead,  # type: ignore[arg-type]
    )
    for batch in loader:
        yield batch.to(device)


def _alone(worker: int) -> None:
    torch.set_num_threads(1)
