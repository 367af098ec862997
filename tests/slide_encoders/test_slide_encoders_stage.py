"""The slide-encoder stage: feature files that later stages read like any other's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pipeline.bags.files import open_features, read_coords, read_level
from pipeline.config.slide_encoders import SlideEncodersJob
from pipeline.config.whole import Config
from pipeline.contracts import ledger
from pipeline.contracts.ledger import Record
from pipeline.contracts.teacher_check import TeacherCheck, write_teacher_check
from pipeline.encoders.slide_level.build import build, encode
from pipeline.errors import ArtifactError
from pipeline.extraction import exports
from pipeline.files.artifacts import new_hdf5
from pipeline.plan import stage_params
from pipeline.slide_encoders import stage

SIDE = 300
FACTS = {"tile_px": 256, "read_px": 300, "read_downsample": 1.0, "overlap": 0, "target_mpp": 0.5,
         "mpp_level0": 0.5 * 256 / SIDE}  # fmt: skip


def square(side: int) -> np.ndarray:
    return np.array([(x, y) for y in range(side) for x in range(side)], np.int32) * SIDE


class House:
    """A results folder with features of tiles, made here."""

    def __init__(self, root: Path, **encoder: Any) -> None:
        self.root = root
        settings = {"source": "slide", "model": "hipt_vit4k", "weights": "random"} | encoder
        tiles = {"source": "timm", "model": "resnet10t", "weights": "random"}
        settings["input"] = "tiles"
        teachers = {"tiles": tiles, "slides": settings}
        self.config = Config.model_validate({"extraction": {"teachers": teachers}})
        self.records: list[Record] = []

    def slide(
        self, name: str, coords: np.ndarray, dim: int = 6, mark: str = "a", shift: float = 0.0
    ) -> None:
        rng = np.random.default_rng(len(coords))
        path = self.root / "features" / "tiles" / f"{name}.h5"
        with new_hdf5(path, {"fingerprint": mark}) as file:
            values = rng.standard_normal((len(coords), dim)) + shift
            file["features"] = values.astype(np.float16)
            file.create_dataset("coords", data=coords).attrs.update(FACTS)
        self.add(name, path=f"features/tiles/{name}.h5")

    def add(self, name: str, status: Any = "ok", **more: Any) -> None:
        self.records = [r for r in self.records if r.slide_id != name]
        self.records.append(Record(name, "extraction/tiles", status, **more))

    @property
    def job(self) -> SlideEncodersJob:
        return stage_params.slide_encoders(self.config, "slides")

    def run(self) -> dict[str, Record]:
        folder = self.root / "features"
        ledger.write_manifest(folder / "tiles/manifest/0.json", "tiles", "", self.records)
        out = folder / "slides/manifest/0.json"
        stage.run(job=self.job, root=self.root, teacher="slides", chunk=0, out=out, device="cpu")
        return {r.slide_id: r for r in ledger.read_manifest(out)}


def test_a_region_teacher_has_a_row_for_each_region_and_says_which_are_not_full(
    tmp_path: Path,
) -> None:
    house = House(tmp_path)
    house.slide("a", square(20))
    record = house.run()["a"]
    assert (record.status, record.path) == ("ok", "features/slides/a.h5")
    assert record.facts == {
        "n_tiles": 4, "dims": {"high": 192}, "format": "pipeline", "partial_regions": 3,
    }  # fmt: skip
    file = open_features(tmp_path / record.path)
    assert read_coords(file) is None  # they are no tiles
    with h5py.File(tmp_path / record.path) as handle:
        assert handle["regions"][()].tolist() == [[0, 0], [4800, 0], [0, 4800], [4800, 4800]]
        assert handle["region_tiles"][()].tolist() == [256, 64, 64, 16]
        assert handle.attrs["pooling"] == "regions"


def test_regions_are_exported_as_hipts_own_training_reads_them(tmp_path: Path) -> None:
    house = House(tmp_path, pooling="patches")
    house.slide("a", square(20))
    house.run()
    made = exports.run(root=tmp_path, teacher="slides", tool="hipt", out=tmp_path / "out")
    assert made == [tmp_path / "out" / "a.pt"]
    found = torch.load(made[0], weights_only=True)
    assert found.shape == (4, 256, 6)
    tiles = read_level(open_features(tmp_path / "features/tiles/a.h5"))
    np.testing.assert_array_equal(found[0, 16].numpy(), tiles[20])  # below the first
    assert found[1].any(1).sum() == 64
    with pytest.raises(ArtifactError, match="its rows are no regions"):
        exports.run(root=tmp_path, teacher="tiles", tool="hipt", out=tmp_path / "out")


def test_a_vector_is_that_of_the_encoder(tmp_path: Path) -> None:
    house = House(tmp_path, model="gigapath_flash_slide", layers=[11])
    house.slide("a", square(3))
    record = house.run()["a"]
    assert record.facts["dims"] == {"high": 384} and record.facts["n_tiles"] == 1
    encoder = build("slides", house.config.extraction.teachers["slides"], 6)
    features = read_level(open_features(tmp_path / "features/tiles/a.h5"))
    wanted = encode(encoder, features, square(3), SIDE).values
    found = read_level(open_features(tmp_path / record.path))
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_tiles_in_another_order_are_the_same_slide(tmp_path: Path) -> None:
    house = House(tmp_path, model="gigapath_flash_slide")
    house.slide("a", square(3))
    first = read_level(open_features(tmp_path / house.run()["a"].path))
    order = np.random.default_rng(0).permutation(9)
    path = tmp_path / "features/tiles/a.h5"
    with h5py.File(path) as file:
        features = file["features"][()]
    with new_hdf5(path, {"fingerprint": "b"}) as file:
        file["features"] = features[order]
        file.create_dataset("coords", data=square(3)[order]).attrs.update(FACTS)
    again = read_level(open_features(tmp_path / house.run()["a"].path))
    np.testing.assert_array_equal(again, first)


def test_slides_that_tiles_lack_keep_their_reason_and_bad_grids_fail(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.slide("good", square(2))
    house.slide("askew", np.array([(0, 0), (130, 0)], np.int32))
    house.add("blank", "empty", kind="no_tiles", reason="no tissue")
    house.add("broken", "failed", kind="unreadable", reason="cut off")
    found = house.run()
    assert {name: (r.status, r.kind) for name, r in found.items()} == {
        "good": ("ok", ""),
        "askew": ("failed", "bad_grid"),
        "blank": ("empty", "no_tiles"),
        "broken": ("failed", "unreadable"),
    }
    assert found["broken"].reason == "cut off" and "no common grid" in found["askew"].reason
    assert {r.stage for r in found.values()} == {"extraction/slides"}


def test_finished_slides_are_left_alone_until_what_made_them_changes(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.slide("a", square(2))
    house.slide("b", square(2))
    paths = [tmp_path / r.path for r in house.run().values()]

    def made() -> list[int]:
        return [path.stat().st_mtime_ns for path in paths]

    first = made()
    house.run()
    assert made() == first
    house.slide("b", square(3), mark="other")  # other tiles of one slide
    house.run()
    second = made()
    assert second[0] == first[0] and second[1] != first[1]
    with h5py.File(paths[0], "r+") as file:  # a damaged file
        file["features"][0, 0] = 7
    house.run()
    third = made()
    assert third[0] != second[0] and third[1] == second[1]
    seeded = House(tmp_path, seed=1)
    seeded.records = house.records
    seeded.run()
    assert not set(made()) & set(third)


def test_a_slide_that_failed_leaves_no_file(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.slide("a", square(2))
    path = tmp_path / house.run()["a"].path
    house.add("a", "failed", kind="unreadable", reason="gone")
    house.run()
    assert not path.exists()


def test_features_of_different_widths_are_refused(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.slide("a", square(2))
    house.slide("b", square(2), dim=9)
    with pytest.raises(ArtifactError, match="has 9 features a tile, other files 6"):
        house.run()


def test_many_tiles_are_sampled_all_over_the_slide(tmp_path: Path) -> None:
    house = House(tmp_path, max_tiles=100)
    house.slide("a", square(32))
    path = tmp_path / house.run()["a"].path
    with h5py.File(path) as file:
        counts = file["region_tiles"][()]
    assert counts.sum() == 100 and len(counts) == 4 and counts.min() > 12


def test_another_weights_file_than_the_checked_one_is_refused(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.slide("a", square(2))
    check = TeacherCheck(
        dims={"high": 192}, pooling="regions", parameters=1, weights="local", revision="x",
        identity="x", teacher="slides", verified=[],
    )  # fmt: skip
    write_teacher_check(tmp_path / "features/slides/check.json", check)
    with pytest.raises(ArtifactError, match="not the weights file that was checked"):
        house.run()
