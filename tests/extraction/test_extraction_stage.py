"""The extraction stage end to end on small slides."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pipeline.bags.files import open_features, read_coords, read_level
from pipeline.config.extraction import ExtractionConfig
from pipeline.contracts import ledger
from pipeline.encoders.build import build, encode
from pipeline.extraction import stage
from pipeline.extraction.engine import encoding
from tests.extraction.made import TINY, spoil, tissue, write_svs

Cohort = Callable[..., Path]


def _run(
    root: Path, cfg: ExtractionConfig, teacher: str = "tiny", versions: str = "c"
) -> dict[str, ledger.Record]:
    out = root / "features" / teacher / "manifest" / "0.json"
    stage.run(
        cfg=cfg,
        teachers=[teacher],
        versions={teacher: versions},
        root=root,
        chunk=0,
        out=out,
        workers=1,
        device="cpu",
    )
    return {r.slide_id: r for r in ledger.read_manifest(out)}


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_svs(tmp_path / "a.svs", tissue(320, 200))


def test_features_are_those_of_the_tiles(
    slide: Path, cohort: Cohort, config: ExtractionConfig
) -> None:
    root = cohort({"a": slide})
    record = _run(root, config)["a"]
    assert (record.status, record.path) == ("ok", "features/tiny/a.h5")
    assert record.facts["dims"] == {"low": 128, "mid": 256, "high": 512}
    assert record.facts["n_tiles"] == 70
    file = open_features(root / record.path)
    assert file.format == "pipeline"
    coords = read_coords(file)
    with h5py.File(root / "tiles/a.h5") as tiles:
        np.testing.assert_array_equal(coords, tiles["coords"])

    from pipeline.slides.slide import open_slide

    with open_slide(slide) as opened:
        pixels = np.stack([opened.read_region(int(x), int(y), 0, 32, 32) for x, y in coords])
    encoder = build("tiny", config.teachers["tiny"])
    expected = encode(encoder, torch.from_numpy(pixels))
    for level in ("low", "mid", "high"):
        got = read_level(file, level)
        assert got.dtype == np.float16
        np.testing.assert_allclose(
            got.astype(np.float32), expected[level].float().numpy(), rtol=2e-3, atol=2e-3
        )


def test_attributes_say_what_made_them(
    slide: Path, cohort: Cohort, config: ExtractionConfig
) -> None:
    root = cohort({"a": slide})
    _run(root, config)
    with h5py.File(root / "features/tiny/a.h5") as file:
        attributes = dict(file.attrs)
        assert file["coords"].attrs["patch_size_level0"] == 32
        assert file["features"].chunks == (70, 512)
    assert attributes["teacher"] == "tiny"
    assert attributes["model_id"] == "resnet10t"
    assert (attributes["weights"], attributes["revision"]) == ("random", "seed 0")
    assert attributes["transform"].startswith("resize 32")
    assert attributes["precision"] == "fp32"
    assert (attributes["dim"], attributes["dim_low"]) == (512, 128)
    assert attributes["complete"]


def test_a_finished_slide_is_left_alone(
    slide: Path, tmp_path: Path, cohort: Cohort, config: ExtractionConfig
) -> None:
    root = cohort({"a": slide})
    first = _run(root, config)
    path = root / "features/tiny/a.h5"
    before = path.stat().st_mtime_ns
    other = write_svs(tmp_path / "b.svs", tissue(320, 200, seed=1))
    cohort({"a": slide, "b": other})
    second = _run(root, config)
    assert path.stat().st_mtime_ns == before
    assert second["a"] == first["a"]
    assert second["b"].status == "ok"


@pytest.mark.parametrize("damage", ["truncate", "nan", "order", "fingerprint", "level", "rows"])
def test_an_unsound_file_is_made_again(
    slide: Path, cohort: Cohort, config: ExtractionConfig, damage: str
) -> None:
    root = cohort({"a": slide})
    _run(root, config)
    path = root / "features/tiny/a.h5"
    whole = read_level(open_features(path))
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        with h5py.File(path, "r+") as file:
            if damage == "nan":
                file["low"][3, 4] = np.nan
            elif damage == "order":
                file["coords"][:] = file["coords"][:][::-1]
            elif damage == "fingerprint":
                file.attrs["fingerprint"] = "other"
            elif damage == "level":
                del file["mid"]
            elif damage == "rows":
                file["features"].resize(69, axis=0)
    _run(root, config)
    with h5py.File(path) as file:
        assert np.isfinite(file["low"][:]).all()
        assert len(file["mid"]) == 70
    np.testing.assert_array_equal(read_level(open_features(path)), whole)


@pytest.mark.parametrize("change", ["versions", "config"])
def test_other_versions_or_config_makes_new_features(
    slide: Path, cohort: Cohort, config: ExtractionConfig, change: str
) -> None:
    root = cohort({"a": slide})
    _run(root, config)
    path = root / "features/tiny/a.h5"
    before = path.stat().st_mtime_ns
    if change == "config":
        config = ExtractionConfig.model_validate({"teachers": {"tiny": {**TINY, "seed": 9}}})
    _run(root, config, versions="d" if change == "versions" else "c")
    assert path.stat().st_mtime_ns != before


def test_features_do_not_depend_on_the_rest_of_the_chunk(
    slide: Path, tmp_path: Path, cohort: Cohort, config: ExtractionConfig
) -> None:
    root = cohort({"a": slide})
    _run(root, config)
    alone = read_level(open_features(root / "features/tiny/a.h5"))
    others = {
        s: write_svs(tmp_path / f"{s}.svs", tissue(320, 200, seed=i)) for i, s in enumerate("bc")
    }
    (root / "features/tiny/a.h5").unlink()
    cohort({**others, "a": slide})
    _run(root, config)
    np.testing.assert_array_equal(read_level(open_features(root / "features/tiny/a.h5")), alone)


def test_slides_that_fail_or_are_empty_have_records(
    slide: Path, tmp_path: Path, cohort: Cohort, config: ExtractionConfig
) -> None:
    (tmp_path / "broken.svs").write_bytes(slide.read_bytes()[:900])
    skipped = {
        "blank": ledger.Record("blank", "tiling", "empty", kind="no_tissue", reason="blank"),
        "nompp": ledger.Record("nompp", "tiling", "failed", kind="no_mpp", reason="no mpp"),
    }
    slides = {"a": slide, "broken": tmp_path / "broken.svs", "gone": tmp_path / "gone.svs"}
    root = cohort(slides, skipped)
    records = _run(root, config)
    found = {s: (r.status, r.kind) for s, r in records.items()}
    assert found["a"] == ("ok", "")
    assert found["blank"] == ("empty", "no_tissue")
    assert found["nompp"] == ("failed", "no_mpp")
    assert found["gone"] == ("failed", "missing_file")
    assert found["broken"][0] == "failed"
    assert records["gone"].stage == "extraction/tiny"
    assert sorted(p.name for p in (root / "features/tiny").glob("*")) == ["a.h5", "manifest"]


@pytest.mark.parametrize("way", ["jpeg", "regions"])
def test_a_tile_that_cannot_be_read(
    tmp_path: Path,
    cohort: Cohort,
    config: ExtractionConfig,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slide = write_svs(tmp_path / "a.svs", tissue(320, 200))
    spoil(slide, 2)  # x 128…191, y 0…63: four tiles of 32 px
    if way == "regions":
        monkeypatch.setattr("pipeline.slides.openslide_backend._plain_blocks", lambda *_: None)
    root = cohort({"a": slide})
    record = _run(root, config)["a"]
    assert (record.status, record.kind) == ("failed", "unreadable")
    assert not (root / "features/tiny/a.h5").exists()

    drop = config.model_copy(update={"on_bad_tile": "drop"})
    record = _run(root, drop)["a"]
    assert record.status == "ok"
    assert (record.facts["n_tiles"], record.facts["n_dropped"]) == (66, 4)
    coords = read_coords(open_features(root / record.path))
    inside = (coords[:, 0] >= 128) & (coords[:, 0] < 192) & (coords[:, 1] < 64)
    assert not inside.any()
    before = (root / record.path).stat().st_mtime_ns
    assert _run(root, drop)["a"] == record
    assert (root / record.path).stat().st_mtime_ns == before


def test_leftovers_of_killed_and_earlier_runs_are_cleared(
    slide: Path, cohort: Cohort, config: ExtractionConfig
) -> None:
    root = cohort({"a": slide, "b": slide})
    _run(root, config)
    folder = root / "features/tiny"
    (folder / f".a.h5.{socket.gethostname()}-4194999-0123abcd.tmp.h5").write_bytes(b"half")
    slide.write_bytes(slide.read_bytes()[:900])
    excluded = ledger.Record("b", "tiling", "excluded", kind="no_file", reason="x")
    cohort({"a": slide}, {"b": excluded})
    records = _run(root, config, versions="new")
    assert (records["a"].status, records["b"].status) == ("failed", "excluded")
    assert [p.name for p in folder.iterdir()] == ["manifest"]


def test_features_that_are_not_finite_fail_the_slide(
    slide: Path, cohort: Cohort, config: ExtractionConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(encoder: object, tiles: torch.Tensor) -> dict[str, torch.Tensor]:
        result = encode(encoder, tiles)  # type: ignore[arg-type]
        return {**result, "mid": torch.full_like(result["mid"], torch.inf)}

    monkeypatch.setattr(encoding, "encode", broken)
    root = cohort({"a": slide})
    record = _run(root, config)["a"]
    assert (record.status, record.kind) == ("failed", "not_finite")
    assert "fp32" in record.reason
    assert not (root / "features/tiny/a.h5").exists()


def test_a_full_disk_ends_the_job(
    slide: Path, cohort: Cohort, config: ExtractionConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.extraction.writer._flush", full)
    root = cohort({"a": slide})
    with pytest.raises(OSError, match="No space left"):
        _run(root, config)
    assert not (root / "features/tiny/manifest/0.json").exists()
    assert not list((root / "features/tiny").glob("*a.h5*"))


def test_together_equals_one_by_one(slide: Path, tmp_path: Path, cohort: Cohort) -> None:
    other = {**TINY, "model": "vit_tiny_patch16_224", "seed": 3}
    cfg = ExtractionConfig.model_validate({"teachers": {"tiny": TINY, "vit": other}})
    root = cohort({"a": slide, "b": write_svs(tmp_path / "b.svs", tissue(320, 200, seed=1))})
    records = [r for t in ("tiny", "vit") for r in _run(root, cfg, t).values()]
    alone = {t: read_level(open_features(root / f"features/{t}/a.h5"), "mid") for t in cfg.teachers}
    for path in root.glob("features/*/a.h5"):
        path.unlink()
    (root / "features/vit/b.h5").unlink()
    kept = (root / "features/tiny/b.h5").stat().st_mtime_ns
    out = root / "features/tiny+vit/manifest/0.json"

    def together() -> bytes:
        stage.run(
            cfg=cfg,
            teachers=["tiny", "vit"],
            versions={"tiny": "c", "vit": "c"},
            root=root,
            chunk=0,
            out=out,
            workers=1,
            device="cpu",
        )
        return out.read_bytes()

    first = together()
    assert sorted(ledger.read_manifest(out), key=str) == sorted(records, key=str)
    assert together() == first  # also when every slide was finished before
    assert (root / "features/tiny/b.h5").stat().st_mtime_ns == kept
    for teacher, values in alone.items():
        again = read_level(open_features(root / f"features/{teacher}/a.h5"), "mid")
        np.testing.assert_array_equal(again, values)
