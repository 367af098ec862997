"""The whole stage on features that lie around text features of a small random tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline.encoders import text_towers
from pipeline.errors import ArtifactError, ConfigError, UserError
from tests.vision_language.made import WORDS, results_folder, run, weights_folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return weights_folder(tmp_path)


@pytest.fixture
def root(tmp_path: Path, weights: Path) -> Path:
    return results_folder(tmp_path, weights)


def test_words_predict_cases_beside_trained_models(root: Path, weights: Path) -> None:
    facts = run(root, weights)
    table = pd.read_parquet(root / "models/task/zero_shot_words/predictions.parquet")
    test = table[table["split"] == "test"]
    columns = ["prob_a", "prob_b", "prob_c"]
    said = test[columns].to_numpy().argmax(1)
    right = np.array([columns[i].removeprefix("prob_") for i in said]) == test["label"].to_numpy()
    assert right.mean() > 0.9
    assert len(test) == 35  # once each, but for the case without features
    folds = facts["tasks"]["task"]["folds"]
    assert [fold["chosen_on"] for fold in folds] == ["validation"] * 3
    spread = pd.read_csv(root / "vision_language/words/spread.csv")
    assert len(spread) == 10  # 2 ways of smoothing, 5 of pooling
    assert (spread["min"] <= spread["median"]).all() and (spread["draws"] == 6).all()
    assert spread["ensemble"].max() > 0.9
    shots = pd.read_csv(root / "vision_language/words/few_shot.csv")
    assert shots["shots"].tolist() == [1, 2]
    found = pd.read_csv(root / "vision_language/words/retrieved.csv")
    assert found.groupby("class").size().tolist() == [8, 8, 8]
    labels = pd.read_parquet(root / "cases.parquet").set_index("case_id")["subtype"]
    assert (labels.loc[found["case_id"]].to_numpy() == found["class"].to_numpy()).mean() > 0.7
    kept = facts["tasks"]["task"]["maps"]
    assert len(kept) == 4 and {one["label"] for one in kept} == {"a", "b", "c"}
    grid = pd.read_parquet(root / f"vision_language/words/maps/task/{kept[0]['slide_id']}.parquet")
    assert list(grid.columns) == ["x", "y", "a", "b", "c"]


def test_the_same_again_gives_the_same_bytes_and_encodes_no_text(
    root: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(root, weights)
    files = [root / "vision_language/words" / name for name in ("spread.csv", "zero_shot.json")]
    files.append(root / "models/task/zero_shot_words/predictions.parquet")
    before = [path.read_bytes() for path in files]
    monkeypatch.setattr(text_towers, "encode", lambda *_: pytest.fail("encoded again"))
    run(root, weights)
    assert [path.read_bytes() for path in files] == before


def test_a_damaged_store_of_texts_is_made_again(root: Path, weights: Path) -> None:
    run(root, weights)
    (store,) = (root / "vision_language/words/texts").glob("*.safetensors")
    whole = store.read_bytes()
    store.write_bytes(whole[:40])
    run(root, weights)
    assert store.read_bytes() == whole


def test_tissue_classes_label_every_tile(root: Path, weights: Path) -> None:
    run(root, weights, tissue={"pale tissue": ["pale", "empty"], "dark tissue": ["dark", "full"]})
    table = pd.read_csv(root / "vision_language/words/tissue.csv")
    assert np.allclose(table.groupby("slide_id")["share"].sum(), 1)
    labels = pd.read_parquet(root / "cases.parquet").set_index("case_id")["subtype"]
    dark = table[table["class"] == "dark tissue"].set_index("slide_id")["share"]
    for slide, share in dark.items():
        kind = labels[str(slide).rpartition("-")[0]]
        assert kind == "b" or (share > 0.8) == (kind == "c")
    one = pd.read_parquet(root / "vision_language/words/tissue/c000-0.parquet")
    assert list(one.columns) == ["class", "score", "x", "y"]


def test_captions_are_found_again(root: Path, weights: Path) -> None:
    labels = pd.read_parquet(root / "cases.parquet").set_index("case_id")["subtype"]
    said = {"a": "pale", "b": "grey", "c": "dark"}
    rows = [
        {"slide_id": f"{case}-0", "x": 0, "y": 0, "caption": said[kind]}
        for case, kind in labels.items()
    ]
    rows.append({"slide_id": "c000-0", "x": 55, "y": 0, "caption": "grey"})
    rows.append({"slide_id": "c001-0", "x": 100, "y": 0, "caption": "grey and so on " * 4})
    pd.DataFrame(rows).to_csv(root / "captions.csv", index=False)
    found = run(root, weights, captions="captions.csv")["recall"]
    assert (found["tiles"], found["without_features"], found["texts"]) == (36, 2, 4)
    assert found["tile_to_text"]["1"] > 0.6 and found["tile_to_text"]["5"] == 1.0
    assert found["captions_cut"] == 1
    assert set(found["text_to_tile"]) == {"1", "5", "10"}
    assert found["tile_to_text_chance"]["1"] == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("cfg", "kind", "said"),
    [
        ({"prompts": {"task": {"a": "pale", "b": "grey"}}}, ConfigError, "`c` has no prom"),
        ({"prompts": {"task": {**WORDS, "d": "x"}}}, ConfigError, "`d` is not a class"),
        ({"templates": ["{} " + "and so on " * 9]}, UserError, "its text tower takes 12"),
        ({"captions": "none.csv"}, UserError, "none.csv: the captions cannot be read"),
    ],
)
def test_what_cannot_be_asked_is_said(
    root: Path, weights: Path, cfg: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        run(root, weights, **cfg)
    assert not (root / "vision_language/words/zero_shot.json").exists()


def test_features_without_the_level_are_refused(root: Path, weights: Path) -> None:
    path = next((root / "features/words").glob("*.h5"))
    with h5py.File(path, "a") as file:
        del file["aligned"]
    with pytest.raises(ArtifactError, match="no level `aligned`"):
        run(root, weights)
