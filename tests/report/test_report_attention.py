from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.config.tasks import ClassificationTask, RegressionTask
from pipeline.errors import ArtifactError
from pipeline.report import results
from pipeline.report.figures import maps
from pipeline.report.sections import attention
from tests.report.conftest import small_config


def rows(teacher: str, scores: list[float], level: str = "high") -> pd.DataFrame:
    """Tiles of 100 level-0 pixels in a row, from x = 0."""
    n = len(scores)
    return pd.DataFrame(
        {
            "case_id": "C",
            "slide_id": "S",
            "teacher": teacher,
            "level": level,
            "x": 100 * np.arange(n),
            "y": 0,
            "score": scores,
            "influence": np.linspace(-1, 1, n),
        }
    )


def test_fused_attention_is_the_mean_over_teachers_and_levels_of_equal_weight() -> None:
    table = pd.concat([rows("a", [3.0, 1.0]), rows("b", [0.0, 20.0])])
    fused = maps.normalised(table)
    assert fused["weight"].tolist() == pytest.approx([0.375, 0.625])


def test_scores_below_zero_are_ranked_first() -> None:
    weights = maps.normalised(rows("a", [-5.0, 2.0, 100.0]))["weight"]
    assert weights.tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_concentration_of_even_and_of_peaked_attention() -> None:
    assert maps.concentration(np.full(40, 1 / 40)) == pytest.approx((0.1, 0.1))
    peaked = np.array([0.9, *np.full(9, 0.1 / 9)])
    assert maps.concentration(peaked) == pytest.approx((0.9, 0.1))


def test_cases_are_taken_from_both_ends() -> None:
    assert attention.spread(list("abcdefg"), 3) == ["a", "b", "g"]
    assert attention.spread(list("ab"), 4) == ["a", "b"]


def test_a_tile_is_coloured_where_it_lies_on_the_thumbnail(tmp_path: Path) -> None:
    """Level 0 is 1000 x 500; the thumbnail is 200 x 100: tile x = 300 covers pixels 60 to 80."""
    (tmp_path / "tiles" / "thumbnails").mkdir(parents=True)
    Image.new("RGB", (200, 100), "white").save(tmp_path / "tiles" / "thumbnails" / "S.jpg")
    with h5py.File(tmp_path / "tiles" / "S.h5", "w") as file:
        file.attrs["patch_size_level0"], file.attrs["level0_width"] = 100, 1000
    table = rows("a", [0.05, 0.1, 0.15, 0.7])
    canvas = maps.canvas(tmp_path, "tiles", "S", table, 460)
    assert (canvas.scale, canvas.origin, canvas.tile) == (0.2, (0.0, 0.0), 100.0)
    weights = maps.normalised(table)
    colours = maps.by_rank(weights["weight"])
    pixels = np.asarray(maps.paint(canvas, weights, colours)).astype(int)
    hot, cold, outside = pixels[10, 70], pixels[10, 10], pixels[60, 70]
    assert hot[0] - hot[2] > 80  # the far end of the map is yellow
    assert cold[2] - cold[0] > 10  # and the near one blue
    assert outside.min() > 235
    assert pixels[10, 85].min() > 235
    assert (
        maps.said(weights["weight"].to_numpy())
        == "top 10 % of tiles hold 70 % of the weight (evenly: 25 %)"
    )


def test_influence_is_the_sum_over_teachers_and_levels_and_coloured_by_sign() -> None:
    table = pd.concat([rows("a", [1.0, 1.0, 1.0]), rows("b", [1.0, 1.0, 1.0], "low")])
    found = maps.influence_table(table)
    assert found is not None
    assert found["influence"].tolist() == [-2.0, 0.0, 2.0]
    assert maps.said_influence(found["influence"]) == "a tenth more like one tile: −2 to +2"
    down, none, up = maps.by_sign(found["influence"]).astype(int)
    assert down[2] - down[0] > 50
    assert up[0] - up[2] > 50
    assert none.min() > 240
    assert maps.by_sign(pd.Series([0.0, 0.0])).min() > 240
    assert maps.influence_table(table.assign(influence=np.nan)) is None


def test_a_model_that_says_no_influence_has_no_map_of_it(small: Path) -> None:
    for path in (small / "models").rglob("attention.parquet"):
        pd.read_parquet(path).assign(influence=np.float32(np.nan)).to_parquet(path)
    section = attention.section(results.read(small_config(), small))
    assert section.effect is None
    assert {m.label for case in section.cases for m in case.maps} >= {"fused"}
    assert "influence" not in {m.label for case in section.cases for m in case.maps}


def test_without_thumbnail_the_tiles_stand_on_white(tmp_path: Path) -> None:
    table = rows("a", [0.2, 0.8]).assign(x=lambda t: t["x"] + 5000)
    canvas = maps.canvas(tmp_path, "tiles", "S", table, 460)
    assert canvas.tile == 100.0
    assert canvas.origin == (4900.0, -100.0)
    assert canvas.image.width == round((5100 + 200 - 4900) * canvas.scale)


def test_the_section_shows_both_ends_and_every_teacher(small: Path) -> None:
    section = attention.section(results.read(small_config(), small))
    assert not section.absent
    labels = ["tissue", "vit_tiny", "resnet10t", "convnext_atto", "fused", "influence"]
    assert [[m.label for m in case.maps] for case in section.cases] == [labels] * 4
    predictions = pd.read_parquet(small / "models/survival/shazam_v2/predictions.parquet")
    test = predictions[predictions["split"] == "test"].set_index("case_id")
    rank = test.groupby("fold")["risk"].rank(pct=True)
    kept = sorted(rank[_kept(small)], reverse=True)
    assert [rank[case.case_id] for case in section.cases] == kept[:2] + kept[-2:]
    first = section.cases[0]
    row = test.loc[first.case_id]
    end = f"{'died' if row['event'] else 'censored'} at {row['time']:.3g} months"
    fold = test[test["fold"] == row["fold"]]["risk"]
    place = f"predicted risk number {1 + (fold > row['risk']).sum()} of {len(fold)} in its fold"
    assert first.title.startswith(place)
    assert end in first.title


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (ClassificationTask(type="classification", label="x"), "predicted b (0.70), is a"),
        (RegressionTask(type="regression", targets=["y"]), "y: predicted 3, is 2.5"),
    ],
)
def test_other_tasks_say_what_was_predicted_and_what_is(
    task: ClassificationTask | RegressionTask, said: str
) -> None:
    predictions = pd.DataFrame(
        {"split": ["test", "train"], "fold": [0, 1], "case_id": ["C", "C"], "label": ["a", "a"]}
    ).assign(prob_a=[0.3, 0.9], prob_b=[0.7, 0.1], pred_y=[3.0, 9.0], true_y=[2.5, 2.5])
    order, titles = attention._ranked(predictions, ["C", "D"], task)
    assert order == ["C", "D"]
    assert titles == {"C": said, "D": ""}


def _kept(root: Path) -> list[str]:
    files = (root / "models/survival/shazam_v2").glob("fold_*/seed_*/attention.parquet")
    return sorted({c for file in files for c in pd.read_parquet(file)["case_id"]})


def test_no_attention_is_said_and_not_an_error(small: Path) -> None:
    for path in (small / "models").rglob("attention.parquet"):
        path.unlink()
    section = attention.section(results.read(small_config(), small))
    assert "left no attention" in section.absent
    none = attention.section(results.read(small_config(report={"attention_cases": 0}), small))
    assert "attention_cases is 0" in none.absent


def test_a_table_without_its_columns_is_named(small: Path) -> None:
    path = next((small / "models").rglob("attention.parquet"))
    pd.read_parquet(path).drop(columns="level").to_parquet(path)
    with pytest.raises(ArtifactError, match=r"attention\.parquet: no column level"):
        attention.section(results.read(small_config(), small))
