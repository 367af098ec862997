"""The stage as the workflow runs it: files, manifest, what is skipped, what fails and how."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile

from pipeline.config.tiling import TilingConfig
from pipeline.contracts.ledger import read_manifest
from pipeline.errors import ArtifactError, MachineError
from pipeline.files.artifacts import read_json
from pipeline.files.checksums import CHECKSUM, checksum
from pipeline.slides.polygons import Polygon, read_geojson, write_geojson
from pipeline.tiling import stage, write
from tests.slides import files

CFG = TilingConfig()


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> Path:
    """A folder with one slide of each fate."""
    folder = tmp_path_factory.mktemp("slides")
    image = files.tissue_image(1300, 1700)
    files.write_aperio(folder / "good.svs", image)
    files.write_ome(folder / "fine.ome.tif", image, mpp=0.25)
    files.write_aperio(folder / "nompp.svs", image, mpp=None, power=None)
    files.write_aperio(folder / "wrong.svs", image, mpp=5.0, power=40)
    files.write_aperio(folder / "coarse.svs", image, mpp=1.0, power=10)
    files.write_aperio(folder / "blank.svs", np.full_like(image, 243))
    files.write_aperio(folder / "dark.svs", image // 8)
    cut = files.write_aperio(folder / "cut.svs", image)
    cut.write_bytes(cut.read_bytes()[:-20_000])
    files.write_bomb(folder / "bomb.tif")
    (folder / "text.svs").write_text("not a slide")
    return folder


FATES = {
    "good": ("ok", ""),
    "fine": ("ok", ""),
    "nompp": ("failed", "no_mpp"),
    "wrong": ("failed", "implausible_mpp"),
    "coarse": ("failed", "too_coarse"),
    "blank": ("empty", "no_tissue"),
    "dark": ("failed", "not_brightfield"),
    "cut": ("failed", "truncated"),
    "bomb": ("failed", "too_large"),
    "text": ("failed", "unopenable"),
    "absent": ("failed", "missing_file"),
    "none": ("excluded", "no_file"),
}


def write_table(root: Path, folder: Path, names=FATES, chunk: int = 0, **columns) -> None:
    found = {path.name.split(".")[0]: str(path) for path in folder.iterdir()}
    paths = {**found, "absent": str(folder / "absent.svs"), "none": ""}
    rows = pd.DataFrame({"slide_id": list(names)})
    rows["case_id"] = rows["slide_id"]
    rows["path"] = [paths[name] for name in rows["slide_id"]]
    rows["mpp"], rows["mask"], rows["coordinates"], rows["site"] = np.nan, "", "", ""
    rows["chunk"], rows["identity"] = chunk, ""
    for column, values in columns.items():
        rows[column] = rows["slide_id"].map(values).fillna(rows[column])
    root.mkdir(parents=True, exist_ok=True)
    (root / "slides").mkdir(parents=True, exist_ok=True)
    rows.to_parquet(root / "slides" / f"{chunk}.parquet")


def run(root: Path, cfg=CFG, versions="c0", chunk=0, workers=2) -> dict:
    out = root / "tiles" / "manifest" / f"{chunk}.json"
    stage.run(cfg=cfg, versions=versions, root=root, chunk=chunk, out=out, workers=workers)
    return {record.slide_id: record for record in read_manifest(out)}


@pytest.fixture(scope="module")
def done(tmp_path_factory, slides):
    root = tmp_path_factory.mktemp("results") / "cohort"
    write_table(root, slides)
    return root, run(root)


def test_every_slide_is_in_the_manifest_with_its_fate(done):
    _, records = done
    assert {n: (r.status, r.kind) for n, r in records.items()} == FATES
    for name, record in records.items():
        assert record.stage == "tiling"
        assert (record.reason == "") == (record.status == "ok"), name
        assert "\n" not in record.reason


def test_the_files_of_a_slide(done):
    root, records = done
    facts = records["good"].facts
    assert records["good"].path == "tiles/good.h5"
    with h5py.File(root / records["good"].path) as file:
        coords, fraction = file["coords"][:], file["tissue_fraction"][:]
        attributes, trident = dict(file.attrs), dict(file["coords"].attrs)
    assert trident.pop(CHECKSUM) == checksum(coords)
    assert coords.dtype == np.int32 and fraction.dtype == np.float32
    assert len(coords) == len(fraction) == facts["n_tiles"] > 5
    assert np.array_equal(coords, coords[np.lexsort((coords[:, 0], coords[:, 1]))])
    assert (coords >= 0).all() and (coords + 224 <= (1700, 1300)).all()
    assert (fraction >= 0.5).all() and (fraction <= 1).all()
    assert (
        {k: attributes[k] for k in trident}
        == trident
        == {
            "patch_size": 224,
            "patch_size_level0": 224,
            "level0_magnification": 20,
            "target_magnification": 20,
            "overlap": 0,
            "name": "good",
            "savetodir": "",
            "level0_width": 1700,
            "level0_height": 1300,
        }
    )
    assert attributes["complete"] and attributes["mpp_level0"] == 0.5
    assert attributes["mpp_source"] == "aperio.MPP" and attributes["tile_um"] == 112
    assert attributes["read_level"] == 0 and attributes["read_px"] == 224
    assert facts["tissue_mm2"] == pytest.approx(np.pi * 0.35**2 * 1.7 * 1.3 / 4, rel=0.05)
    assert facts["backend"] == "openslide" and facts["warnings"] == []
    for name in ("tiles/qc/good.jpg", "tiles/thumbnails/good.jpg"):
        assert cv2.imread(str(root / name)) is not None
    assert read_geojson(root / "tiles" / "good.geojson")
    assert not list(root.rglob("*.tmp*"))


def test_tiles_have_the_physical_size_on_every_scanner(done):
    root, records = done
    assert records["fine"].facts["backend"] == "tifffile"
    with h5py.File(root / "tiles" / "fine.h5") as file:
        assert file.attrs["patch_size_level0"] == 448 and file.attrs["read_level"] == 1
        assert file.attrs["read_px"] == 224 and file.attrs["read_downsample"] == 2
        assert file.attrs["level0_magnification"] == 40


def test_an_empty_slide_keeps_its_picture_and_failed_ones_leave_nothing(done):
    root, _ = done
    made = {path.stem for path in (root / "tiles").glob("*.h5")}
    assert made == {"good", "fine", "blank"}
    with h5py.File(root / "tiles" / "blank.h5") as file:
        assert file["coords"].shape == (0, 2)
    assert (root / "tiles" / "qc" / "blank.jpg").is_file()
    assert not (root / "tiles" / "qc" / "cut.jpg").exists()


def snapshot(root: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (root / "tiles").glob("*.h5")}


def test_only_what_changed_is_computed_again(tmp_path, slides):
    root = tmp_path / "cohort"
    names = ["good", "fine"]
    write_table(root, slides, names)
    first = run(root)
    manifest = (root / "tiles" / "manifest" / "0.json").read_bytes()
    before = snapshot(root)
    assert run(root) == first and snapshot(root) == before
    assert (root / "tiles" / "manifest" / "0.json").read_bytes() == manifest

    write_table(root, slides, [*names, "blank"])  # a new slide
    run(root)
    after = snapshot(root)
    assert {n: after[n] for n in before} == before and "blank.h5" in after

    write_table(root, slides, [*names, "blank"], mpp={"fine": 0.24})  # one override
    records = run(root)
    assert records["fine"].facts["mpp_source"] == "sheet"
    changed = {n for n, t in snapshot(root).items() if t != after[n]}
    assert changed == {"fine.h5"}

    after = snapshot(root)
    (root / "tiles" / "good.h5").write_bytes(b"cut by a crash")
    run(root)
    assert {n for n, t in snapshot(root).items() if t != after[n]} == {"good.h5"}

    after = snapshot(root)
    run(root, versions="c1")
    assert all(t != after[n] for n, t in snapshot(root).items())


def test_an_edited_outline_replaces_the_segmentation_of_its_slide_alone(tmp_path, slides):
    root = tmp_path / "cohort"
    write_table(root, slides, ["good", "fine"])
    free = run(root)
    before = snapshot(root)
    corner = np.array([(0, 0), (900, 0), (900, 900), (0, 900)], float)
    mask = tmp_path / "good.geojson"
    write_geojson(mask, [Polygon((corner,), "Tumour"), Polygon((corner / 2 + 900,), "Stroma")])
    write_table(root, slides, ["good", "fine"], mask={"good": str(mask)})
    records = run(root)
    assert {n for n, t in snapshot(root).items() if t != before[n]} == {"good.h5"}
    assert records["fine"] == free["fine"]
    assert records["good"].facts["tissue_source"] == "mask"
    with h5py.File(root / "tiles" / "good.h5") as file:
        coords, labels = file["coords"][:], file["label"].asstr()[:]
    assert set(labels) == {"Tumour", "Stroma"}
    assert (coords[labels == "Tumour"] < 900).all() and (coords[labels == "Stroma"] >= 896).all()
    assert {p.name for p in read_geojson(root / "tiles" / "good.geojson")} == {"Tumour", "Stroma"}

    before = snapshot(root)
    write_geojson(mask, [Polygon((corner,), "Tissue")])  # the same file, edited
    run(root)
    assert {n for n, t in snapshot(root).items() if t != before[n]} == {"good.h5"}
    with h5py.File(root / "tiles" / "good.h5") as file:
        assert "label" not in file and len(file["coords"]) == 16

    mask.write_text("{")
    assert run(root)["good"].kind == "bad_mask"
    assert not (root / "tiles" / "good.h5").exists()  # no stale tiles for anyone to use


def test_policies_for_slides_without_a_scale(tmp_path, slides):
    root = tmp_path / "cohort"
    write_table(root, slides, ["nompp", "wrong"])
    records = run(root, TilingConfig(mpp_policy="reject"))
    assert {(r.status, r.kind) for r in records.values()} == {
        ("excluded", "no_mpp"),
        ("excluded", "implausible_mpp"),
    }
    records = run(root, TilingConfig(mpp_policy="default", default_mpp=0.5))
    for record in records.values():
        assert record.status == "ok" and record.facts["mpp_source"] == "default"
        assert any("default_mpp" in w["text"] for w in record.facts["warnings"])


def test_max_tiles_is_the_same_whatever_else_is_in_the_run(tmp_path, slides):
    cfg = TilingConfig(max_tiles=7)
    alone, together = tmp_path / "a" / "x", tmp_path / "b" / "x"
    write_table(alone, slides, ["good"])
    write_table(together, slides, ["fine", "good", "blank"])
    first, second = run(alone, cfg), run(together, cfg)
    assert first["good"] == second["good"]
    assert first["good"].facts["n_tiles"] == 7 < first["good"].facts["n_candidates"]
    with (
        h5py.File(alone / "tiles" / "good.h5") as a,
        h5py.File(together / "tiles" / "good.h5") as b,
    ):
        assert np.array_equal(a["coords"][:], b["coords"][:])


def test_other_chunks_are_left_alone(tmp_path, slides):
    root = tmp_path / "cohort"
    write_table(root, slides, ["fine"], chunk=0)
    write_table(root, slides, ["good"], chunk=3)
    assert list(run(root, chunk=3)) == ["good"]


def test_a_full_disk_is_not_the_slides_fault(tmp_path, slides, monkeypatch):
    def full(*_args, **_keys):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stage, "write", full)
    with pytest.raises(OSError, match="No space"):
        stage.run_slide(cfg=CFG, versions="", slide=slides / "good.svs", out_dir=tmp_path / "tiles")
    monkeypatch.setattr(stage, "examine", full)
    with pytest.raises(OSError, match="No space"):
        stage.run_slide(cfg=CFG, versions="", slide=slides / "good.svs", out_dir=tmp_path / "tiles")


def test_nothing_is_half_written(tmp_path, slides, monkeypatch):
    def stop(*_args, **_keys):
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "write_geojson", stop)
    out = tmp_path / "tiles"
    with pytest.raises(KeyboardInterrupt):
        stage.run_slide(cfg=CFG, versions="", slide=slides / "good.svs", out_dir=out)
    assert not (out / "good.h5").exists()
    monkeypatch.undo()
    record = stage.run_slide(cfg=CFG, versions="", slide=slides / "good.svs", out_dir=out)
    assert record.status == "ok" and (out / "good.h5").exists()


def crash(to, job, cfg, code, folder):
    """In a worker's place: what a decoder does with a damaged file."""
    os.kill(os.getpid(), signal.SIGSEGV)


def run_out_of_memory(to, job, cfg, code, folder):
    """In a worker's place: what the kernel does with the largest process."""
    os.kill(os.getpid(), signal.SIGKILL)


def deaths(monkeypatch: pytest.MonkeyPatch, end) -> None:
    """Every process that tiles the slide `fine` ends like this."""
    pooled = stage._pooled

    def in_a_pool(jobs, cfg, code, folder, workers):
        if any(job.slide_id == "fine" for job in jobs):
            raise BrokenProcessPool
        yield from pooled(jobs, cfg, code, folder, workers)

    def alone(job, cfg, code, folder):
        if job.slide_id != "fine":
            return tile_alone(job, cfg, code, folder)
        monkeypatch.setattr(stage, "_send", end)
        return tile_alone(job, cfg, code, folder)

    tile_alone = stage._tile_alone
    monkeypatch.setattr(stage, "_pooled", in_a_pool)
    monkeypatch.setattr(stage, "_tile_alone", alone)


def test_a_slide_that_crashes_the_decoder_takes_no_other_with_it(tmp_path, slides, monkeypatch):
    root = tmp_path / "cohort"
    write_table(root, slides, ["good", "fine"])
    deaths(monkeypatch, crash)
    records = run(root)
    assert records["good"].status == "ok"
    assert (records["fine"].status, records["fine"].kind) == ("failed", "crashed")


def test_a_worker_killed_for_want_of_memory_blames_no_slide(tmp_path, slides, monkeypatch):
    root = tmp_path / "cohort"
    write_table(root, slides, ["good", "fine"])
    with monkeypatch.context() as patch:
        deaths(patch, run_out_of_memory)
        with pytest.raises(MachineError, match=r"fine.*mem_mb"):
            run(root)
    assert not (root / "tiles" / "manifest").exists(), "a manifest is final"
    kept = (root / "tiles" / "good.h5").stat().st_mtime_ns
    assert {r.status for r in run(root).values()} == {"ok"}
    assert (root / "tiles" / "good.h5").stat().st_mtime_ns == kept


def test_a_missing_or_damaged_table_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="missing; run the stage that makes it"):
        run(tmp_path)
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "0.parquet").write_text("x")
    with pytest.raises(ArtifactError, match="damaged"):
        run(tmp_path)


def test_manifests_are_canonical(done):
    root, records = done
    data = read_json(root / "tiles" / "manifest" / "0.json")
    assert [row["slide_id"] for row in data["slides"]] == sorted(records)
    assert json.loads(json.dumps(data, allow_nan=False)) == data


ONE_SLIDE = """
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from pipeline.config.tiling import TilingConfig
from pipeline.tiling import stage
slide, out = map(Path, sys.argv[1:])
record = stage.run_slide(cfg=TilingConfig(), versions="", slide=slide, out_dir=out)
assert record.status == "ok", record
heavy = {"torch", "timm", "pandas", "scipy", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


def test_one_slide_needs_neither_torch_nor_pandas(tmp_path, slides):
    arguments = [sys.executable, "-c", ONE_SLIDE, str(slides / "good.svs"), str(tmp_path)]
    subprocess.run(arguments, check=True, cwd=Path(__file__).parents[2])


def test_a_slide_that_is_too_coarse_by_a_slip_of_its_unit_says_so(tmp_path):
    path = tmp_path / "a.tif"
    tag = {"resolution": (1e4 / 0.25,) * 2, "resolutionunit": "inch"}
    options = {"photometric": "rgb", "tile": (256, 256), "metadata": None}
    tifffile.imwrite(path, files.tissue_image(512, 512), **options, **tag)
    record = stage.run_slide(cfg=TilingConfig(), versions="", slide=path, out_dir=tmp_path / "t")
    assert record.kind == "too_coarse"
    assert "0.25 if its resolution is in pixels per cm, not per inch" in record.reason
