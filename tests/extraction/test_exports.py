"""What is exported comes back the same, by our reader and as the tools themselves would read it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.bags.files import open_features, read_coords, read_level
from pipeline.config.extraction import ExtractionConfig
from pipeline.contracts import ledger
from pipeline.errors import ArtifactError, UserError
from pipeline.extraction import exports, imports
from pipeline.extraction.writer import Block, feature_file
from pipeline.tile_reading.grid import Grid
from tests.extraction.made import grid_coords

ATTRIBUTES = {
    "patch_size": 224,
    "patch_size_level0": 448,
    "level0_magnification": 40,
    "target_magnification": 20,
    "overlap": 0,
    "name": "a",
    "level0_width": 4000,
    "level0_height": 2000,
    "mpp_level0": 0.25,
    "target_mpp": 0.5,
    "tile_px": 224,
    "read_level": 1,
    "read_downsample": 4.0,
    "read_px": 112,
}
COORDS = grid_coords(2240, 1792, 448)
FEATURES = np.random.default_rng(0).normal(size=(len(COORDS), 6)).astype(np.float16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "results"
    grid = Grid(COORDS, 1, 4.0, 112, "f", ATTRIBUTES)
    path = root / "features/t/a.h5"
    with feature_file(path, grid, {"low": 3, "high": 6}, {"fingerprint": "x"}) as append:
        for rows in np.array_split(np.arange(len(COORDS)), 3):
            append(Block(rows, {"low": FEATURES[rows, :3], "high": FEATURES[rows]}))
    records = [
        ledger.Record("a", "extraction/t", "ok", path="features/t/a.h5"),
        ledger.Record("b", "extraction/t", "failed", kind="unreadable", reason="x"),
    ]
    ledger.write_manifest(root / "features/t/manifest/0.json", "extraction/t", "f", records)
    return root


def _back(folder: Path, tmp_path: Path, pattern: str) -> ledger.Record:
    """Import a folder as a teacher."""
    root = tmp_path / "again"
    (root / "slides").mkdir(parents=True)
    pd.DataFrame([{"slide_id": "a", "case_id": "a", "path": "", "chunk": 0}]).to_parquet(
        root / "slides" / "0.parquet"
    )
    teacher = {"source": "import", "path": str(folder), "pattern": pattern}
    cfg = ExtractionConfig.model_validate({"teachers": {"t": teacher}})
    out = root / "0.json"
    imports.run(cfg=cfg, teacher="t", root=root, chunk=0, out=out)
    (record,) = ledger.read_manifest(out)
    return record


@pytest.mark.parametrize(
    ("tool", "pattern", "layout"),
    [
        ("clam", "pt_files/{slide_id}.pt", "pt"),
        ("clam", "h5_files/{slide_id}.h5", "h5"),
        ("trident", "20x_224px_0px_overlap/features_t/{slide_id}.h5", "h5"),
        ("stamp", "t/{slide_id}.h5", "stamp"),
    ],
)
def test_round_trip(root: Path, tmp_path: Path, tool: str, pattern: str, layout: str) -> None:
    out = tmp_path / "out"
    made = exports.run(root=root, teacher="t", tool=tool, out=out)  # type: ignore[arg-type]
    assert all(path.is_file() and path.stem == "a" for path in made)
    record = _back(out, tmp_path, pattern)
    assert (record.status, record.facts["format"]) == ("ok", layout)
    file = open_features(record.path)
    np.testing.assert_array_equal(read_level(file).astype(np.float16), FEATURES)
    coords = read_coords(file, mpp=0.25)
    if layout == "pt":
        assert coords is None
    else:
        np.testing.assert_array_equal(coords, COORDS)


def test_clam_can_read_its_patches(root: Path, tmp_path: Path) -> None:
    exports.run(root=root, teacher="t", tool="clam", out=tmp_path)
    tensor = torch.load(tmp_path / "pt_files/a.pt", weights_only=True)
    assert tensor.dtype == torch.float32
    with h5py.File(tmp_path / "patches/a.h5") as file:
        attributes = file["coords"].attrs
        assert (attributes["patch_level"], attributes["patch_size"]) == (1, 112)
        assert attributes["level_dim"].tolist() == [1000, 500]
        assert len(file["coords"]) == len(tensor)


def test_trident_finds_its_attributes(root: Path, tmp_path: Path) -> None:
    (path,) = exports.run(root=root, teacher="t", tool="trident", out=tmp_path)
    with h5py.File(path) as file:
        assert file["features"].dtype == np.float32
        assert file["coords"].attrs["patch_size_level0"] == 448
        assert file["features"].attrs["encoder"] == "t"


def test_stamp_finds_microns(root: Path, tmp_path: Path) -> None:
    (path,) = exports.run(root=root, teacher="t", tool="stamp", out=tmp_path)
    with h5py.File(path) as file:
        assert file.attrs["unit"] == "um"
        assert file.attrs["tile_size_um"] == 112.0
        np.testing.assert_allclose(file["coords"][:], COORDS * 0.25)


def test_other_level(root: Path, tmp_path: Path) -> None:
    (path,) = exports.run(root=root, teacher="t", tool="stamp", out=tmp_path, level="low")
    np.testing.assert_array_equal(read_level(open_features(path)), FEATURES[:, :3])
    with pytest.raises(ArtifactError, match=r"a\.h5.*no level `mid`"):
        exports.run(root=root, teacher="t", tool="stamp", out=tmp_path, level="mid")


def test_teachers_that_were_extracted_together(root: Path, tmp_path: Path) -> None:
    records = [
        ledger.Record("a", "extraction/t", "ok", path="features/t/a.h5"),
        ledger.Record("a", "extraction/u", "ok", path="features/u/a.h5"),
    ]
    (root / "features/t/manifest/0.json").unlink()
    ledger.write_manifest(root / "features/t+u/manifest/0.json", "extraction/t+u", "f", records)
    (path,) = exports.run(root=root, teacher="t", tool="stamp", out=tmp_path)
    assert path == tmp_path / "t" / "a.h5"


def test_nothing_to_export(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="teacher `other` has no features"):
        exports.run(root=root, teacher="other", tool="clam", out=tmp_path)
