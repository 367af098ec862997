"""Models on a cohort that had no part in their training: taken as they are, measured alike."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.bags.store import open_store
from pipeline.config.reading import load, parse
from pipeline.contracts.case_map import CaseMap, read_case_map, write_case_map
from pipeline.contracts.slide_row import SlideRow
from pipeline.errors import ArtifactError, ConfigError, SheetError, UserError
from pipeline.evaluation.pooling import Pool, risk_groups
from pipeline.external import predictions
from pipeline.external.trained import check_apart
from pipeline.files.artifacts import read_json, write_text
from pipeline.plan import stage_params
from pipeline.report.sections import provenance
from pipeline.training.checkpoint import load_checkpoint
from pipeline.training.predict import predict
from tests.external.conftest import EXTERNAL, TRAINED
from tests.prediction.conftest import CONFIG
from tests.prediction.conftest import run as command

SECOND = "results/second"


@pytest.fixture
def here(hospitals: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(hospitals)
    return hospitals


def said(here: Path, task: str, model: str) -> pd.DataFrame:
    return pd.read_parquet(here / SECOND / "models" / task / model / "predictions.parquet")


def test_a_prediction_is_what_the_trained_network_says_of_the_features(here: Path) -> None:
    table = said(here, "survival", "v2")
    mapping = read_case_map(here / SECOND)
    for fold in (0, 1):
        network, head, meta = load_checkpoint(
            here / TRAINED / f"models/survival/v2/fold_{fold}/seed_0"
        )
        own = table[(table["fold"] == fold) & (table["split"] == "test")]
        cases = own["case_id"].tolist()
        levels = ("low", "mid", "high")
        place = torch.device("cpu")
        store = open_store(mapping, here / SECOND, meta.teachers, levels, cases, place)
        out = predict(network, store, np.arange(len(cases)), 4096)
        np.testing.assert_allclose(own["risk"], head.score(out), rtol=1e-5, atol=1e-6)


def test_training_rows_stay_and_no_case_is_of_both(here: Path) -> None:
    table, first = (
        said(here, "survival", "v2"),
        pd.read_parquet(here / TRAINED / "models/survival/v2/predictions.parquet"),
    )
    train, before = (t[t["split"] == "train"].reset_index(drop=True) for t in (table, first))
    pd.testing.assert_frame_equal(train, before[train.columns])
    tested = set(table.loc[table["split"] == "test", "case_id"])
    assert tested and all(case.startswith("EXT-") for case in tested)
    assert set(table["split"]) == {"train", "test"}


def test_a_case_has_the_mean_of_the_folds_on_the_scale_of_their_training_parts(here: Path) -> None:
    table = said(here, "survival", "v2")
    scores = []
    for _, fold in table.groupby("fold"):
        train = fold.loc[fold["split"] == "train", "risk"]
        own = fold[fold["split"] == "test"].set_index("case_id")["risk"]
        scores.append((own - train.mean()) / train.std(ddof=0))
    wanted = pd.concat(scores, axis=1).mean(axis=1)
    whole = pd.read_parquet(here / SECOND / "evaluation/survival/per_case.parquet")
    found = whole[whole["model"] == "v2"].set_index("case_id")["score"]
    np.testing.assert_allclose(found[wanted.index], wanted, rtol=1e-9)


def test_risk_groups_are_cut_by_the_training_cohort(here: Path) -> None:
    """With a risk far above all training cases, nobody is in the low group."""
    rows = [(0, 0, "train", f"t{i}", float(i)) for i in range(10)]
    rows += [(0, 0, "test", f"e{i}", 100.0 + i) for i in range(4)]
    table = pd.DataFrame(rows, columns=["seed", "fold", "split", "case_id", "score"])
    assert risk_groups(Pool("m", table, ("score",)), ["e0", "e3"], [0.5]).tolist() == [1, 1]
    summary = read_json(here / SECOND / "evaluation/survival/curves.json")
    groups = summary["kaplan_meier"]["v2"]["groups"]
    assert sum(group["n"] for group in groups) == 12


def test_what_decides_is_a_paired_bootstrap_over_the_cases(here: Path) -> None:
    table = pd.read_parquet(here / SECOND / "evaluation/subtype/comparisons.parquet")
    row = table[(table["metric"] == "auc") & (table["other"] == "linear")].iloc[0]
    assert row["test"] == "external cases" and np.isnan(row["p_folds"])
    assert row["p_value"] == row["p_cases"] and row["low"] <= row["difference"] <= row["high"]
    facts = read_json(here / SECOND / "evaluation/subtype/evaluation.json")
    assert facts["tests"] == "external" and facts["best_single"] is None
    assert facts["n_cases"] == 12


def test_a_cohort_without_one_of_the_classes_is_measured_on_the_others(
    here: Path, tmp_path: Path
) -> None:
    """The columns stay those of the model."""
    root = Path(shutil.copytree(here / SECOND, tmp_path / "second"))
    cases = pd.read_parquet(root / "cases.parquet")
    kept = cases[cases["subtype"] != cases["subtype"].iloc[0]]
    kept.to_parquet(root / "cases.parquet")
    job = stage_params.external_predictions(parse(EXTERNAL), "subtype", "v2")
    predictions.run(job=job, root=root, task="subtype", model="v2")
    table = pd.read_parquet(root / "models/subtype/v2/predictions.parquet")
    first = pd.read_parquet(here / TRAINED / "models/subtype/v2/predictions.parquet")
    assert [c for c in table if c.startswith("prob_")] == [
        c for c in first if c.startswith("prob_")
    ]
    assert set(table.loc[table["split"] == "test", "case_id"]) == set(kept["case_id"])
    cases.replace({"subtype": {"nested": "neste"}}).to_parquet(root / "cases.parquet")
    with pytest.raises(UserError, match="class `neste` in column `subtype`, which the models"):
        predictions.run(job=job, root=root, task="subtype", model="v2")


def test_features_of_another_encoder_are_refused(here: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(here / SECOND, tmp_path / "second"))
    path = root / "case_to_features.json"
    path.write_text(path.read_text().replace('"high": 512', '"high": 768'))
    job = stage_params.external_predictions(parse(EXTERNAL), "survival", "v2")
    with pytest.raises(ArtifactError, match="made by another encoder"):
        predictions.run(job=job, root=root, task="survival", model="v2")
    with pytest.raises(UserError, match="no finished training"):
        predictions.run(job=job, root=root, task="survival", model="v3")


def test_the_report_puts_both_cohorts_side_by_side(here: Path) -> None:
    config = parse(EXTERNAL)
    chosen = {name: config.tasks[name] for name in ("survival",)}
    config = config.model_copy(update={"tasks": chosen})
    handing = stage_params.report(config).canonical()
    command("report", "--cfg", handing, "--root", SECOND)
    page = (here / SECOND / "report.html").read_text()
    assert "External cohort." in page and "in cross-validation" in page
    assert "a paired bootstrap over the cases of this cohort" in page
    assert "The folds:" not in page


def test_the_config_that_a_run_wrote_down_is_read_again(here: Path, tmp_path: Path) -> None:
    config = parse(EXTERNAL)
    (tmp_path / "config.yaml").write_text(provenance.config_yaml(config))
    assert load(tmp_path / "config.yaml") == config


def row(case: str, slide: str) -> SlideRow:
    return SlideRow(slide, case, f"{slide}.svs", None, "", "", "", {}, 2)


def test_a_patient_or_a_slide_of_the_training_cohort_is_refused(here: Path) -> None:
    known = pd.read_csv(here / TRAINED / "slides.csv")
    first = known.iloc[0]
    case, content = str(first["case_id"]), str(first["identity"])
    with pytest.raises(SheetError, match=r"1 case\(s\) are in the training cohort: syn_0001"):
        check_apart([row(case.lower().replace("-", "_"), "x")], {"x": "new"}, here / TRAINED)
    with pytest.raises(SheetError, match=r"1 slide\(s\) have the content of a slide"):
        check_apart([row("new", "x")], {"x": f"{content}+mpp"}, here / TRAINED)
    check_apart([row("new", "x")], {"x": "new"}, here / TRAINED)
    with pytest.raises(ConfigError, match=r"slides\.csv"):
        check_apart([row("new", "x")], {"x": "new"}, here / "results/other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tiling": {"tile_px": 100}}, "tiling: an external cohort takes this section"),
        ({"tasks": {}}, "tasks: an external cohort takes this section"),
        ({"extraction": {"levels": ["high"]}}, "encoded as the training cohort was"),
        ({"extraction": {"teachers": {"one": {"seed": 3}}}}, "seed must be as in the training"),
        ({"extraction": {"teachers": {"three": {}}}}, "has no such teacher"),
        ({"external": {"trained": "results/nowhere"}}, "is not there"),
        ({"external": {"trained": SECOND}}, "external cohort itself"),
    ],
)
def test_what_the_models_were_trained_with_stays(
    here: Path, change: dict[str, object], message: str
) -> None:
    if message == "external cohort itself" and not Path(SECOND, "report/config.yaml").is_file():
        Path(SECOND, "report").mkdir(exist_ok=True)
        Path(SECOND, "report/config.yaml").write_text("external: {trained: x}\n")
    with pytest.raises(ConfigError, match=message):
        parse({**copy.deepcopy(EXTERNAL), **change})


def test_the_section_inherits_and_lets_the_rest_be_said(here: Path) -> None:
    config = parse({**EXTERNAL, "evaluation": {"bootstraps": 77}})
    trained = parse(CONFIG)
    assert config.tiling == trained.tiling and config.extraction == trained.extraction
    assert config.evaluation.bootstraps == 77
    assert config.evaluation.student == trained.evaluation.student
    assert config.applied() == ["v2", "linear"]
    assert parse({**EXTERNAL, "external": {"trained": TRAINED}}).applied() == list(
        trained.model_specs()
    )
    assert "tiny" in config.report.title


def test_each_fold_reads_the_features_of_its_own_encoder(here: Path, tmp_path: Path) -> None:
    """An encoder of each fold stands in for a teacher: that of fold 0 says the same as it."""
    root = Path(shutil.copytree(here / SECOND, tmp_path / "second"))
    first, other = read_case_map(root).teachers
    for fold, source in ((0, first), (1, other)):
        folder = root / f"features/mine.survival.{fold}"
        shutil.copytree(root / "features" / source, folder)
        for manifest in (folder / "manifest").glob("*.json"):
            text = manifest.read_text().replace(f"features/{source}/", f"features/{folder.name}/")
            manifest.write_text(text)
    job = stage_params.external_predictions(parse(EXTERNAL), "survival", "v2")
    job = job.model_copy(update={"made": {first: "mine.survival.{fold}"}})
    case_map = read_case_map(root)
    cases = {case: {other: of[other]} for case, of in case_map.cases.items()}
    write_case_map(root, CaseMap({other: case_map.teachers[other]}, cases))
    predictions.run(job=job, root=root, task="survival", model="v2")
    before, after = (
        pd.read_parquet(one / "models/survival/v2/predictions.parquet").query("split == 'test'")
        for one in (here / SECOND, root)
    )
    assert before["case_id"].tolist() == after["case_id"].tolist()
    same = np.isclose(before["risk"], after["risk"])
    assert same[before["fold"] == 0].all() and not same[before["fold"] == 1].any()


def test_encoders_that_the_training_cohort_made_are_taken_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = {"source": "timm", "model": "resnet10t", "weights": "random"}
    trained = {
        "cohort": {"name": "mine"},
        "extraction": {"teachers": {"net": tiny}},
        "tasks": {"grade": {"type": "classification", "label": "grade"}},
        "folds": {"k": 2},
        "encoder_distillation": {"students": {"small": {"encoder": tiny}}},
        "pretraining": {"teachers": {"own": {"method": "simsiam", "encoder": tiny, "pool": "all"}}},
        "training": {"models": {"single": {"kind": "single", "teacher": "each"}}},
        "evaluation": {"student": "single_net"},
    }
    write_text(Path("results/mine/report/config.yaml"), provenance.config_yaml(parse(trained)))
    mine = {"cohort": {"name": "other"}, "external": {"trained": "results/mine"}}
    config = parse(mine)
    assert config.made() == parse(trained).made() and config.made()
    assert "single_small" in config.applied() and "single_own_transductive" in config.applied()
    paths = {n: t.path for n, t in config.with_made().extraction.teachers.items()}
    assert paths["small.grade.1"] == "results/mine/teachers/small.grade.1"
    job = stage_params.external_predictions(config, "grade", "single_small")
    assert job.made == {"small": "small.grade.{fold}"}
    with pytest.raises(ConfigError, match="encoder_distillation: an external cohort takes"):
        parse({**mine, "encoder_distillation": {"students": {}}})
