"""The section of what was asked in words: tables, curves, maps and sheets, from the files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline.config.reading import parse
from pipeline.files.artifacts import write_json
from pipeline.files.parquet import write_table
from pipeline.report.figures.geojson import squares_geojson
from pipeline.report.figures.shots import Line, shots
from pipeline.report.results import Results
from pipeline.report.sections import words

CONFIG: dict[str, Any] = {
    "extraction": {
        "teachers": {"lab": {"source": "open_clip", "model": "ViT-B-32", "weights": "random"}}
    },
    "tasks": {"subtype": {"type": "classification", "label": "subtype"}},
    "training": {"models": {"linear": {"kind": "linear", "teacher": "lab"}}},
    "evaluation": {"student": "linear"},
    "vision_language": {"prompts": {"subtype": {"a": ["glands", "ducts"], "b": "nests"}}},
}


@pytest.fixture
def opened(tmp_path: Path) -> Results:
    where = tmp_path / "vision_language/lab"
    spread = {"task": "subtype", "smoothing": 8, "top_k": 5, "draws": 50, "min": 0.31, "q25": 0.4,
              "median": 0.52, "q75": 0.61, "max": 0.77, "ensemble": 0.66}  # fmt: skip
    write_table(where / "spread.parquet", pd.DataFrame([spread]))
    shot = {"task": "subtype", "episodes": 20, "q25": 0.4, "median": 0.5, "q75": 0.6}
    write_table(where / "few_shot.parquet", pd.DataFrame([{**shot, "shots": n} for n in (1, 4)]))
    tile = {"task": "subtype", "place": 1, "case_id": "c1", "x": 0, "y": 0, "score": 0.4}
    rows = [{**tile, "class": name, "slide_id": "s1"} for name in "ab"]
    write_table(where / "retrieved.parquet", pd.DataFrame(rows))
    shares = [{"slide_id": "s1", "class": c, "tiles": n, "share": n / 4}
              for c, n in (("tumour", 3), ("fat", 1))]  # fmt: skip
    write_table(where / "tissue.parquet", pd.DataFrame(shares))
    places = pd.DataFrame({"x": [0, 100], "y": [0, 0], "a": [0.5, 0.1], "b": [0.2, 0.3]})
    write_table(where / "maps/subtype/s1.parquet", places)
    recall = {"1": 0.25, "5": 0.5, "10": 1.0}
    write_json(
        where / "zero_shot.json",
        {
            "teacher": "lab",
            "tasks": {
                "subtype": {
                    "words": {"a": ["glands", "ducts"], "b": ["nests"]},
                    "folds": [
                        {"fold": k, "chosen_on": "validation", "smoothing": 0, "top_k": 5}
                        for k in range(3)
                    ],
                    "maps": [{"case_id": "c1", "slide_id": "s1", "label": "a"}],
                }
            },
            "recall": {"tiles": 9, "without_features": 0, "texts": 4, "captions_cut": 2,
                       "tile_to_text": recall, "text_to_tile": recall,
                       "tile_to_text_chance": recall, "text_to_tile_chance": recall},
        },
    )  # fmt: skip
    metrics = [{"model": "zero_shot_lab", "metric": "balanced_accuracy", "value": 0.66}]
    write_table(tmp_path / "evaluation/subtype/metrics.parquet", pd.DataFrame(metrics))
    (tmp_path / "tiles").mkdir()
    with h5py.File(tmp_path / "tiles/s1.h5", "w") as file:
        file.attrs.update({"patch_size_level0": 100, "level0_width": 200})
        file.attrs["geojson_origin"] = [10, 20]
    slides = pd.DataFrame([{"slide_id": "s1", "path": str(tmp_path / "gone.svs")}])
    empty = pd.DataFrame()
    return Results(
        root=tmp_path, config=parse(CONFIG), cohort={}, flow={}, slides=slides, cases=empty,  # type: ignore[arg-type]
        coverage=empty, ledger=empty, tiling={}, features={},
    )  # fmt: skip


def test_what_was_asked_is_shown(opened: Results) -> None:
    found = words.section(opened)
    assert found is not None
    cells = [cell.html for cell in found.spread[0].rows[0]]
    assert cells[:3] == ["lab", "mean of the top 5", "8 nearest tiles"]
    assert cells[3:] == ["0.520", "0.400", "0.610", "0.310", "0.770", "0.660"]
    assert "50 draws" in found.spread[0].caption
    (one,) = found.spoken
    assert one.chosen == "mean of the top 5, smoothing none in 3 of 3 folds"
    assert [m.label for m in one.maps[0].maps] == ["tissue", "a", "b"]
    assert one.maps[0].maps[1].note == "nearest for 50 % of tiles"
    assert [sheet.words for sheet in one.sheets] == ["glands, ducts", "nests"]
    assert found.recall is not None and len(found.recall.rows) == 2
    cells = [cell.html for cell in found.recall.rows[0]]
    assert cells[2:] == ["0.250", "0.500", "1.000", "0.250", "0.500", "1.000", "9", "4", "2"]
    assert found.silent == ""
    assert found.tissue is not None
    assert [cell.html for cell in found.tissue.rows[0]][1:3] == ["75 %", "25 %"]
    (curve,) = found.curves
    assert "lab, words alone" in curve.document and "chance" in curve.document


def test_where_a_class_is_near_its_map_is_brighter(opened: Results) -> None:
    """The two tiles of class a differ as their cosines do, those of b the other way round."""
    found = words.section(opened)
    assert found is not None
    _, a, b = (np.asarray(m.image).astype(int) for m in found.spoken[0].maps[0].maps)
    left, right = np.s_[a.shape[0] // 2, a.shape[1] // 3], np.s_[a.shape[0] // 2, a.shape[1] // 2]
    assert a[left].sum() > a[right].sum()
    assert b[left].sum() < b[right].sum()


def test_squares_count_from_where_qupath_does(opened: Results) -> None:
    found = words.section(opened)
    assert found is not None
    features = found.spoken[0].maps[0].squares["features"]
    assert features[0]["geometry"]["coordinates"][0][0] == [-10, -20]
    assert features[0]["properties"]["measurements"] == {"cosine a": 0.5, "cosine b": 0.2}
    table = pd.DataFrame({"x": [3], "y": [4], "v": [0.123456]})
    (one,) = squares_geojson(table, {"v": table["v"]}, 10)["features"]
    assert one["properties"]["measurements"] == {"v": 0.12346}


def test_a_teacher_that_could_not_be_asked_is_named(opened: Results) -> None:
    import dataclasses

    data = copy.deepcopy(CONFIG)
    data["extraction"]["teachers"]["musk"] = {"acknowledge_licence": True}
    found = words.section(dataclasses.replace(opened, config=parse(data)))
    assert found is not None and found.silent.startswith("Not asked: musk.")
    assert [one.teacher for one in found.spoken] == ["lab"]


def test_nothing_is_shown_where_nothing_was_asked(opened: Results) -> None:
    data = {key: value for key, value in CONFIG.items() if key != "vision_language"}
    import dataclasses

    assert words.section(dataclasses.replace(opened, config=parse(data))) is None


def test_a_teacher_without_a_prediction_has_no_line() -> None:
    drawn = shots(
        "n", "t", [Line("x", [1, 2], [0.5, 0.6], [0.4, 0.5], [0.6, 0.7], np.nan)], 0.3, ()
    )
    assert "x, trained" in drawn.document and "words alone" not in drawn.document
