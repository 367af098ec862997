"""The mapping stage on small made-up manifests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.config.mapping import MappingConfig
from pipeline.contracts import slide_warnings
from pipeline.contracts.ledger import Record, write_manifest
from pipeline.contracts.slide_warnings import SlideWarning
from pipeline.errors import ArtifactError, SheetError, UserError
from pipeline.files.artifacts import read_json
from pipeline.files.parquet import read_table, write_table
from pipeline.mapping import stage

DIMS = {"low": 8, "high": 16}
WARNED = slide_warnings.as_facts([SlideWarning("scale_assumed", "0.5 µm/px was assumed")])


def _ok(slide: str, teacher: str, dims: dict[str, int] | None = None, **facts: Any) -> Record:
    path = f"features/{teacher}/{slide}.h5"
    return Record(
        slide,
        f"extraction/{teacher}",
        "ok",
        path=path,
        facts={"n_tiles": 5, "dims": dims or DIMS, **facts},
    )


def _missing(slide: str, teacher: str) -> Record:
    return Record(slide, f"extraction/{teacher}", "failed", "missing_features", "no such file")


class House:
    """A results folder with a sheet and manifests."""

    def __init__(self, root: Path, slides: dict[str, str], **columns: list[Any]) -> None:
        self.root = root
        n = len(slides)
        table: dict[str, Any] = {
            "slide_id": list(slides),
            "case_id": list(slides.values()),
            "path": [""] * n,
            "mpp": [float("nan")] * n,
            "site": ["A"] * n,
            "mask": [""] * n,
            "coordinates": [""] * n,
            "chunk": [0] * n,
            "identity": ["none"] * n,
        }
        write_table(root / "slides.parquet", pd.DataFrame({**table, **columns}))

    def run(
        self,
        features: list[Record],
        tiling: list[Record] | None = None,
        teachers: tuple[str, ...] = ("a", "b"),
        **cfg: Any,
    ) -> None:
        manifests = []
        for teacher in sorted({r.stage for r in features}):
            path = self.root / teacher.replace("extraction", "features") / "manifest" / "0.json"
            write_manifest(path, teacher, "f", [r for r in features if r.stage == teacher])
            manifests.append(path)
        for record in features:
            if record.path.startswith("features/"):
                (self.root / record.path).touch()
        tiles = []
        if tiling is not None:
            tiles.append(self.root / "tiles" / "manifest" / "0.json")
            write_manifest(tiles[0], "tiling", "f", tiling)
        joined = stage.join(
            teachers=list(teachers), root=self.root, tiling=tiles, features=manifests
        )
        stage.run(cfg=MappingConfig(**cfg), joined=joined, root=self.root)
        stage.check(cfg=MappingConfig(**cfg), joined=joined, root=self.root)


SLIDES = {"s1": "c1", "s2": "c1", "s3": "c2", "s4": "c3"}


def _all(teacher: str, slides: dict[str, str] = SLIDES) -> list[Record]:
    return [_ok(slide, teacher) for slide in slides]


def test_the_map_holds_every_file_of_every_case(tmp_path: Path) -> None:
    house = House(tmp_path, SLIDES, time=[3.0, 3.0, 4.0, 5.0])
    house.run([*_all("a"), *_all("b")])
    mapped = read_json(tmp_path / "case_to_features.json")
    assert mapped["teachers"] == {"a": {"dims": DIMS}, "b": {"dims": DIMS}}
    assert mapped["cases"]["c1"]["a"] == ["features/a/s1.h5", "features/a/s2.h5"]
    assert sorted(mapped["cases"]) == ["c1", "c2", "c3"]
    cases = read_table(tmp_path / "cases.parquet")
    assert list(cases.columns) == [
        "case_id", "site", "n_slides", "n_usable_slides", "complete", "time",
    ]  # fmt: skip
    assert cases["time"].tolist() == [3.0, 4.0, 5.0]
    assert cases["n_slides"].tolist() == [2, 1, 1]
    assert cases["complete"].all()
    assert read_table(tmp_path / "ledger.parquet").empty
    for name in ("coverage", "ledger", "cases"):
        assert (tmp_path / f"{name}.csv").is_file()


def test_a_file_that_slides_of_a_case_share_counts_once(tmp_path: Path) -> None:
    """`pattern: "{case_id}.npy"`."""
    features = [
        dataclasses.replace(_ok(slide, "a"), path=f"features/a/{case}.npy")
        for slide, case in SLIDES.items()
    ]
    House(tmp_path, SLIDES).run(features, teachers=("a",))
    mapped = read_json(tmp_path / "case_to_features.json")
    assert mapped["cases"]["c1"]["a"] == ["features/a/c1.npy"]
    flow = read_json(tmp_path / "cohort_flow.json")
    assert (flow["teachers"]["a"]["slides"], flow["teachers"]["a"]["tiles"]) == (4, 15)


def test_files_of_another_encoder_are_refused_across_chunks(tmp_path: Path) -> None:
    features = [_ok(s, "a", encoder=f"extractor {'xxy'[i % 3]}") for i, s in enumerate(SLIDES)]
    with pytest.raises(ArtifactError, match=r"1 of 4 .*another encoder.*x(.|\n)*s3\.h5: .*y"):
        House(tmp_path, SLIDES).run(features, teachers=("a",))


def test_features_unlike_the_others_are_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slides = {f"s{i}": f"c{i}" for i in range(6)}
    marks = {"offset": 0.0, "negative": 0.5}
    features = [_ok(s, "a", marks={"norm": 90.0 if s == "s4" else 9.0, **marks}) for s in slides]
    House(tmp_path, slides).run(features, teachers=("a",))
    [row] = read_table(tmp_path / "ledger.parquet").to_dict("records")
    assert (row["slide_id"], row["stage"], row["status"]) == ("s4", "extraction/a", "ok")
    assert row["kind"] == "features_unusual" and "90" in row["reason"]
    assert "features_unusual (1 slide)" in capsys.readouterr().out
    assert read_json(tmp_path / "cohort_flow.json")["warned"] == 1


def test_what_one_teacher_lost_is_told_on_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = Record("s2", "extraction/a", "failed", "bad_features", "s2.h5: has NaN in feature 7")
    features = [lost if r.slide_id == "s2" else r for r in _all("a")]
    House(tmp_path, SLIDES).run([*features, *_all("b")], max_failed_fraction=0.5)
    told = capsys.readouterr().out
    assert "teacher a: 1 of 4 slides have no features, bad_features; s2: s2.h5: has NaN" in told
    assert "teacher b" not in told


def test_a_slide_missing_from_one_imported_teacher_is_coverage_and_no_failure(
    tmp_path: Path,
) -> None:
    features = [*_all("a"), _ok("s1", "b"), *(_missing(s, "b") for s in ("s2", "s3", "s4"))]
    House(tmp_path, SLIDES).run(features, max_failed_fraction=0.0)
    flow = read_json(tmp_path / "cohort_flow.json")
    assert flow["cases"] == {"total": 3, "usable": 3, "complete": 1, "used": 1}
    assert flow["incomplete_cases"] == {"c2": ["b"], "c3": ["b"]}
    assert flow["teachers"]["b"]["slides"] == 1
    stage_b = next(s for s in flow["stages"] if s["stage"] == "extraction/b")
    assert (stage_b["in"], stage_b["ok"], stage_b["missing"], stage_b["failed"]) == (4, 1, 3, 0)
    assert set(read_table(tmp_path / "ledger.parquet")["status"]) == {"missing"}
    assert sorted(read_json(tmp_path / "case_to_features.json")["cases"]) == ["c1", "c2", "c3"]
    House(tmp_path, SLIDES).run(features, cases="union")
    assert read_json(tmp_path / "cohort_flow.json")["cases"]["used"] == 3


def test_a_slide_that_no_teacher_has_is_a_failure(tmp_path: Path) -> None:
    features = [r for r in [*_all("a"), *_all("b")] if r.slide_id != "s4"]
    features += [_missing("s4", "a"), _missing("s4", "b")]
    House(tmp_path, SLIDES).run(features, max_failed_fraction=0.25)
    with pytest.raises(UserError, match=r"1 of 4 slides failed[^$]*- s4: no such file"):
        House(tmp_path, SLIDES).run(features, max_failed_fraction=0.2)


def test_failures_of_both_stages_count_once_and_excluded_slides_not_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiling = [
        Record("s1", "tiling", "ok", facts={slide_warnings.FACT: WARNED}),
        Record("s2", "tiling", "failed", "unreadable", "truncated"),
        Record("s3", "tiling", "ok"),
        Record("s4", "tiling", "excluded", "by_user", "left out"),
    ]
    features = []
    for teacher in ("a", "b"):
        features += [
            _ok("s1", teacher),
            Record("s2", f"extraction/{teacher}", "failed", "unreadable", "truncated"),
            _ok("s3", teacher),
            Record("s4", f"extraction/{teacher}", "excluded", "by_user", "left out"),
        ]
    house = House(tmp_path, SLIDES)
    house.run(features, tiling, max_failed_fraction=0.34)
    ledger = read_table(tmp_path / "ledger.parquet")
    assert list(zip(ledger["slide_id"], ledger["stage"], ledger["kind"], strict=True)) == [
        ("s1", "tiling", "scale_assumed"),
        ("s2", "tiling", "unreadable"),
        ("s4", "tiling", "by_user"),
    ]
    said = capsys.readouterr().out
    assert "scale_assumed (1 slide)" in said and "s1: 0.5 µm/px was assumed" in said
    flow = read_json(tmp_path / "cohort_flow.json")
    assert [(s["stage"], s["in"], s["ok"]) for s in flow["stages"]] == [
        ("tiling", 4, 2),
        ("extraction/a", 2, 2),
        ("extraction/b", 2, 2),
    ]
    assert flow["slides"] == {"total": 4, "usable": 2, "with_all_teachers": 2}
    assert (flow["lost"], flow["warned"]) == ({"by_user": 1, "unreadable": 1}, 1)
    with pytest.raises(UserError, match=r"1 of 3 slides failed[^$]*1 unreadable \(tiling\)\n.*s2"):
        house.run(features, tiling, max_failed_fraction=0.33)


def test_what_went_wrong_is_kept_where_too_much_did(tmp_path: Path) -> None:
    tiling = [
        Record("s1", "tiling", "ok"),
        Record("s2", "tiling", "empty", "no_tissue", "nothing stands out"),
        Record("s3", "tiling", "empty", "no_tissue", "nothing stands out"),
        Record("s4", "tiling", "ok"),
    ]
    repeated = [dataclasses.replace(r, stage="extraction/a") for r in tiling[1:3]]
    features = [_ok("s1", "a"), *repeated, _ok("s4", "a")]
    house = House(tmp_path, SLIDES)
    with pytest.raises(UserError, match=r"2 of 4 .*max_empty_fraction = 0.2.*ledger.csv"):
        house.run(features, tiling, teachers=("a",))
    assert (tmp_path / "ledger.csv").read_text().count("no_tissue") == 2
    assert read_json(tmp_path / "cohort_flow.json")["lost"] == {"no_tissue": 2}
    assert (tmp_path / "coverage.csv").is_file()
    for later in ("cases.parquet", "case_to_features.json"):
        assert not (tmp_path / later).exists(), "no later stage may start"
    house.run(features, tiling, teachers=("a",), max_empty_fraction=0.5)


def test_widths_that_differ_are_refused_with_the_files(tmp_path: Path) -> None:
    features = [*_all("a"), *_all("b")]
    features[2] = _ok("s3", "a", {"low": 8, "high": 32})
    with pytest.raises(ArtifactError, match=r"other dimensions.*\n.*features/a/s3.h5.*32"):
        House(tmp_path, SLIDES).run(features)


def test_manifests_must_fit_the_sheet_and_the_files(tmp_path: Path) -> None:
    house = House(tmp_path, SLIDES)
    with pytest.raises(ArtifactError, match="say nothing of s4"):
        house.run([*_all("a")[:3], *_all("b")])
    with pytest.raises(ArtifactError, match="not in the sheet: s9"):
        house.run([*_all("a"), _ok("s9", "a"), *_all("b")])
    with pytest.raises(ArtifactError, match=r"extraction/c.*no teacher"):
        house.run([*_all("a"), *_all("b"), *_all("c")])
    gone = Record("s1", "extraction/a", "ok", path="/nowhere/s1.h5", facts={"dims": DIMS})
    with pytest.raises(ArtifactError, match=r"gone.*\n.*nowhere/s1.h5"):
        house.run([gone, *_all("a")[1:], *_all("b")])
    with pytest.raises(ArtifactError, match="say nothing of slides: s2"):
        house.run([*_all("a"), *_all("b")], [Record("s1", "tiling", "ok")])


def test_a_teacher_without_any_slide_and_an_empty_intersection_are_refused(
    tmp_path: Path,
) -> None:
    house = House(tmp_path, SLIDES)
    with pytest.raises(UserError, match=r"teacher b has no features.*no such file"):
        house.run([*_all("a"), *(_missing(s, "b") for s in SLIDES)])
    halves = [_ok("s1", "a"), _ok("s2", "a"), _missing("s3", "a"), _missing("s4", "a")]
    halves += [_missing("s1", "b"), _missing("s2", "b"), _ok("s3", "b"), _ok("s4", "b")]
    with pytest.raises(UserError, match="no case has features of all teachers"):
        house.run(halves)
    house.run(halves, cases="union")
    assert not (read_table(tmp_path / "cases.parquet")["complete"]).any()


def test_only_columns_that_a_case_agrees_on_are_labels(tmp_path: Path) -> None:
    house = House(
        tmp_path,
        SLIDES,
        subtype=["x", "", "y", None],
        stain=["HE", "PAS", "HE", "HE"],
        age=[60.0, float("nan"), 70.0, 80.0],
        site=["A", "B", "A", ""],
    )
    house.run([*_all("a"), *_all("b")])
    cases = read_table(tmp_path / "cases.parquet")
    assert "stain" not in cases
    assert read_json(tmp_path / "cohort_flow.json")["slide_columns"] == ["stain"]
    assert cases["subtype"].tolist()[:2] == ["x", "y"] and pd.isna(cases["subtype"][2])
    assert cases["age"].tolist() == [60.0, 70.0, 80.0]
    assert cases["site"].tolist() == ["", "A", ""]
    with pytest.raises(SheetError, match="`complete` has the name"):
        House(tmp_path, SLIDES, complete=[1, 1, 1, 1]).run([*_all("a"), *_all("b")])


def test_relative_imports_are_found_from_where_the_run_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "s1.h5").touch()
    house = House(tmp_path / "results", {"s1": "c1"})
    record = Record("s1", "extraction/a", "ok", path="elsewhere/s1.h5", facts={"dims": {"high": 4}})
    house.run([record], teachers=("a",))
    mapped = read_json(tmp_path / "results" / "case_to_features.json")
    (path,) = mapped["cases"]["c1"]["a"]
    assert tmp_path / "results" / path == tmp_path / "elsewhere" / "s1.h5"
