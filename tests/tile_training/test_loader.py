"""Batches hold the tiles that were drawn, whoever reads them; what cannot be read is said."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline.encoders.transforms import resized
from pipeline.errors import UserError
from pipeline.tile_reading.reader import open_source
from pipeline.tile_training import loader
from pipeline.tile_training.loader import Batch, Share, Tiles, batches
from pipeline.tile_training.sampling import Sampler
from pipeline.tile_training.slides import TiledSlide, hold_out
from tests.extraction.made import spoil
from tests.tile_training.conftest import PLAIN, read_one

CPU = torch.device("cpu")


def _tiles(slides: list[TiledSlide], per_visit: int = 3, visits: int = 2) -> Tiles:
    sampler = Sampler(tuple(len(s.grid.coords) for s in slides), per_visit, 0)
    return Tiles(slides, Share(sampler, visits), PLAIN)


def test_single_tiles_are_the_extraction_readers(slides: list[TiledSlide]) -> None:
    for slide in slides:
        count, side = len(slide.grid.coords), slide.grid.side
        wanted = np.zeros((count, side, side, 3), np.uint8)
        source = open_source(slide.path, slide.grid, 1)
        assert source.read(0, count, wanted) == {}
        source.close()
        for place in np.random.default_rng(0).permutation(count):
            np.testing.assert_array_equal(read_one(slide, int(place)), wanted[place])


def test_a_batch_holds_the_tiles_it_names(slides: list[TiledSlide]) -> None:
    for batch in batches(_tiles(slides), range(4), 0, CPU):
        assert batch.tiles.shape == (6, 16, 16, 3)
        for tile, slide, place in zip(batch.tiles, batch.slides, batch.places, strict=True):
            read = torch.from_numpy(read_one(slides[int(slide)], int(place)))[None]
            assert torch.equal(tile, resized(read, PLAIN)[0])


def test_processes_that_read_ahead_change_nothing(slides: list[TiledSlide]) -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    alone = list(batches(_tiles(slides), range(2, 6), 0, CPU))
    ahead = list(batches(_tiles(slides), range(2, 6), 2, CPU))
    for one, other in zip(alone, ahead, strict=True):
        assert torch.equal(one.tiles, other.tiles)
        assert torch.equal(one.places, other.places)
    assert torch.equal(before, torch.random.get_rng_state())


def test_workers_are_forked_without_opencvs_threads(
    slides: list[TiledSlide], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    class Counted(DataLoader[Batch]):
        def __iter__(self) -> Any:
            threads.append(cv2.getNumThreads())
            return iter(())

    monkeypatch.setattr(loader, "DataLoader", Counted)
    cv2.setNumThreads(4)
    assert not list(batches(_tiles(slides), range(2), 1, CPU))
    assert threads == [1]


def test_an_unreadable_tile_is_named_and_replaced(slides: list[TiledSlide], tmp_path: Path) -> None:
    broken = tmp_path / "broken.svs"
    shutil.copy(slides[3].path, broken)
    spoil(broken, 0)
    slide = replace(slides[3], path=broken)
    count = len(slide.grid.coords)
    (batch,) = batches(_tiles([slide], count, 1), [0], 0, CPU)
    bad = {place for _, place, _ in batch.unreadable}
    assert bad  # the tiles over the spoiled block
    assert len(batch) == count
    assert not bad & set(batch.places.tolist())
    for cell in range(1, 10):
        spoil(broken, cell)
    with pytest.raises(UserError, match=r"slide s3: none of \d+ tiles can be read"):
        list(batches(_tiles([slide], count, 1), [0], 0, CPU))


def test_whole_cases_are_held_out(slides: list[TiledSlide]) -> None:
    learned, held = hold_out(slides, 0.1, 0)
    assert {s.case_id for s in learned}.isdisjoint({s.case_id for s in held})
    assert len(learned) == len(held) == 2
    with pytest.raises(UserError, match="at least 2 cases"):
        hold_out(slides[:2], 0.1, 0)
