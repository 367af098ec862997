"""The engine: several devices, too little memory, errors that must not hang or hide."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.bags.files import open_features, read_coords, read_level
from pipeline.config.extraction import TeacherConfig
from pipeline.encoders.build import Encoder, build, encode
from pipeline.extraction import writer
from pipeline.extraction.engine import encoding, reading, writing
from pipeline.extraction.engine.channel import Channel, Stopped
from pipeline.extraction.engine.encoding import encode_in_parts
from pipeline.extraction.engine.messages import Settings, SlideToRead
from pipeline.extraction.engine.run import extract
from pipeline.tile_reading.grid import read_grid
from pipeline.tile_reading.reader import open_source
from tests.extraction.made import TINY, grid_coords, tissue, write_svs, write_tiles

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.set_num_threads(1)
    return build("tiny", TeacherConfig.model_validate(TINY), device=CPU)


@pytest.fixture
def jobs(tmp_path: Path) -> list[SlideToRead]:
    made = []
    for i in range(5):
        slide = write_svs(tmp_path / f"{i}.svs", tissue(160, 96, seed=i))
        tiles = write_tiles(tmp_path / f"{i}_tiles.h5", grid_coords(160, 96, 32))
        output = {"tiny": tmp_path / "out" / f"{i}.h5"}
        made.append(SlideToRead(str(i), slide, read_grid(tiles), output, {"tiny": f"print {i}"}))
    return made


def test_two_devices_share_the_slides(jobs: list[SlideToRead], encoder: Encoder) -> None:
    """Two device workers take turns at one queue; every slide is made once, and rightly."""
    settings = Settings(batch_size=4, workers=1)
    first, second = torch.device("cpu"), torch.device("cpu", 0)
    records = extract(jobs, {first: [encoder], second: [encoder]}, settings)
    assert sorted(records) == [(str(i), "tiny") for i in range(5)]
    for job in jobs:
        assert records[job.slide_id, "tiny"].status == "ok"
        file = open_features(job.outputs["tiny"])
        np.testing.assert_array_equal(read_coords(file), job.grid.coords)
    alone = read_level(open_features(jobs[2].outputs["tiny"]))
    jobs[2].outputs["tiny"].unlink()
    extract(jobs[2:3], {first: [encoder]}, settings)
    np.testing.assert_array_equal(read_level(open_features(jobs[2].outputs["tiny"])), alone)


def test_batch_size_changes_only_the_last_bit(jobs: list[SlideToRead], encoder: Encoder) -> None:
    found = []
    for size in (1, 4, 64):
        extract(jobs[:1], {CPU: [encoder]}, Settings(batch_size=size, workers=1))
        found.append(read_level(open_features(jobs[0].outputs["tiny"])).astype(np.float32))
    np.testing.assert_allclose(found[0], found[1], rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(found[0], found[2], rtol=2e-3, atol=1e-3)


def test_blocks_that_the_device_decodes_give_the_same_features(
    jobs: list[SlideToRead], encoder: Encoder
) -> None:
    """The way of a GPU's decoder through the whole engine, on a device that every machine has."""
    found = []
    for on_device in (False, True):
        settings = Settings(batch_size=4, workers=1, decode_on_gpu=on_device)
        source = open_source(jobs[0].path, jobs[0].grid, 1, device=CPU if on_device else None)
        assert source.kind == ("device" if on_device else "blocks")
        source.close()
        extract(jobs[:1], {CPU: [encoder]}, settings)
        found.append(read_level(open_features(jobs[0].outputs["tiny"])))
    np.testing.assert_array_equal(*found)


def test_out_of_memory_halves_the_batch(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = torch.randint(0, 256, (11, 32, 32, 3), dtype=torch.uint8)
    sizes: list[int] = []

    def small_device(e: Encoder, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return encode(e, batch)

    expected = encode(encoder, tiles)
    monkeypatch.setattr(encoding, "encode", small_device)
    most: dict[str, int] = {}
    found = encode_in_parts(encoder, tiles, most)
    assert sizes == [11, 6, 3, 3, 5, 3, 2]
    sizes.clear()
    encode_in_parts(encoder, tiles, most)
    assert sizes == [3, 3, 3, 2]  # the next batch does not run into the wall again
    for level, values in expected.items():
        torch.testing.assert_close(found[level].float(), values.float(), rtol=2e-3, atol=1e-3)


def test_tiles_for_a_gpu_wait_in_pinned_memory(
    jobs: list[SlideToRead], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for the CPU; and nothing but 8-bit pixels is kept for the way over the bus."""
    asked: list[bool] = []
    empty = torch.empty

    def noted(*shape: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        asked.append(pin_memory)
        return empty(*shape, **options)

    monkeypatch.setattr(reading.torch, "empty", noted)
    for device, pinned in ((torch.device("cuda"), True), (CPU, False)):
        asked.clear()
        batches = list(reading.read_batches(jobs[0], Settings(batch_size=4, workers=1), device))
        assert asked == [pinned] * len(batches)
        assert {b.tiles.dtype for b in batches if b.tiles is not None} == {torch.uint8}


def test_the_writer_keeps_few_rows_in_memory(
    jobs: list[SlideToRead], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows go to the disk as they come, however large the slide is."""
    held: list[int] = []
    flush = writer._flush

    def noted(data: Any, waiting: list[writer.Block], sums: dict[str, int]) -> None:
        held.append(sum(len(block.rows) for block in waiting))
        flush(data, waiting, sums)

    monkeypatch.setattr(writer, "ROWS", 6)
    monkeypatch.setattr(writer, "_flush", noted)
    job = jobs[0]
    count = len(job.grid.coords)
    assert count == 15
    with writer.feature_file(
        job.outputs["tiny"], job.grid, {"high": 3}, {"fingerprint": "f"}
    ) as add:
        for start in range(0, count, 4):
            rows = np.arange(start, min(start + 4, count))
            add(writer.Block(rows, {"high": np.full((len(rows), 3), start, np.float16)}))
            assert sum(held) >= start - 6
    assert held == [8, 7, 0]
    values = read_level(open_features(job.outputs["tiny"]))
    assert values[:, 0].tolist() == [start // 4 * 4 for start in range(count)]


def test_convolutions_run_with_the_channels_last() -> None:
    convolutional = build("tiny", TeacherConfig.model_validate(TINY))
    (weight,) = [p for n, p in convolutional.module.named_parameters() if n == "conv1.0.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_not_even_one_tile_fits(
    jobs: list[SlideToRead], encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_device(e: Encoder, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(encoding, "encode", no_device)
    with pytest.raises(torch.OutOfMemoryError):
        extract(jobs, {CPU: [encoder]}, Settings(batch_size=4, workers=1))
    assert not list((jobs[0].outputs["tiny"].parent).glob("*"))


@pytest.mark.parametrize(
    ("loop", "part"),
    [(reading, "open_source"), (writing, "feature_file"), (encoding, "launch")],
    ids=["reading", "writing", "encoding"],
)
def test_an_error_of_the_machine_ends_the_run(
    jobs: list[SlideToRead],
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
    loop: object,
    part: str,
) -> None:
    """In whichever thread it happens: it comes out, no thread stays, no half file either."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(loop, part, broken)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="device lost"):
        extract(jobs, {CPU: [encoder]}, Settings(batch_size=4, workers=1))
    for _ in range(50):
        if threading.active_count() <= before:
            break
        time.sleep(0.1)
    assert threading.active_count() <= before
    folder = jobs[0].outputs["tiny"].parent
    assert not folder.exists() or not list(folder.glob("*"))


def test_one_slide_that_fails_does_not_stop_the_rest(
    jobs: list[SlideToRead], encoder: Encoder
) -> None:
    jobs[1].path.write_bytes(b"II*\0" + b"\0" * 50)
    records = extract(jobs, {CPU: [encoder]}, Settings(batch_size=4, workers=1))
    assert records["1", "tiny"].status == "failed"
    assert not jobs[1].outputs["tiny"].exists()
    assert [records[str(i), "tiny"].status for i in (0, 2, 3, 4)] == ["ok"] * 4


def test_channel_hands_over_in_order_and_bounded() -> None:
    channel: Channel[int] = Channel(2, threading.Event())
    sent: list[int] = []

    def produce() -> None:
        for i in range(10):
            channel.put(i)
            sent.append(i)
        channel.close()

    thread = threading.Thread(target=produce)
    thread.start()
    while len(sent) < 2:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(sent) == 2  # the third waits
    assert list(channel) == list(range(10))
    thread.join()


def test_channel_lets_go_when_the_run_stops() -> None:
    stop = threading.Event()
    full: Channel[int] = Channel(1, stop)
    full.put(1)
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Stopped):
        full.put(2)
    with pytest.raises(Stopped):
        next(iter(full))
