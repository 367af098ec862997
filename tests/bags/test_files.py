"""Every layout of feature file gives the same numbers, and a bad file says what is wrong."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bags.files import EmptyFeatures, open_features, read_coords, read_level
from pipeline.bags.survey import survey
from pipeline.errors import ArtifactError

N, D = 7, 5


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)


@pytest.fixture
def coords() -> np.ndarray:
    return np.stack([np.arange(N) * 512, np.arange(N) * 256], axis=1).astype(np.int32)


def _h5(path: Path, attributes: dict[str, object] | None = None, **datasets: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for key, data in datasets.items():
            file[key] = data
        file.attrs.update(attributes or {})
    return path


def test_pipeline_file_has_three_levels(
    tmp_path: Path, values: np.ndarray, coords: np.ndarray
) -> None:
    low, mid = values[:, :3] + 1, values[:, :4] + 2
    path = _h5(
        tmp_path / "a.h5", {"fingerprint": "x"}, features=values, low=low, mid=mid, coords=coords
    )
    file = open_features(path)
    assert (file.format, file.n_tiles, file.coord_unit) == ("pipeline", N, "px")
    assert file.dims == {"low": 3, "mid": 4, "high": D}
    np.testing.assert_array_equal(read_level(file, "low"), low)
    np.testing.assert_array_equal(read_level(file, "high"), values)
    np.testing.assert_array_equal(read_coords(file), coords)
    with pytest.raises(ArtifactError, match=r"a\.h5.*has dimensions"):
        open_features(path, {"high": D + 1})


def test_trident_and_clam_h5(tmp_path: Path, values: np.ndarray, coords: np.ndarray) -> None:
    path = _h5(tmp_path / "a.h5", features=values.astype(np.float16), coords=coords)
    file = open_features(path)
    assert (file.format, file.dims, file.has_coords) == ("h5", {"high": D}, True)
    assert read_level(file).dtype == np.float16
    with pytest.raises(ArtifactError, match="no level `mid`"):
        read_level(file, "mid")


def test_h5_with_a_batch_axis_or_one_vector(tmp_path: Path, values: np.ndarray) -> None:
    batched = open_features(_h5(tmp_path / "a.h5", features=values[None]))
    np.testing.assert_array_equal(read_level(batched, rows=np.array([3, 1])), values[[3, 1]])
    vector = open_features(_h5(tmp_path / "b.h5", features=values[0]))
    assert vector.n_tiles == 1
    np.testing.assert_array_equal(read_level(vector), values[:1])


def test_stamp_coordinates_are_microns(
    tmp_path: Path, values: np.ndarray, coords: np.ndarray
) -> None:
    path = _h5(tmp_path / "a.h5", {"unit": "um"}, feats=values, coords=coords * 0.25)
    file = open_features(path)
    assert (file.format, file.coord_unit) == ("stamp", "um")
    assert read_coords(file) is None
    np.testing.assert_array_equal(read_coords(file, mpp=0.25), coords)


def test_clam_pt(tmp_path: Path, values: np.ndarray, coords: np.ndarray) -> None:
    tensor = torch.from_numpy(values)
    torch.save(tensor, tmp_path / "tensor.pt")
    torch.save({"feats": tensor, "coords": torch.from_numpy(coords)}, tmp_path / "dict.pt")
    torch.save(tensor, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("tensor.pt", "dict.pt", "old.pt"):
        file = open_features(tmp_path / name)
        assert (file.format, file.dims, file.n_tiles) == ("pt", {"high": D}, N)
        np.testing.assert_array_equal(read_level(file), values)
    np.testing.assert_array_equal(read_coords(open_features(tmp_path / "dict.pt")), coords)
    assert read_coords(open_features(tmp_path / "tensor.pt")) is None


def test_three_level_tuple_pt(tmp_path: Path, values: np.ndarray) -> None:
    torch.save(tuple(torch.from_numpy(values) * k for k in (1, 2, 3)), tmp_path / "a.pt")
    file = open_features(tmp_path / "a.pt")
    assert file.dims == {"low": D, "mid": D, "high": D}
    np.testing.assert_array_equal(read_level(file, "mid"), values * 2)


def test_pt_with_bfloat16(tmp_path: Path, values: np.ndarray) -> None:
    torch.save(torch.from_numpy(values).bfloat16(), tmp_path / "a.pt")
    read = read_level(open_features(tmp_path / "a.pt"))
    np.testing.assert_allclose(read, values, rtol=1e-2)


def test_pt_with_objects_is_refused(tmp_path: Path) -> None:
    torch.save({"features": Path("x")}, tmp_path / "a.pt")
    with pytest.raises(ArtifactError, match=r"a\.pt.*Python objects"):
        open_features(tmp_path / "a.pt")


def test_deepzoom_npy(tmp_path: Path, values: np.ndarray) -> None:
    addresses = np.stack([np.full(N, 15), np.arange(N), np.arange(N) + 2], axis=1)
    np.save(tmp_path / "features.npy", np.hstack([addresses, values]).astype(np.float32))
    file = open_features(tmp_path / "features.npy")
    assert (file.format, file.dims, file.coord_unit) == ("deepzoom", {"high": D}, "deepzoom")
    np.testing.assert_array_equal(read_level(file, rows=np.array([6, 0])), values[[6, 0]])
    assert read_coords(file) is None
    # 50,000 px: the full image is level 16, so level 15 has half its pixels.
    pixels = read_coords(file, slide_size=(50_000, 30_000))
    np.testing.assert_array_equal(pixels[1], [1 * 448, 3 * 448])


def test_plain_npy_and_h5(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", values.astype(np.float64))
    file = open_features(tmp_path / "a.npy")
    assert (file.format, file.has_coords) == ("npy", False)
    assert read_level(file).dtype == np.float32
    plain = open_features(_h5(tmp_path / "a.h5", anything=values))
    np.testing.assert_array_equal(read_level(plain), values)


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.integers(0, 99), max_size=30))
def test_any_rows_in_any_order(tmp_path_factory: pytest.TempPathFactory, rows: list[int]) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.h5"
    data = np.arange(300, dtype=np.float32).reshape(100, 3)
    if not path.exists():
        _h5(path, features=data)
    got = read_level(open_features(path), rows=np.array(rows, dtype=int))
    np.testing.assert_array_equal(got, data[rows])


def test_rows_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.bags.files.BLOCK_ROWS", 4)
    data = np.arange(60, dtype=np.float32).reshape(20, 3)
    file = open_features(_h5(tmp_path / "a.h5", features=data))
    rows = np.array([19, 0, 7, 8, 7])
    np.testing.assert_array_equal(read_level(file, rows=rows), data[rows])
    with pytest.raises(ArtifactError, match="rows outside"):
        read_level(file, rows=np.array([20]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_not_finite(tmp_path: Path, values: np.ndarray, bad: float, dtype: type) -> None:
    values = values.astype(dtype)
    values[3, 1] = bad
    file = open_features(_h5(tmp_path / "bad.h5", features=values))
    said = r"bad\.h5.*NaN or infinite values in 1 of \d+ rows, in 1 of \d+ features.*0: 1\); make"
    with pytest.raises(ArtifactError, match=said):
        read_level(file)
    with pytest.raises(ArtifactError, match=r"bad\.h5"):
        survey(file)
    read_level(file, rows=np.array([0, 1]))  # the good rows are not refused


def test_bad_files_name_themselves(tmp_path: Path, values: np.ndarray, coords: np.ndarray) -> None:
    (tmp_path / "text.h5").write_text("not hdf5")
    (tmp_path / "text.pt").write_text("not torch")
    (tmp_path / "text.npy").write_text("not numpy")
    (tmp_path / "a.csv").write_text("1,2")
    _h5(tmp_path / "short.h5", features=values, coords=coords[:-1])
    _h5(tmp_path / "levels.h5", features=values, low=values[:-1])
    _h5(tmp_path / "two.h5", a=values, b=values)
    _h5(tmp_path / "four.h5", features=values[None, None])
    for path in [*sorted(tmp_path.iterdir()), tmp_path / "absent.h5"]:
        with pytest.raises(ArtifactError, match=path.name):
            open_features(path)
    with pytest.raises(EmptyFeatures, match=r"empty\.h5"):
        open_features(_h5(tmp_path / "empty.h5", features=values[:0]))


@pytest.mark.parametrize(
    ("attributes", "stride", "microns"),
    [
        ({"tile_size": 224, "unit": "px"}, 224.0, 256.0),
        ({}, 224.0, 256.0),
        ({"tile_size": 256.0, "unit": "um"}, 256.0, 256.0),
        ({"tile_size_um": 224.0}, 224.0, 224.0),
        ({"tile_size_um": 112.0, "unit": "um", "tile_size_px": 224}, 112.0, 112.0),
    ],
)
def test_stamps_older_coordinates_count_224_for_256_microns(tmp_path, attributes, stride, microns):
    places = np.array([(0, 0), (1, 0), (3, 0), (0, 2)], np.float32)
    values = np.zeros((4, D), np.float16)
    path = _h5(tmp_path / "a.h5", attributes, feats=values, coords=places * stride)
    found = read_coords(open_features(path), mpp=0.5)
    assert np.array_equal(found, places * microns / 0.5)


def test_stamp_coordinates_of_no_known_unit_are_not_guessed_at(tmp_path):
    coords = np.array([(0, 0), (300, 0)], np.float32)
    path = _h5(tmp_path / "a.h5", {}, feats=np.zeros((2, D), np.float16), coords=coords)
    file = open_features(path)
    assert file.coord_unit == "" and read_coords(file, mpp=0.5) is None
