"""Both ways of reading give the tiles that single reads give, and report what they cannot read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SlideError
from pipeline.slides.slide import open_slide
from pipeline.tile_reading import blocks, reader
from pipeline.tile_reading.blocks import DeviceSource
from pipeline.tile_reading.decoders import gpu_decodes
from pipeline.tile_reading.grid import Grid, read_grid
from pipeline.tile_reading.reader import RegionSource, Source, open_source
from tests.extraction.made import grid_coords, spoil, tissue, write_svs, write_tiles

WIDTH, HEIGHT = 320, 200


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_svs(tmp_path_factory.mktemp("slides") / "a.svs", tissue(WIDTH, HEIGHT))


def _grid(coords: np.ndarray, level: int = 0, downsample: float = 1.0, side: int = 32) -> Grid:
    return Grid(np.asarray(coords, np.int32), level, downsample, side, "f", {})


def _read(source: Source, grid: Grid, batch: int = 7) -> np.ndarray:
    out = np.zeros((len(grid.coords), grid.side, grid.side, 3), np.uint8)
    for start in range(0, len(out), batch):
        stop = min(start + batch, len(out))
        assert source.read(start, stop, out[start:stop]) == {}
    source.close()
    return out


def _one_by_one(path: Path, grid: Grid) -> np.ndarray:
    with open_slide(path) as opened:
        corners = np.rint(grid.coords / grid.downsample) * grid.downsample
        return np.stack(
            [
                opened.read_region(round(x), round(y), grid.level, grid.side, grid.side)
                for x, y in corners
            ]
        )


@pytest.mark.parametrize(
    ("level", "downsample", "side", "step"),
    [(0, 1.0, 32, 32), (0, 1.0, 50, 37), (0, 1.0, 200, 90), (1, 4.0, 16, 64), (1, 4.0, 21, 80)],
)
def test_both_ways_give_the_pixels_of_single_reads(
    slide: Path, level: int, downsample: float, side: int, step: int
) -> None:
    grid = _grid(grid_coords(WIDTH, HEIGHT, step), level, downsample, side)
    expected = _one_by_one(slide, grid)
    direct = open_source(slide, grid, workers=2)
    assert direct.kind == "blocks"
    np.testing.assert_array_equal(_read(direct, grid), expected)
    regions = open_source(slide, grid, workers=2, direct=False)
    assert regions.kind == "regions"
    np.testing.assert_array_equal(_read(regions, grid), expected)


def test_outside_of_the_slide_is_white(slide: Path) -> None:
    grid = _grid([[-16, -16], [304, -16], [304, 184], [400, 300]])
    expected = _one_by_one(slide, grid)
    assert (expected[3] == 255).all() and (expected[0][:16] == 255).all()
    assert not (expected[0][16:, 16:] == 255).all()
    for direct in (True, False):
        got = _read(open_source(slide, grid, 1, direct), grid)
        np.testing.assert_array_equal(got, expected)


@settings(max_examples=15, deadline=None)
@given(
    corners=st.lists(
        st.tuples(st.integers(-40, WIDTH), st.integers(-40, HEIGHT)), min_size=1, max_size=25
    ),
    batch=st.integers(1, 9),
    side=st.integers(1, 90),
)
def test_any_tiles_in_any_batches(
    slide: Path, corners: list[tuple[int, int]], batch: int, side: int
) -> None:
    coords = np.array(sorted(corners, key=lambda c: (c[1], c[0])))
    grid = _grid(coords, side=side)
    direct = _read(open_source(slide, grid, 1), grid, batch)
    regions = _read(open_source(slide, grid, 1, direct=False), grid, batch)
    np.testing.assert_array_equal(direct, regions)


def test_each_compressed_tile_is_decoded_once_and_let_go(
    slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = _grid(grid_coords(WIDTH, HEIGHT, 32), side=48)
    source = open_source(slide, grid, 1)
    decoded: list[int] = []
    decode = source._decode
    monkeypatch.setattr(source, "_decode", lambda number: decoded.append(number) or decode(number))
    most = 0
    out = np.zeros((5, 48, 48, 3), np.uint8)
    for start in range(0, len(grid.coords), 5):
        stop = min(start + 5, len(grid.coords))
        source.read(start, stop, out[: stop - start])
        most = max(most, len(source._kept))
    source.close()
    assert sorted(decoded) == list(range(20))  # 5 x 4 of 64 px, each once
    assert most <= 15  # never the whole slide


@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
def test_other_compressions_go_the_same_way(tmp_path: Path, compression: str | None) -> None:
    grid = _grid(grid_coords(WIDTH, HEIGHT, 64))
    plain = write_svs(tmp_path / "plain.svs", tissue(WIDTH, HEIGHT), compression=compression)
    source = open_source(plain, grid, 2)
    assert source.kind == "blocks"
    np.testing.assert_array_equal(_read(source, grid), _one_by_one(plain, grid))


def test_a_slide_without_blocks_goes_through_regions(tmp_path: Path) -> None:
    """A plain image: nothing says where its pixels are."""
    from PIL import Image

    path = tmp_path / "a.png"
    Image.fromarray(tissue(WIDTH, HEIGHT)).save(path)
    grid = _grid(grid_coords(WIDTH, HEIGHT, 64))
    source = open_source(path, grid, 1)
    assert source.kind == "regions"
    np.testing.assert_array_equal(_read(source, grid), _one_by_one(path, grid))


def test_ycbcr_tiles(tmp_path: Path) -> None:
    """Subsampled YCbCr, as most scanners write."""
    path = tmp_path / "ycbcr.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(
            tissue(WIDTH, HEIGHT),
            tile=(64, 64),
            photometric="ycbcr",
            subsampling=(2, 2),
            compression="jpeg",
            metadata=None,
        )
    grid = _grid(grid_coords(WIDTH, HEIGHT, 48), side=48)
    source = open_source(path, grid, 1)
    assert source.kind == "blocks"
    np.testing.assert_array_equal(_read(source, grid), _one_by_one(path, grid))


# --- compressed blocks for another decoder --------------------------------------------------------


def _write_jpeg(path: Path, photometric: str, subsampling: tuple[int, int] | None) -> Path:
    with tifffile.TiffWriter(path) as file:
        file.write(
            tissue(WIDTH, HEIGHT),
            tile=(64, 64),
            photometric=photometric,
            subsampling=subsampling,
            compression="jpeg",
            metadata=None,
        )
    return path


def _on(device: torch.device, path: Path, grid: Grid, batch: int = 7) -> np.ndarray:
    source = DeviceSource(open_slide(path), grid, device)
    out = torch.zeros((len(grid.coords), grid.side, grid.side, 3), dtype=torch.uint8, device=device)
    for start in range(0, len(out), batch):
        stop = min(start + batch, len(out))
        assert source.read(start, stop, out[start:stop]) == {}
    assert not source._kept
    source.close()
    return out.cpu().numpy()


JPEGS = [("ycbcr", (2, 2)), ("ycbcr", (2, 1)), ("ycbcr", (1, 1)), ("rgb", None)]


@pytest.mark.parametrize(("photometric", "subsampling"), JPEGS)
def test_streams_carry_their_tables_and_colour_space(
    tmp_path: Path, photometric: str, subsampling: tuple[int, int] | None
) -> None:
    """A decoder that knows nothing of the TIFF gives the same pixels."""
    path = _write_jpeg(tmp_path / "a.tif", photometric, subsampling)
    grid = _grid([[-16, -16], [100, 20], [30, 30], [304, 184], [400, 300]], side=48)
    np.testing.assert_array_equal(_on(torch.device("cpu"), path, grid), _one_by_one(path, grid))


def test_aperios_tables_are_shared(slide: Path) -> None:
    grid = _grid(grid_coords(WIDTH, HEIGHT, 40), side=40)
    np.testing.assert_array_equal(_on(torch.device("cpu"), slide, grid), _one_by_one(slide, grid))


@pytest.mark.skipif(
    not (torch.cuda.is_available() and gpu_decodes()), reason="needs a GPU and nvImageCodec"
)
@pytest.mark.parametrize(("photometric", "subsampling"), JPEGS)
def test_the_gpus_decoder_agrees_with_the_cpus(
    tmp_path: Path, photometric: str, subsampling: tuple[int, int] | None
) -> None:
    path = _write_jpeg(tmp_path / "a.tif", photometric, subsampling)
    grid = _grid(grid_coords(WIDTH, HEIGHT, 48), side=48)
    expected = _one_by_one(path, grid).astype(np.int16)
    off = np.abs(_on(torch.device("cuda"), path, grid) - expected)
    assert off.mean() <= reader.SAME_PIXELS
    if subsampling in (None, (1, 1)):
        assert off.max() <= 3  # rounding of the transform and of the colours alone


def test_a_decoder_that_disagrees_is_not_used(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = _grid(grid_coords(WIDTH, HEIGHT, 32))
    cpu = torch.device("cpu")
    source = open_source(slide, grid, 1, device=cpu)
    assert (source.kind, source.device) == ("device", cpu)
    source.close()
    original = blocks.decode_streams
    monkeypatch.setattr(
        blocks,
        "decode_streams",
        lambda streams, device: [t.roll(9, dims=0) for t in original(streams, device)],
    )
    with pytest.warns(UserWarning, match=r"not decoded on the GPU, which is off by \d"):
        source = open_source(slide, grid, 1, device=cpu)
    assert source.kind == "blocks"
    np.testing.assert_array_equal(_read(source, grid), _one_by_one(slide, grid))

    def no_library(*_: object) -> None:
        raise RuntimeError("libnvjpeg is missing")

    monkeypatch.setattr(blocks, "decode_streams", no_library)
    with pytest.warns(UserWarning, match=r"not decoded on the GPU \(libnvjpeg is missing\)"):
        assert open_source(slide, grid, 1, device=cpu).kind == "blocks"


def test_a_broken_stream_spoils_only_its_own_tiles(slide: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.svs"
    broken.write_bytes(slide.read_bytes())
    spoil(broken, 2)  # x 128…191, y 0…63
    grid = _grid(grid_coords(WIDTH, HEIGHT, 32))
    source = DeviceSource(open_slide(broken), grid, torch.device("cpu"))
    out = torch.zeros((len(grid.coords), 32, 32, 3), dtype=torch.uint8)
    bad = source.read(0, len(out), out)
    source.close()
    inside = (grid.coords[:, 0] // 64 == 2) & (grid.coords[:, 1] < 64)
    assert sorted(bad) == np.flatnonzero(inside).tolist()
    np.testing.assert_array_equal(out.numpy()[~inside], _one_by_one(slide, grid)[~inside])


@pytest.mark.parametrize("direct", [True, False])
def test_broken_tile_is_reported_and_the_rest_is_right(
    slide: Path, tmp_path: Path, direct: bool
) -> None:
    broken = tmp_path / "broken.svs"
    broken.write_bytes(slide.read_bytes())
    spoil(broken, 2)  # x 128…191, y 0…63
    grid = _grid(grid_coords(WIDTH, HEIGHT, 32))
    source = open_source(broken, grid, 2, direct)
    out = np.zeros((len(grid.coords), 32, 32, 3), np.uint8)
    bad = source.read(0, len(out), out)
    source.close()
    inside = (grid.coords[:, 0] // 64 == 2) & (grid.coords[:, 1] < 64)
    assert sorted(bad) == np.flatnonzero(inside).tolist()
    assert all(isinstance(e, SlideError) and e.kind == "unreadable" for e in bad.values())
    np.testing.assert_array_equal(out[~inside], _one_by_one(slide, grid)[~inside])


def test_slide_that_lost_its_level(slide: Path) -> None:
    with pytest.raises(SlideError, match="has no level 5"):
        open_source(slide, _grid(grid_coords(WIDTH, HEIGHT, 32), level=5), 1)


def test_regions_use_a_handle_per_thread(slide: Path) -> None:
    grid = _grid(grid_coords(WIDTH, HEIGHT, 32))
    source = RegionSource(slide, grid, workers=3)
    source.read(0, 10, np.zeros((10, 32, 32, 3), np.uint8))
    assert 1 <= len(source._open) <= 3
    source.close()


def test_grid_of_a_tiles_file(tmp_path: Path) -> None:
    coords = grid_coords(320, 200, 64)
    path = write_tiles(tmp_path / "a.h5", coords, level=1, downsample=4.0, side0=64)
    grid = read_grid(path)
    np.testing.assert_array_equal(grid.coords, coords)
    assert (grid.level, grid.downsample, grid.side) == (1, 4.0, 16)
    assert grid.attributes["patch_size_level0"] == 64
