"""A raw slide through an exported model, beside the workflow's own path."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.synthetic import aperio
from pipeline.errors import UserError
from pipeline.prediction.model_file import ModelFile
from pipeline.prediction.run import Options, run
from pipeline.prediction.sheet import read_slides
from pipeline.prediction.slides import SlideGiven
from pipeline.slides.slide import open_slide
from tests.prediction.conftest import NAME, handed
from tests.prediction.conftest import run as command


def slides_of(study: Path, cases: list[str]) -> list[SlideGiven]:
    """The raw slides of some cases."""
    table = pd.read_parquet(study / "results" / NAME / "slides.parquet")
    own = table[table["case_id"].isin(cases)]
    return [
        SlideGiven(str(row["slide_id"]), str(row["case_id"]), study / str(row["path"]))
        for row in own.to_dict("records")
    ]


def out_of_fold(study: Path, task: str, model: str, fold: int) -> pd.DataFrame:
    """What the workflow predicted of a fold's test cases."""
    folder = study / "results" / NAME / "models" / task / model
    table = pd.read_parquet(folder / "predictions.parquet")
    return table[(table["split"] == "test") & (table["fold"] == fold)].set_index("case_id")


@pytest.fixture(scope="module")
def survival(study: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    out = tmp_path_factory.mktemp("model") / "survival.safetensors"
    return handed(study, "survival", "v2", out)


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("survival", "v2"),
        ("subtype", "v2"),
        pytest.param("survival", "linear", marks=pytest.mark.slow),
        pytest.param("survival", "single", marks=pytest.mark.slow),
        pytest.param("score", "linear", marks=pytest.mark.slow),
    ],
)
def test_a_slide_gets_what_the_workflow_gave_it_out_of_fold(
    study: Path, tmp_path: Path, task: str, model: str
) -> None:
    """Of every case, one with two slides among them, by the model that had not seen it."""
    file = handed(study, task, model, tmp_path / "m.safetensors")
    wanted = out_of_fold(study, task, model, 1)
    given = slides_of(study, list(wanted.index))
    assert len(given) > len(wanted)
    run(file, given, Options(tmp_path / "out", fold=1, maps=False))
    found = pd.read_parquet(tmp_path / "out/members.parquet").set_index("case_id")
    assert sorted(found.index) == sorted(wanted.index)
    columns = [c for c in found if c in wanted and c.startswith(("risk", "prob_", "pred_"))]
    assert columns
    np.testing.assert_allclose(
        found.loc[wanted.index, columns], wanted[columns], rtol=1e-4, atol=1e-5
    )


def test_a_broken_slide_is_a_row_and_the_others_have_pages(
    study: Path, survival: ModelFile, tmp_path: Path
) -> None:
    good = slides_of(study, ["SYN-0001"])[0]
    broken = tmp_path / "broken.svs"
    broken.write_bytes(good.path.read_bytes()[:5000])
    given = [
        SlideGiven("good", "good", good.path),
        SlideGiven("broken", "broken", broken),
        SlideGiven("nowhere", "nowhere", tmp_path / "nowhere.svs"),
    ]
    out = tmp_path / "out"
    table = run(survival, given, Options(out)).set_index("slide_id")
    assert table["status"].tolist() == ["ok", "failed", "failed"]
    assert all(table.loc[["broken", "nowhere"], "reason"])
    assert table.loc["good", "prediction"] in ("low risk", "high risk")
    assert table.loc["good", "risk_score_low"] < table.loc["good", "risk_score"]
    assert bool(table.loc["good", "in_training_cohort"])
    assert sorted(p.name for p in out.glob("*.html")) == ["good.html"]
    page = (out / "good.html").read_text()
    assert "The models have learned from this slide." in page and "Not a medical device" in page
    squares = json.loads((out / "good.geojson").read_text())["features"]
    assert len(squares) == table.loc["good", "tiles"]
    assert {"attention attention", "influence"} <= set(squares[0]["properties"]["measurements"])
    assert (out / "good.png").stat().st_size > 10_000
    assert not (out / ".features").exists()


def test_a_case_whose_one_slide_fails_is_predicted_by_the_other(
    study: Path, survival: ModelFile, tmp_path: Path
) -> None:
    slide = slides_of(study, ["SYN-0001"])[0]
    alone = run(survival, [slide], Options(tmp_path / "a", maps=False))
    lost = SlideGiven("lost", slide.case_id, tmp_path / "lost.svs")
    both = run(survival, [slide, lost], Options(tmp_path / "b")).set_index("slide_id")
    assert both.loc[slide.slide_id, "risk_score"] == alone["risk_score"][0]
    assert both.loc["lost", "status"] == "failed" and both.loc["lost", "page"] == ""
    page = (tmp_path / "b" / f"{slide.slide_id}.html").read_text()
    assert "Without slide lost." in page


def test_a_slide_of_another_scale_and_stain_is_unlike_the_training_cohort(
    study: Path, survival: ModelFile, tmp_path: Path
) -> None:
    slide = slides_of(study, ["SYN-0002"])[0]
    other = SlideGiven("other", "other", slide.path, mpp=0.7)
    table = run(survival, [slide, other], Options(tmp_path, maps=False)).set_index("slide_id")
    assert not table.loc[slide.slide_id, "unfamiliar"]
    assert table.loc["other", "unfamiliar"]
    assert "scale: 0.7 µm per pixel" in table.loc["other", "why_unfamiliar"]


def test_a_scale_that_no_file_states_can_be_given_and_changes_no_other(
    study: Path, survival: ModelFile, tmp_path: Path
) -> None:
    slide = slides_of(study, ["SYN-0002"])[0]
    with open_slide(slide.path) as opened:
        image = opened.read_region(0, 0, 0, *opened.dimensions)
    aperio.write(tmp_path / "unscaled.svs", image, None)
    unscaled = SlideGiven("unscaled", "unscaled", tmp_path / "unscaled.svs")
    table = run(survival, [unscaled], Options(tmp_path / "a", maps=False))
    assert table["status"][0] == "failed" and "--mpp" in table["reason"][0]
    given = Options(tmp_path / "b", maps=False, mpp=0.5)
    table = run(survival, [unscaled, slide], given).set_index("slide_id")
    assert table["mpp"].tolist() == [0.5, 0.5] and set(table["status"]) == {"ok"}
    other = Options(tmp_path / "c", maps=False, mpp=0.4)
    table = run(survival, [unscaled, slide], other).set_index("slide_id")
    assert table["mpp"].tolist() == [0.4, 0.5]


def test_a_model_that_weighs_no_tiles_has_a_map_of_influence(study: Path, tmp_path: Path) -> None:
    file = handed(study, "subtype", "linear", tmp_path / "m.safetensors")
    slide = slides_of(study, ["SYN-0003"])[0]
    table = run(file, [slide], Options(tmp_path / "out"))
    shares = [c for c in table if c.startswith("prob_") and not c.endswith(("_low", "_high"))]
    assert np.isclose(table[shares].sum(axis=1), 1).all()
    for name in shares:
        assert (table[f"{name}_low"] <= table[name]).all()
        assert (table[name] <= table[f"{name}_high"]).all()
    page = (tmp_path / "out" / f"{slide.slide_id}.html").read_text()
    assert "speak for the predicted class" in page and "attention by rank" not in page


def test_fewer_tiles_are_encoded_than_a_large_case_has(
    study: Path, survival: ModelFile, tmp_path: Path
) -> None:
    members = [dataclasses.replace(one, max_tiles=3) for one in survival.card.members]
    card = dataclasses.replace(survival.card, max_tiles=3, members=members)
    few = dataclasses.replace(survival, card=card)
    slide = slides_of(study, ["SYN-0001"])[0]
    thin = run(few, [slide], Options(tmp_path / "thin"))
    whole = run(few, [slide], Options(tmp_path / "whole", all_tiles=True))
    assert thin["tiles"][0] > 3
    np.testing.assert_allclose(thin["risk_score"], whole["risk_score"], rtol=1e-3, atol=1e-4)

    def squares(name: str) -> int:
        text = (tmp_path / name / f"{slide.slide_id}.geojson").read_text()
        return len(json.loads(text)["features"])

    assert squares("thin") == 3
    assert squares("whole") == thin["tiles"][0]


def test_the_commands_export_and_predict(here: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    of = ["--task", "survival", "--model", "single", "--config", "study.yaml"]
    said = command("export-model", "--root", f"results/{NAME}", *of, "--out", str(out))
    assert "2 models" in said and out.with_suffix(".md").is_file()
    sheet = tmp_path / "sheet.csv"
    own = slides_of(here, ["SYN-0001"])
    lines = [f"{slide.path},mine" for slide in own]
    sheet.write_text("\n".join(["path,case_id", *lines]) + "\n")
    to = ["--model", str(out), "--out", str(tmp_path / "p")]
    said = command("predict", "--sheet", str(sheet), *to)
    assert f"{len(own)} of {len(own)} slides predicted" in said
    table = pd.read_csv(tmp_path / "p/predictions.csv")
    assert set(table["case_id"]) == {"mine"} and table["risk_score"].nunique() == 1


def test_a_sheet_without_paths_and_two_slides_of_one_name_are_refused(
    survival: ModelFile, tmp_path: Path
) -> None:
    (tmp_path / "s.csv").write_text("slide\na\n")
    with pytest.raises(UserError, match="no column `path`"):
        read_slides([], tmp_path / "s.csv")
    (tmp_path / "t.csv").write_text("path\tmpp\na.svs\tfine\n")
    with pytest.raises(UserError, match="no µm per pixel"):
        read_slides([], tmp_path / "t.csv")
    with pytest.raises(UserError, match="no slides"):
        read_slides([], None)
    twice = read_slides([Path("a/x.svs"), Path("b/x.ome.tiff")], None)
    with pytest.raises(UserError, match="two slides are called `x`"):
        run(survival, twice, Options(tmp_path / "out"))
