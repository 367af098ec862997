"""All teachers' tiles at once: joined by coordinates, folds by case, students against probes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline.config.probing import ProbingConfig, TileStudentsJob
from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.contracts.ledger import Record, write_manifest
from pipeline.plan import stage_params
from pipeline.probing import together
from pipeline.probing.gather_together import Source, gather_together
from pipeline.probing.measure import confusion, difference, scores
from pipeline.probing.students import student_probabilities

SIDE, CLASSES = 100, ("fat", "stroma", "tumour")
# One teacher tells fat from the rest, the other tumour from the rest: only both see all three.
SEES = {"a": "fat", "b": "tumour"}


def build(root: Path, cases: int = 9) -> dict[str, str]:
    """Slides of 24 labelled tiles; teacher `b` has them in another order, and lacks one slide."""
    rng = np.random.default_rng(0)
    records: dict[str, list[Record]] = {t: [] for t in SEES}
    case_of = {}
    (root / "tiles").mkdir(parents=True)
    for i in range(cases + 1):
        slide = f"s{i}"
        case_of[slide] = f"c{min(i, cases - 1)}"
        x, y = np.meshgrid(np.arange(6) * SIDE, np.arange(4) * SIDE)
        coords = np.stack([x.ravel(), y.ravel()], 1).astype(np.int32)
        names = np.array(CLASSES)[rng.integers(0, 3, len(coords))]
        with h5py.File(root / f"tiles/{slide}.h5", "w") as file:
            file["coords"] = coords
            file.create_dataset("label", data=list(names), dtype=h5py.string_dtype("utf-8"))
            file.attrs.update({"level0_width": 600, "level0_height": 400})
            file.attrs.update({"patch_size_level0": SIDE, "mpp_level0": 1.0})
        for teacher, seen in SEES.items():
            path = root / f"features/{teacher}/{slide}.h5"
            path.parent.mkdir(parents=True, exist_ok=True)
            order = np.arange(len(coords)) if teacher == "a" else rng.permutation(len(coords))
            high = rng.normal(size=(len(coords), 6))
            high[:, 0] += 4 * (names == seen)
            with h5py.File(path, "w") as file:
                file["features"] = high[order].astype(np.float16)
                file["coords"] = coords[order]
            status = "failed" if (teacher, i) == ("b", 0) else "ok"
            shown = f"features/{teacher}/{slide}.h5" if status == "ok" else ""
            records[teacher].append(Record(slide, f"extraction/{teacher}", status, path=shown))
    table = pd.DataFrame({"slide_id": list(case_of), "case_id": list(case_of.values()), "chunk": 0})
    table.to_parquet(root / "slides.parquet")
    for teacher, found in records.items():
        path = root / f"features/{teacher}/manifest/0.json"
        write_manifest(path, f"extraction/{teacher}", "x", found)
    return case_of


def run(root: Path, **cfg: Any) -> dict[str, Any]:
    settings = {"folds": 3, "bootstraps": 100, "epochs": 15, "students": ("shazam_v1",), **cfg}
    job = TileStudentsJob(
        probing=ProbingConfig(**settings),
        manifests={teacher: teacher for teacher in SEES},
        tiles=dict.fromkeys(SEES, "tiles"),
        annotations="",
    )
    together.run(job=job, root=root, base=root)
    return dict(json.loads((root / "probing/all/students.json").read_text()))


def test_a_student_of_tiles_knows_what_no_teacher_knows_alone(tmp_path: Path) -> None:
    build(tmp_path)
    found = run(tmp_path)
    value = {
        (row["model"], row["probe"]): row["value"]
        for row in found["rows"]
        if row["metric"] == "balanced_accuracy"
    }
    best = max(value["a", "logistic"], value["b", "logistic"])
    assert value["concatenation", "logistic"] > best + 0.15
    assert value["shazam_v1", "student"] > best + 0.1
    assert (found["n_slides"], found["n_tiles"]) == (9, 9 * 24)  # `b` lacks s0
    pair = next(p for p in found["comparisons"] if p["model"] == "shazam_v1")
    apart = value["shazam_v1", "student"] - value[pair["other"], "logistic"]
    assert pair["difference"] == pytest.approx(apart) and 0 < pair["low"] < pair["difference"]
    with (tmp_path / "probing/all/students.csv").open() as handle:
        assert len(list(csv.DictReader(handle))) == len(found["rows"])
    assert found == run(tmp_path)


def test_tiles_are_joined_by_their_coordinates(tmp_path: Path) -> None:
    case_of = build(tmp_path)
    sources = {}
    for teacher in SEES:
        path = tmp_path / f"features/{teacher}/manifest/0.json"
        records = {
            r["slide_id"]: Record(r["slide_id"], "x", "ok", path=r["path"])
            for r in json.loads(path.read_text())["slides"]
            if r["status"] == "ok"
        }
        sources[teacher] = Source(records, tmp_path / "tiles")
    cfg = ProbingConfig(tiles_per_slide=10)
    joint = gather_together(cfg, sources, case_of, tmp_path, tmp_path)
    assert joint is not None
    assert len(joint.tiles.y) == 90 and joint.tiles.n_cases == 8
    names = np.array(joint.tiles.classes)[joint.tiles.y]
    for teacher, seen in SEES.items():
        first = joint.features[teacher]["high"][:, 0].astype(float)
        assert first[names == seen].mean() > 3 and abs(first[names != seen].mean()) < 0.7
    other = {**sources, "c": Source(sources["a"].records, tmp_path / "tiles_512px_0.5mpp")}
    found = gather_together(cfg, other, case_of, tmp_path, tmp_path)
    assert found is not None and found.left == ["c"] and set(found.features) == {"a", "b"}


@pytest.mark.parametrize("kind", ["shazam_v1", "shazam_v2"])
def test_students_learn_nothing_from_the_test_tiles(kind: str) -> None:
    rng = np.random.default_rng(0)
    y, groups = rng.integers(0, 2, 120), np.repeat(np.arange(12), 10)
    features = {
        t: {level: rng.normal(size=(120, 4)).astype(np.float32) for level in ("low", "high")}
        for t in ("a", "b")
    }
    folds = [(np.flatnonzero(groups >= 4), np.flatnonzero(groups < 4))]
    first, size = student_probabilities(kind, features, y, groups, 2, folds, 3, 0)
    other = y.copy()
    other[groups < 4] = 1 - other[groups < 4]
    again, _ = student_probabilities(kind, features, other, groups, 2, folds, 3, 0)
    np.testing.assert_array_equal(first, again)
    assert size > 0 and np.allclose(first[groups < 4].sum(1), 1) and not first[groups >= 4].any()


def test_without_labelled_tiles_the_reason_is_written(tmp_path: Path) -> None:
    build(tmp_path)
    for path in (tmp_path / "tiles").glob("*.h5"):
        with h5py.File(path, "r+") as file:
            del file["label"]
    found = run(tmp_path)
    assert "no tile has a class" in found["reason"] and not found["rows"]


def test_a_difference_is_paired_by_case() -> None:
    rng = np.random.default_rng(0)
    y, groups = rng.integers(0, 2, 400), np.repeat(np.arange(20), 20)
    wrong = rng.random(400) < 0.3
    first = confusion(y, np.where(wrong, 1 - y, y), groups, 2)
    same = difference(first, first, 200, 0.95, np.random.default_rng(0))
    assert (same["difference"], same["low"], same["high"], same["p_value"]) == (0, 0, 0, 1)
    better = confusion(y, np.where(wrong & (np.arange(400) % 3 > 0), 1 - y, y), groups, 2)
    found = difference(better, first, 200, 0.95, np.random.default_rng(0))
    alone = [
        scores(c, 200, 0.95, np.random.default_rng(0))["balanced_accuracy"] for c in (better, first)
    ]
    assert found["difference"] == pytest.approx(alone[0].value - alone[1].value)
    assert found["low"] > 0 and found["p_value"] < 0.02
    assert found["high"] - found["low"] < alone[0].high - alone[0].low


def test_students_of_tiles_leave_the_teachers_own_probes_as_they_are() -> None:
    teachers = {t: {"source": "timm", "model": "resnet10t"} for t in SEES}

    def config(**probing: Any) -> Config:
        return parse({"extraction": {"teachers": teachers}, "probing": probing})

    plain, asked = config(), config(students=["shazam_v1"], epochs=5)
    assert stage_params.probing(plain, "a", "") == stage_params.probing(asked, "a", "")
    fewer = config(students=["shazam_v1"], epochs=5, shots=[1], members=2)
    assert stage_params.tile_students(asked, "") == stage_params.tile_students(fewer, "")
    assert stage_params.tile_students(asked, "") != stage_params.tile_students(plain, "")
    assert stage_params.tile_students(asked, "").tiles == {"a": "tiles", "b": "tiles"}
