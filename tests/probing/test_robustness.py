"""Shifts change what they say and nothing else; the numbers are those of the embeddings."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config.extraction import TeacherConfig
from pipeline.config.probing import ProbingConfig, RobustnessConfig, RobustnessJob
from pipeline.config.whole import Config
from pipeline.contracts import ledger
from pipeline.contracts.robustness import Robustness, read_robustness
from pipeline.errors import UserError
from pipeline.probing import robustness
from pipeline.probing.robustness import likeness
from pipeline.probing.shifts import shifted
from pipeline.tile_training.augment import STAINS
from tests.extraction.made import TINY, grid_coords, spoil, tissue, write_svs, write_tiles

SHIFTS = RobustnessConfig(tiles=60, stain=(0.2,), blur=(1.0,), jpeg=(10,), scale=(0.8, 1.25))


def some_tiles(count: int = 4) -> torch.Tensor:
    return torch.from_numpy(np.stack([tissue(32, 32, seed) for seed in range(count)]))


@pytest.mark.parametrize("kind, strength", SHIFTS.shifts())
def test_a_shift_changes_tiles_a_little_and_always_in_the_same_way(
    kind: str, strength: float
) -> None:
    tiles = some_tiles()
    before = tiles.clone()
    one, two = (shifted(tiles, kind, strength, 3) for _ in range(2))
    assert torch.equal(one, two) and torch.equal(tiles, before)
    assert one.shape == tiles.shape and one.dtype == torch.uint8
    change = (one.float() - tiles.float()).abs().mean()
    assert 0.5 < change < 60


def test_stain_is_more_or_less_of_haematoxylin_and_eosin() -> None:
    stains = np.array(STAINS)
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    amounts = np.array([0.5, 0.3, 0.0])
    colour = np.exp(-amounts @ stains) * 256 - 1
    tiles = torch.from_numpy(np.tile(colour.round().astype(np.uint8), (16, 4, 4, 1)))
    density = -np.log((shifted(tiles, "stain", 0.2, 0).numpy()[:, 0, 0] + 1.0) / 256)
    found = density @ np.linalg.inv(stains) / [0.5, 0.3, 1]
    for column in (0, 1):
        low, high = np.sort(found[:, column])[[0, -1]]
        assert low == pytest.approx(0.8, abs=0.03) and high == pytest.approx(1.2, abs=0.03)
    assert np.abs(found[:, 2]).max() < 0.03


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_scale_enlarges_about_the_centre(factor: float) -> None:
    tiles = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    tiles[:, 24:40, 24:40] = 255  # 16 pixels wide
    wide = shifted(tiles, "scale", factor, 0)[0, 32, :, 0] > 127
    at = torch.nonzero(wide[8:56] if factor < 1 else wide)[:, 0] + (8 if factor < 1 else 0)
    assert len(at) == pytest.approx(16 * factor, abs=1)
    assert float(at.float().mean()) == pytest.approx(31.5, abs=0.6)


def test_likeness_of_embeddings() -> None:
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(40, 8)).astype(np.float32)
    assert likeness(clean, clean) == pytest.approx((1, 1, 1))
    # What all have in common makes any two alike; the centred cosine does not see it.
    common = clean + 100
    other = rng.permutation(common)
    plain, centred, found = likeness(common, other)
    assert plain > 0.99 and abs(centred) < 0.2 and found < 0.2
    turned = likeness(clean, 2 * clean.mean(0) - clean)
    assert turned[1] == pytest.approx(-1, abs=1e-5)


def results_folder(root: Path, labels: bool = True) -> Path:
    """Four slides, dark on the left and pale on the right, which is what their tiles are called."""
    records, rows = [], []
    for number in range(4):
        slide = f"s{number}"
        image = tissue(192, 96, number) // 3
        image[:, 96:] += 160
        path = write_svs(root / f"{slide}.svs", image)
        coords = grid_coords(192, 96, 32)
        write_tiles(root / "tiles" / f"{slide}.h5", coords)
        with h5py.File(root / "tiles" / f"{slide}.h5", "a") as file:
            file.attrs["level0_width"], file.attrs["level0_height"] = 192, 96
            if labels:
                names = ["pale" if x >= 96 else "dark" for x, _ in coords]
                file.create_dataset("label", data=names, dtype=h5py.string_dtype("utf-8"))
        records.append(ledger.Record(slide, "tiling", "ok", path=f"tiles/{slide}.h5"))
        rows.append({"slide_id": slide, "case_id": f"c{number}", "path": str(path), "chunk": 0})
    ledger.write_manifest(root / "tiles/manifest/0.json", "tiling", "f", records)
    pd.DataFrame(rows).to_parquet(root / "slides.parquet")
    return root


def run(root: Path) -> Robustness:
    job = RobustnessJob(
        probing=ProbingConfig(robustness=SHIFTS, folds=4, bootstraps=50),
        settings=TeacherConfig.model_validate(TINY),
        facts={},
        precision="fp32",
        weights_dir=None,
        tiles="tiles",
        annotations="",
    )
    robustness.run(job=job, root=root, teacher="t", base=root, workers=1, device="cpu")
    return read_robustness(root, "t")


def test_a_teacher_is_measured_on_tiles_with_classes(tmp_path: Path) -> None:
    found = run(results_folder(tmp_path))
    assert (found.n_tiles, found.n_slides, found.n_cases, found.reason) == (60, 4, 4, "")
    assert found.clean is not None and found.clean > 0.95  # dark from pale is easy
    assert [(row.shift, row.strength) for row in found.rows] == SHIFTS.shifts()
    for row in found.rows:
        assert row.centred <= row.cosine < 1 and 0 <= row.found <= 1
        assert row.score is not None and row.loss == pytest.approx(found.clean - row.score)
    table = pd.read_csv(tmp_path / "probing/robustness/t.csv")
    assert table["cosine"].tolist() == pytest.approx([row.cosine for row in found.rows], rel=1e-4)


def test_without_classes_there_is_no_score_and_a_reason(tmp_path: Path) -> None:
    found = run(results_folder(tmp_path, labels=False))
    assert found.clean is None and "no tile has a class" in found.reason
    assert all(row.score is None and row.loss is None for row in found.rows)
    assert found.rows[0].cosine > 0


def test_tiles_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    root = results_folder(tmp_path)
    spoil(root / "s1.svs", 0)
    found = run(root)
    assert found.unreadable > 0 and found.n_tiles == 60 - found.unreadable
    for number in range(4):
        (root / f"s{number}.svs").unlink()
    with pytest.raises(UserError, match="none of 60 tiles can be read"):
        run(root)


def test_only_networks_of_tiles_are_measured() -> None:
    data = {
        "probing": {"robustness": {"tiles": 10}},
        "extraction": {
            "teachers": {"net": TINY, "files": {"source": "import", "path": "features"}}
        },
        "encoder_distillation": {"students": {"mine": {"encoder": TINY, "pool": "all"}}},
    }
    assert Config.model_validate(data).robust() == [
        "net", "mine_transductive", "mine_undistilled",
    ]  # fmt: skip
    assert Config.model_validate(data | {"probing": {}}).robust() == []
    nothing = {"stain": [], "blur": [], "jpeg": [], "scale": []}
    with pytest.raises(ValueError, match="no shift has a strength"):
        RobustnessConfig.model_validate(nothing)
