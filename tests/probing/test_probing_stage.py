"""The stage: labels from annotations and masks, joined by coordinates, folds by case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline.config.probing import ProbingConfig, ProbingJob
from pipeline.contracts.ledger import Record, write_manifest
from pipeline.errors import UserError
from pipeline.probing import stage
from pipeline.probing.labels import read_labels

SIDE = 100


def build(root: Path, cases: int = 6, labels: bool = False, shuffle: bool = False) -> None:
    """Slides whose left half is tumour and right half stroma, which the features show."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(cases):
        slide = f"s{i}"
        x, y = np.meshgrid(np.arange(8) * SIDE, np.arange(4) * SIDE)
        coords = np.stack([x.ravel(), y.ravel()], 1).astype(np.int32)
        truth = (coords[:, 0] >= 400).astype(int)
        (root / "tiles").mkdir(parents=True, exist_ok=True)
        with h5py.File(root / f"tiles/{slide}.h5", "w") as file:
            file["coords"] = coords
            file.attrs.update(
                {"level0_width": 800, "level0_height": 400, "patch_size_level0": SIDE}
            )
            file.attrs["mpp_level0"] = 1.0
            if labels:
                names = ["stroma" if t else "tumour" for t in truth]
                file.create_dataset("label", data=names, dtype=h5py.string_dtype("utf-8"))
        order = rng.permutation(len(coords)) if shuffle else np.arange(len(coords))
        (root / "features/t").mkdir(parents=True, exist_ok=True)
        with h5py.File(root / f"features/t/{slide}.h5", "w") as file:
            features = rng.normal(size=(len(coords), 5))
            features[:, 2] += 4 * truth
            file["features"] = features[order].astype(np.float16)
            file["coords"] = coords[order]
        path = f"features/t/{slide}.h5"
        records.append(Record(slide, "extraction/t", "ok", path=path))
        image = np.full((40, 80), 1, np.uint8)
        image[:, 40:] = 2
        (root / "annotations").mkdir(exist_ok=True)
        cv2.imwrite(str(root / f"annotations/{slide}.png"), image)
        legend = json.dumps({"1": "tumour", "2": "stroma"})
        (root / f"annotations/{slide}.json").write_text(legend)
    slides = [f"s{i}" for i in range(cases)]
    table = pd.DataFrame(
        {"slide_id": slides, "case_id": [f"c{i // 2}" for i in range(cases)], "chunk": 0}
    )
    table.to_parquet(root / "slides.parquet")
    write_manifest(root / "features/t/manifest/0.json", "extraction/t", "x", records)


def run(root: Path, **cfg: Any) -> dict[str, Any]:
    settings = {"folds": 3, "members": 2, "shots": (2,), "episodes": 4, "bootstraps": 50, **cfg}
    job = ProbingJob(
        probing=ProbingConfig(**settings), manifests="t", tiles="tiles", annotations=""
    )
    stage.run(job=job, teacher="t", root=root, base=root)
    return dict(json.loads((root / "probing/t.json").read_text()))


@pytest.mark.parametrize("source", ["image", "geojson", "tiling"])
def test_labels_reach_the_right_features(tmp_path: Path, source: str) -> None:
    build(tmp_path, labels=source == "tiling", shuffle=True)
    pattern = {"image": "annotations/{slide_id}.png", "geojson": "{slide_id}.geojson"}.get(source)
    if source == "geojson":
        for i in range(6):
            features = [square("tumour", 0), square("stroma", 400)]
            text = json.dumps({"type": "FeatureCollection", "features": features})
            (tmp_path / f"s{i}.geojson").write_text(text)
    found = run(tmp_path, annotations=pattern)
    assert found["classes"] == {"stroma": 96, "tumour": 96}
    assert (found["n_tiles"], found["n_slides"], found["n_cases"]) == (192, 6, 3)
    rows = pd.DataFrame(found["rows"])
    table = pd.read_csv(tmp_path / "probing/t.csv")
    assert len(table) == len(rows)
    assert set(rows.probe) == {"logistic", "sgd_2", "knn_1", "knn_20", "few_shot"}
    best = rows[(rows.probe == "logistic") & (rows.metric == "auc")].value.item()
    assert best > 0.97
    assert np.sum(found["confusion"]["logistic"]) == 192


def square(name: str, left: int) -> dict[str, Any]:
    ring = [[left, 0], [left + 400, 0], [left + 400, 400], [left, 400], [left, 0]]
    return {
        "type": "Feature",
        "properties": {"classification": {"name": name}},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }


def test_portions_and_tiles_per_slide_are_kept_to(tmp_path: Path) -> None:
    build(tmp_path, labels=True)
    found = run(tmp_path, tiles_per_slide=10, portions=(0.1, 1.0), members=0)
    assert found["n_tiles"] == 60
    rows = pd.DataFrame(found["rows"])
    trained = rows[rows.probe == "knn_1"].groupby("training").n_train.first()
    assert trained["all"] == 40
    assert trained["0.1"] == 4


def test_a_border_tile_has_no_label(tmp_path: Path) -> None:
    build(tmp_path, cases=1)
    image = np.full((40, 80), 1, np.uint8)
    image[:, 35:] = 2  # the border runs through the fourth column of tiles
    cv2.imwrite(str(tmp_path / "annotations/s0.png"), image)
    found = read_labels(tmp_path / "tiles/s0.h5", tmp_path / "annotations/s0.png", 0.6)
    assert found is not None
    assert set(found.names[found.coords[:, 0] == 300]) == {""}
    assert set(found.names[found.coords[:, 0] == 200]) == {"tumour"}


def test_what_cannot_be_probed_is_said(tmp_path: Path) -> None:
    build(tmp_path)
    assert "no tile has a class" in run(tmp_path)["reason"]
    build(tmp_path, cases=4, labels=True)
    assert "2 cases only" in run(tmp_path)["reason"]
    (tmp_path / "annotations/s1.json").unlink()
    with pytest.raises(UserError, match=r"s1\.png names no classes"):
        run(tmp_path, annotations="annotations/{slide_id}.png")
