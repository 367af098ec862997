"""Imported teachers: every slide of the chunk gets a record, and mismatches list the files."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.bags.files import open_features, read_coords, read_level
from pipeline.config.extraction import ExtractionConfig
from pipeline.contracts import ledger, slide_warnings
from pipeline.errors import ArtifactError, ConfigError, MachineError
from pipeline.extraction import imports
from pipeline.extraction.locate import check_not_shared, expected_files

REAL = Path(os.environ.get("SHAZAM_REAL_DATA", "../shared/data"))


def _cohort(root: Path, slides: list[str], chunks: int = 1) -> None:
    root.mkdir(exist_ok=True)
    rows = [
        {"slide_id": s, "case_id": f"case_{s}", "path": "", "chunk": ledger.chunk_of(s, chunks)}
        for s in slides
    ]
    (root / "slides").mkdir(parents=True, exist_ok=True)
    for chunk, part in pd.DataFrame(rows).groupby("chunk"):
        part.to_parquet(root / "slides" / f"{chunk}.parquet")


def _features(
    path: Path, rows: int = 4, dim: int = 3, value: float | None = None, **attributes: str
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).normal(size=(rows, dim))
    with h5py.File(path, "w") as file:
        file["features"] = (values if value is None else np.full_like(values, value)).astype("f4")
        file.attrs.update(attributes)


def _config(folder: Path, **more: object) -> ExtractionConfig:
    teacher = {"source": "import", "path": str(folder), **more}
    return ExtractionConfig.model_validate({"teachers": {"old": teacher}})


def _run(tmp_path: Path, cfg: ExtractionConfig, chunk: int = 0) -> dict[str, ledger.Record]:
    out = tmp_path / "results" / "features" / "old" / "manifest" / f"{chunk}.json"
    imports.run(cfg=cfg, teacher="old", root=tmp_path / "results", chunk=chunk, out=out)
    return {r.slide_id: r for r in ledger.read_manifest(out)}


def test_every_slide_gets_a_record(tmp_path: Path) -> None:
    _cohort(tmp_path / "results", ["good", "absent", "nan", "empty", "broken"])
    folder = tmp_path / "given"
    _features(folder / "good.h5")
    _features(folder / "nan.h5", value=np.nan)
    _features(folder / "empty.h5", rows=0)
    (folder / "broken.h5").write_text("x")
    records = _run(tmp_path, _config(folder))
    assert {s: (r.status, r.kind) for s, r in records.items()} == {
        "good": ("ok", ""),
        "absent": ("failed", "missing_features"),
        "nan": ("failed", "bad_features"),
        "empty": ("empty", "no_tiles"),
        "broken": ("failed", "bad_features"),
    }
    good = records["good"]
    assert good.stage == "extraction/old"
    assert Path(good.path) == folder / "good.h5"
    marks = good.facts.pop("marks")
    assert np.linalg.norm(good.facts.pop("sketch")) == pytest.approx(1, abs=0.01)
    assert good.facts == {"n_tiles": 4, "dims": {"high": 3}, "format": "h5"}
    assert set(marks) == {"norm", "offset", "negative"}
    assert "broken.h5" in records["broken"].reason


def test_files_that_another_program_holds_are_used(tmp_path: Path) -> None:
    _cohort(tmp_path / "results", ["a"])
    _features(tmp_path / "given" / "a.h5")
    with (tmp_path / "given" / "a.h5").open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert _run(tmp_path, _config(tmp_path / "given"))["a"].status == "ok"


@pytest.mark.parametrize("half", [b"\x89HDF\r\n\x1a\n", b""])
def test_a_half_written_file_waits_for_its_writer(tmp_path: Path, half: bytes) -> None:
    """Its row in the manifest would be final."""
    _cohort(tmp_path / "results", ["a"])
    path = tmp_path / "given" / "a.h5"
    path.parent.mkdir()
    path.write_bytes(half)
    with path.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(MachineError, match=r"a\.h5: another program is still writing it"):
            _run(tmp_path, _config(tmp_path / "given"))
    assert not list(tmp_path.rglob("0.json"))
    assert _run(tmp_path, _config(tmp_path / "given"))["a"].kind == "bad_features"


def test_chunks_partition_the_slides(tmp_path: Path) -> None:
    slides = [f"s{i}" for i in range(12)]
    _cohort(tmp_path / "results", slides, chunks=2)
    for s in slides:
        _features(tmp_path / "given" / f"{s}.h5")
    parts = [set(_run(tmp_path, _config(tmp_path / "given"), c)) for c in (0, 1)]
    assert parts[0] | parts[1] == set(slides)
    assert not parts[0] & parts[1]
    assert parts[0] and parts[1]


def test_pattern_by_case_and_folder(tmp_path: Path) -> None:
    _cohort(tmp_path / "results", ["a"])
    _features(tmp_path / "given" / "case_a" / "a_feats.h5")
    records = _run(tmp_path, _config(tmp_path / "given", pattern="{case_id}/{slide_id}_feats.h5"))
    assert records["a"].status == "ok"


def test_table_maps_slides_to_files(tmp_path: Path) -> None:
    _cohort(tmp_path / "results", ["a", "b"])
    _features(tmp_path / "given" / "odd name.h5")
    table = tmp_path / "table.csv"
    table.write_text("slide_id,path\na,odd name.h5\n")
    records = _run(tmp_path, _config(tmp_path / "given", table=str(table)))
    assert records["a"].status == "ok"
    assert (records["b"].kind, "table" in records["b"].reason) == ("missing_features", True)
    table.write_text("slide,path\na,odd name.h5\n")
    with pytest.raises(ConfigError, match=r"table\.csv.*slide_id"):
        _run(tmp_path, _config(tmp_path / "given", table=str(table)))
    table.write_text("slide_id,path\na,x\na,y\n")
    with pytest.raises(ConfigError, match="occur twice: a"):
        _run(tmp_path, _config(tmp_path / "given", table=str(table)))


def test_no_slide_matches_names_both_sides(tmp_path: Path) -> None:
    _cohort(tmp_path / "results", ["TCGA-1"])
    _features(tmp_path / "given" / "TCGA-1.uuid.h5")
    with pytest.raises(ConfigError, match=r"TCGA-1\.h5.*TCGA-1\.uuid\.h5") as caught:
        _run(tmp_path, _config(tmp_path / "given"))
    assert "teachers.old" in str(caught.value)


def test_bad_pattern_and_folder(tmp_path: Path) -> None:
    _cohort(tmp_path / "results", ["a"])
    _features(tmp_path / "given" / "a.h5")
    with pytest.raises(ConfigError, match=r"pattern.*slide"):
        _run(tmp_path, _config(tmp_path / "given", pattern="{slide}.h5"))
    with pytest.raises(ConfigError, match="not a folder"):
        _run(tmp_path, _config(tmp_path / "nowhere"))


def test_other_dimensions_list_the_files(tmp_path: Path) -> None:
    _cohort(tmp_path / "results", ["a", "b", "c"])
    for slide, dim in (("a", 3), ("b", 3), ("c", 5)):
        _features(tmp_path / "given" / f"{slide}.h5", dim=dim)
    with pytest.raises(ArtifactError, match=r"1 of 3(.|\n)*c\.h5: \{'high': 5\}"):
        _run(tmp_path, _config(tmp_path / "given"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"extractor": "mahmood-uni"}, {"extractor": "chief-ctranspath"}),
        ({"model_id": "uni2_h", "pooling": "cls"}, {"model_id": "uni2_h", "pooling": "mean"}),
        ({"patch_encoder": "conch_v15"}, {"patch_encoder": "virchow2"}),
    ],
)
def test_files_that_name_two_encoders_are_refused(
    tmp_path: Path, one: dict[str, str], other: dict[str, str]
) -> None:
    """Of equal width they would pass, and a model would learn which is which."""
    _cohort(tmp_path / "results", ["a", "b", "c", "unnamed"])
    for slide, attributes in (("a", one), ("b", one), ("c", other), ("unnamed", {})):
        _features(tmp_path / "given" / f"{slide}.h5", **attributes)
    with pytest.raises(ArtifactError, match=r"1 of 3 .*another encoder(.|\n)*c\.h5: ") as caught:
        _run(tmp_path, _config(tmp_path / "given"))
    assert list(other.values())[-1] in str(caught.value) and "two teachers" in str(caught.value)
    _features(tmp_path / "given" / "c.h5", **one)
    assert {r.status for r in _run(tmp_path, _config(tmp_path / "given")).values()} == {"ok"}


@pytest.mark.parametrize(("rows", "value"), [(4, 0.0), (4, 1.5), (1, 0.0), (1, 1.0)])
def test_features_without_information_are_a_row_in_the_ledger(
    tmp_path: Path, rows: int, value: float
) -> None:
    _cohort(tmp_path / "results", ["good", "same"])
    _features(tmp_path / "given" / "good.h5", rows=1)  # a slide's one vector is in order
    _features(tmp_path / "given" / "same.h5", rows=rows, value=value)
    records = _run(tmp_path, _config(tmp_path / "given"))
    assert records["good"].status == "ok"
    assert (records["same"].status, records["same"].kind) == ("failed", "constant_features")
    assert ("zeros" if value == 0 else "equal") in records["same"].reason


def test_some_rows_of_zeros_are_a_warning(tmp_path: Path) -> None:
    _cohort(tmp_path / "results", ["a"])
    _features(tmp_path / "given" / "a.h5", rows=5)
    with h5py.File(tmp_path / "given" / "a.h5", "r+") as file:
        file["features"][1:3] = 0
    [warning] = slide_warnings.of(_run(tmp_path, _config(tmp_path / "given"))["a"].facts)
    assert (warning.kind, "2 of 5 rows" in warning.text) == ("zero_rows", True)


def test_a_value_that_is_no_number_is_named_with_its_feature(tmp_path: Path) -> None:
    _cohort(tmp_path / "results", ["a"])
    _features(tmp_path / "given" / "a.h5", dim=9)
    with h5py.File(tmp_path / "given" / "a.h5", "r+") as file:
        values = file["features"][()]
        values[2, 7] = values[3, 7] = values[3, 4] = np.nan
        file["features"][...] = values
    reason = _run(tmp_path, _config(tmp_path / "given"))["a"].reason
    assert "in 2 of 4 rows, in 2 of 9 features (counted from 0: 4, 7)" in reason
    assert "the tool that made it" in reason and "extract" not in reason


@pytest.mark.parametrize("pattern", ["{case_id}.h5", "all.h5"])
def test_a_file_may_be_shared_by_slides_of_one_case_only(tmp_path: Path, pattern: str) -> None:
    slides = {"s1": "c1", "s2": "c1", "s3": "c2"}
    for case in ("c1", "c2", "all"):
        _features(tmp_path / "given" / f"{case}.h5")
    spec = _config(tmp_path / "given", pattern=pattern).teachers["old"]
    files = expected_files("old", spec, slides)
    if pattern == "{case_id}.h5":
        check_not_shared("old", files, slides)
    else:
        with pytest.raises(ConfigError, match=r"all\.h5 for the cases c1, c2.*case_id"):
            check_not_shared("old", files, slides)


def test_a_pointer_in_place_of_features_is_named(tmp_path: Path) -> None:
    _cohort(tmp_path / "results", ["a"])
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "a.h5").write_text("version https://git-lfs.github.com/spec/v1\n")
    record = _run(tmp_path, _config(tmp_path / "given"))["a"]
    assert record.kind == "bad_features" and "git lfs pull" in record.reason


def test_manifest_is_the_same_again(tmp_path: Path) -> None:
    _cohort(tmp_path / "results", ["a"])
    _features(tmp_path / "given" / "a.h5")
    out = tmp_path / "results" / "features" / "old" / "manifest" / "0.json"
    _run(tmp_path, _config(tmp_path / "given"))
    first = out.read_bytes()
    _run(tmp_path, _config(tmp_path / "given"))
    assert out.read_bytes() == first


# --- every layout, by slide id and by table -------------------------------------------------------

TILES, WIDTH = 6, 5
SIZE = (4096, 3000)  # 2^12 px wide: DeepZoom level 12 is the full image
COORDS = np.stack([np.arange(TILES) * 448, (np.arange(TILES) % 2) * 896], axis=1)
VALUES = np.random.default_rng(1).normal(size=(TILES, WIDTH)).astype(np.float32)


def _h5(path: Path, attributes: dict[str, object] | None = None, **data: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for name, values in data.items():
            file[name] = values
        file.attrs.update(attributes or {})


def _clam_pt(path: Path) -> None:
    torch.save(torch.from_numpy(VALUES), path)


def _dict_pt(path: Path) -> None:
    torch.save({"feats": torch.from_numpy(VALUES), "coords": torch.from_numpy(COORDS)}, path)


def _deepzoom(path: Path) -> None:
    """HistoSSLscaling: tiles of 224 px at half the resolution, level 11."""
    addresses = np.column_stack([np.full(TILES, 11), COORDS // 448])
    np.save(path, np.hstack([addresses, VALUES]).astype(np.float32))


# Layout: file name, writer, what it is recognised as, whether it says where its tiles are.
LAYOUTS = {
    "trident": (
        "20x_224px_0px_overlap/features_t/{slide_id}.h5",
        lambda p: _h5(p, features=VALUES, coords=COORDS.astype(np.int64)),
        "h5",
        True,
    ),
    "clam h5": (
        "h5_files/{slide_id}.h5",
        lambda p: _h5(p, features=VALUES, coords=COORDS.astype(np.int32)),
        "h5",
        True,
    ),
    "clam pt": ("pt_files/{slide_id}.pt", _clam_pt, "pt", False),
    "stamp": (
        "{slide_id}.h5",
        lambda p: _h5(p, {"unit": "um"}, feats=VALUES.astype(np.float16), coords=COORDS * 0.25),
        "stamp",
        True,
    ),
    "histossl": ("{slide_id}/features.npy", _deepzoom, "deepzoom", True),
    "plain npy": ("{slide_id}.npy", lambda p: np.save(p, VALUES), "npy", False),
    "plain pt": ("{slide_id}.pt", _dict_pt, "pt", True),
    "plain h5": ("{slide_id}.h5", lambda p: _h5(p, anything=VALUES), "h5", False),
}


@pytest.mark.parametrize("by", ["slide id", "table"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_by_slide_id_and_by_table(tmp_path: Path, layout: str, by: str) -> None:
    pattern, write, form, placed = LAYOUTS[layout]
    _cohort(tmp_path / "results", ["a", "b"])
    name = (
        pattern.format(slide_id="a") if by == "slide id" else "elsewhere/x" + Path(pattern).suffix
    )
    path = tmp_path / "given" / name
    path.parent.mkdir(parents=True)
    write(path)
    more: dict[str, object] = {"pattern": pattern}
    if by == "table":
        table = tmp_path / "table.csv"
        table.write_text(f"slide_id,path\na,{name}\n")
        more = {"table": str(table)}
    records = _run(tmp_path, _config(tmp_path / "given", **more))
    assert (records["a"].status, records["b"].kind) == ("ok", "missing_features")
    facts = {"n_tiles": TILES, "dims": {"high": WIDTH}, "format": form}
    assert facts.items() <= records["a"].facts.items()
    file = open_features(records["a"].path)
    np.testing.assert_allclose(read_level(file), VALUES, rtol=1e-3, atol=1e-3)
    coords = read_coords(file, mpp=0.25, slide_size=SIZE)
    if placed:
        np.testing.assert_array_equal(coords, COORDS)
    else:
        assert coords is None


@pytest.mark.skipif(not (REAL / "kirc").is_dir(), reason="real data not found (SHAZAM_REAL_DATA)")
def test_real_kirc_features(tmp_path: Path) -> None:
    sheet = pd.read_csv(REAL / "kirc" / "slides.csv").head(60)
    _cohort(tmp_path / "results", list(sheet["slide_id"]))
    hipt = _run(tmp_path, _config(REAL / "kirc" / "features" / "hipt"))
    assert {r.status for r in hipt.values()} == {"ok"}
    assert {r.facts["dims"]["high"] for r in hipt.values()} == {192}
    hand = _run(tmp_path, _config(REAL / "kirc" / "features" / "handcrafted"))
    assert {r.status for r in hand.values()} == {"ok", "failed"}
    assert {r.kind for r in hand.values() if r.status == "failed"} == {"missing_features"}
