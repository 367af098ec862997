"""The training stage, from feature files to predictions, for every kind of model and task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import TypeAdapter

from pipeline.config.models import ModelConfig
from pipeline.config.tasks import TaskConfig
from pipeline.config.training import TrainingConfig
from pipeline.contracts.case_map import read_case_map
from pipeline.errors import ArtifactError, ConfigError, UserError
from pipeline.training import stage
from pipeline.training.checkpoint import load_checkpoint

SURVIVAL = {"type": "survival", "time": "time", "event": "event", "loss": "cox"}
TASKS: dict[str, dict[str, Any]] = {
    "time": SURVIVAL,
    "kind": {"type": "classification", "label": "kind"},
    "score": {"type": "regression", "targets": ["score"]},
}
MODELS: dict[str, dict[str, Any]] = {
    "single": {"kind": "single", "teacher": "deep"},
    "concat": {"kind": "concat"},
    "mean": {"kind": "mean"},
    "linear": {"kind": "linear"},
    "shazam_v1": {"kind": "shazam_v1"},
    "shazam_v2": {"kind": "shazam_v2"},
}


SMALL = {kind: {"d_model": 8} for kind in ("single", "concat", "mean", "shazam_v1", "shazam_v2")}


def train(
    root: Path,
    model: dict[str, Any],
    task_name: str = "time",
    task: dict[str, Any] | None = None,
    name: str = "model",
    versions: str = "code",
    **cfg: Any,
) -> pd.DataFrame:
    stage.run(
        cfg=TrainingConfig(**{"epochs": 2, "batch_size": 6, **cfg}),
        model_name=name,
        model=TypeAdapter(ModelConfig).validate_python({**SMALL.get(model["kind"], {}), **model}),
        task_name=task_name,
        task=TypeAdapter(TaskConfig).validate_python(task or TASKS[task_name]),
        root=root,
        versions=versions,
        workers=1,
        device="cpu",
    )
    return pd.read_parquet(root / "models" / task_name / name / "predictions.parquet")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("task", TASKS)
def test_every_model_learns_every_task(root: Path, model: str, task: str) -> None:
    table = train(root, MODELS[model], task, seeds=(0, 1))
    lacks_none = table[(table.seed == 0) & (table.split == "test")]
    assert sorted(lacks_none.case_id) == sorted(lacks_none.case_id.unique())
    assert len(lacks_none) == 24
    assert set(table.split) == {"train", "val", "test"}
    expected = {
        "time": {"risk", "time", "event"},
        "kind": {"label", "prob_x", "prob_y", "prob_z"},
        "score": {"pred_score", "true_score"},
    }[task]
    assert expected < set(table.columns)
    numbers = table.select_dtypes("number")
    assert np.isfinite(numbers.to_numpy()).all()
    folder = root / "models" / task / "model" / "fold_1" / "seed_1"
    history = pd.read_csv(folder / "history.csv")
    assert {"epoch", "train_loss", "val_loss", "val_metric"} < set(history.columns)
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["cases"] == {"test": 12, "train": 8, "val": 4}
    assert meta["n_parameters"] > 0


def test_a_linear_model_of_survival_is_one_of_proportional_hazards(root: Path) -> None:
    train(root, MODELS["linear"], task={**SURVIVAL, "loss": "nll"})
    folder = root / "models/time/model/fold_0/seed_0"
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["head"]["kind"] == "cox"
    assert meta["best_epoch"] == meta["epochs"] == 1
    assert meta["network"]["penalties"][""] > 0
    assert len(pd.read_csv(folder / "history.csv")) == 1


def test_nll_stores_train_fitted_edges_and_survival_at_each(root: Path) -> None:
    table = train(root, MODELS["shazam_v2"], task={**SURVIVAL, "loss": "nll"})
    for k in range(2):
        meta = json.loads((root / f"models/time/model/fold_{k}/seed_0/meta.json").read_text())
        learned = table[(table.fold == k) & (table.split == "train")]
        events = learned[learned.event == 1].time
        edges = np.quantile(events, [0.25, 0.5, 0.75])
        np.testing.assert_allclose(meta["head"]["bin_edges"], edges, rtol=1e-5)
        assert meta["cutoffs"]["median"] == pytest.approx(float(learned.risk.median()))
    assert (table.surv_1 >= table.surv_2).all()
    assert table[["surv_1", "surv_3"]].to_numpy().max() <= 1


def test_labels_and_features_of_test_cases_do_not_reach_the_model(root: Path) -> None:
    """Change everything about the test cases of fold 0: the weights must not move."""
    folder = root / "models/time/model/fold_0/seed_0"
    train(root, MODELS["shazam_v2"])
    before, _, _ = load_checkpoint(folder)
    cases = pd.read_parquet(root / "cases.parquet")
    tested = [f"case{i:02d}" for i in range(0, 24, 2)]
    cases.loc[cases.case_id.isin(tested), "time"] *= 100
    cases.to_parquet(root / "cases.parquet")
    for case in tested:
        for path in (root / "features").glob(f"*/{case}-*.h5"):
            with h5py.File(path, "r+") as file:
                file["features"][...] = file["features"][...] * 5 + 1
    train(root, MODELS["shazam_v2"])
    after, _, _ = load_checkpoint(folder)
    for (name, a), b in zip(before.state_dict().items(), after.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_same_run_twice_gives_the_same_numbers(root: Path) -> None:
    first = train(root, MODELS["shazam_v2"], name="a", tiles_per_step=4)
    second = train(root, MODELS["shazam_v2"], name="a", tiles_per_step=4, versions="other")
    pd.testing.assert_frame_equal(first, second)
    other = train(root, MODELS["shazam_v2"], name="a", tiles_per_step=4, seeds=(7,))
    assert not np.allclose(first.risk, other.risk)


def test_a_finished_fold_is_not_trained_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(root, MODELS["single"])
    (root / "models/time/model/fold_1/seed_0/meta.json").unlink()
    (root / "models/time/model/predictions.parquet").unlink()
    trained: list[int] = []
    original = stage.train

    def counted(*args: Any, **kwargs: Any) -> Any:
        trained.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(stage, "train", counted)
    second = train(root, MODELS["single"])
    assert len(trained) == 1
    pd.testing.assert_frame_equal(first, second)
    train(root, MODELS["single"], seeds=(0, 1))
    assert len(trained) == 3  # the new seed alone
    train(root, MODELS["single"], learning_rate=0.01)
    assert len(trained) == 5
    train(root, MODELS["single"], versions="new", learning_rate=0.01)
    assert len(trained) == 7


def test_streamed_bags_train_to_the_same_numbers(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = train(root, MODELS["shazam_v2"], name="a", tiles_per_step=3)
    monkeypatch.setattr("pipeline.bags.store.host_budget", lambda: 0)
    streamed = train(root, MODELS["shazam_v2"], name="a", versions="again", tiles_per_step=3)
    meta = json.loads((root / "models/time/a/fold_0/seed_0/meta.json").read_text())
    assert not meta["resident"]
    np.testing.assert_allclose(resident.risk, streamed.risk, atol=1e-5)


def test_mixed_precision_trains_to_about_the_same(root: Path) -> None:
    settings: dict[str, Any] = {"model": MODELS["single"], "name": "a", "epochs": 4}
    full = train(root, **settings, precision="fp32")
    mixed = train(root, **settings, precision="bf16", versions="again")
    assert not np.array_equal(full.risk, mixed.risk)
    assert np.corrcoef(full.risk, mixed.risk)[0, 1] > 0.99


@pytest.mark.parametrize("named", ["one by one", "by a pattern"])
def test_every_target_is_predicted_under_its_name(root: Path, named: str) -> None:
    """Many targets at once, as with gene expression; the order in the sheet does not matter."""
    cases = pd.read_parquet(root / "cases.parquet")
    genes = [f"gene{i}" for i in range(12)]
    signs = np.where(np.arange(12) % 2, 1.0, -1.0)
    table = {g: signs[i] * cases.score * 10.0**i for i, g in enumerate(genes)}
    cases.assign(**table)[[*cases.columns, *genes[::-1]]].to_parquet(root / "cases.parquet")
    task = {"type": "regression", "targets": genes if named == "one by one" else ["gene*"]}
    out = train(root, MODELS["single"], "score", task, epochs=30, learning_rate=1e-2)
    learned = out[out.split == "train"]
    values = pd.read_parquet(root / "cases.parquet").set_index("case_id")
    for gene in genes:
        said, true = learned[f"pred_{gene}"], learned[f"true_{gene}"]
        np.testing.assert_allclose(true, values.loc[learned.case_id, gene], rtol=1e-4)
        assert np.corrcoef(said, true)[0, 1] > 0.5  # of the other sign if it were a neighbour's


def test_checkpoint_rebuilds_the_model(root: Path) -> None:
    table = train(root, MODELS["shazam_v2"])
    network, head, meta = load_checkpoint(root / "models/time/model/fold_0/seed_0")
    assert head.kind == "cox"
    from pipeline.bags.store import open_store
    from pipeline.training.predict import predict

    mapping = read_case_map(root)
    # A validation case is predicted before the model learns from it, so by other weights.
    kept = table[(table.fold == 0) & (table.split != "val")].set_index("case_id")
    cases = ["case03", "case12", str(kept.index[0])]
    levels = ["low", "mid", "high"]
    cpu = torch.device("cpu")
    store = open_store(mapping, root, meta.teachers, levels, cases, cpu)
    out = predict(network, store, np.arange(3), None)
    np.testing.assert_allclose(head.score(out), kept.risk[cases], atol=1e-5)


def test_models_learn_from_validation_cases_that_were_predicted_before(root: Path) -> None:
    refit = train(root, MODELS["shazam_v2"], name="model")
    fixed = train(root, MODELS["shazam_v2"], name="model", refit=False)
    validated = refit.split == "val"
    # Predicted in batches of other cases, which moves the last digits.
    np.testing.assert_allclose(refit.risk[validated], fixed.risk[validated], atol=1e-6)
    tested = refit.split == "test"
    assert not np.allclose(refit.risk[tested], fixed.risk[tested])


def test_no_model_learns_from_validation_cases_that_are_also_tested(root: Path) -> None:
    """As in published splits, on request: the numbers are validation results, not training's."""
    folder = root / "folds/time"
    for path in folder.glob("fold_*.csv"):
        kept = [line for line in path.read_text().splitlines() if not line.endswith(",test")]
        again = [line.replace(",val", ",test") for line in kept if line.endswith(",val")]
        path.write_text("\n".join([*kept, *again]) + "\n")
    summary = json.loads((folder / "folds.json").read_text())
    (folder / "folds.json").write_text(
        json.dumps({**summary, "labelled": "validation", "tests": "incomplete"})
    )
    refit = train(root, MODELS["shazam_v2"], name="model")
    fixed = train(root, MODELS["shazam_v2"], name="model", refit=False)
    assert (refit.split == "test").any()
    np.testing.assert_array_equal(refit.risk, fixed.risk)


def test_a_case_without_a_teacher_stays_with_a_student_and_leaves_a_single(root: Path) -> None:
    student = train(root, MODELS["shazam_v2"], name="student")
    assert {"case03", "case10"} <= set(student.case_id)
    single = train(root, {"kind": "single", "teacher": "flat"}, name="flat")
    assert not {"case03", "case10"} & set(single.case_id)
    meta = json.loads((root / "models/time/flat/fold_0/seed_0/meta.json").read_text())
    assert sum(meta["cases_without_features"].values()) == 2


def test_missing_levels_are_masked_and_said(root: Path) -> None:
    train(root, MODELS["shazam_v2"])
    meta = json.loads((root / "models/time/model/fold_0/seed_0/meta.json").read_text())
    assert meta["levels_absent"] == {"flat": ["low", "mid"]}
    assert "flat/high" in meta["network"]["distilled"]
    assert "flat/low" not in meta["network"]["distilled"]


@pytest.mark.parametrize("kind", ["single", "concat", "mean"])
def test_several_levels_are_pooled_each_by_itself(root: Path, kind: str) -> None:
    teacher = {"teacher": "deep"} if kind == "single" else {}
    train(root, {"kind": kind, "levels": ["low", "high"], **teacher})
    folder = root / "models/time/model/fold_0/seed_0"
    meta = json.loads((folder / "meta.json").read_text())
    assert set(meta["dims"][0]) == {"low", "high"}
    assert meta["levels_absent"] == ({} if kind == "single" else {"flat": ["low"]})
    seen = pd.read_parquet(folder / "attention.parquet")
    assert set(seen[seen["teacher"] == "deep"]["level"]) == {"low", "high"}
    network, _, _ = load_checkpoint(folder)
    first = [(t, level) for t, level in network.pairs if t == 0]
    assert first == [(0, "low"), (0, "high")]
    assert len(network.aggregators) == (2 if kind == "single" else 3)


def test_attention_has_the_slides_coordinates_of_the_extreme_test_cases(root: Path) -> None:
    table = train(root, MODELS["shazam_v2"])
    attention = pd.read_parquet(root / "models/time/model/fold_0/seed_0/attention.parquet")
    test = table[(table.fold == 0) & (table.split == "test")].sort_values("risk")
    assert set(attention.case_id) == {test.case_id.iloc[0], test.case_id.iloc[-1]}
    assert set(attention.teacher) == {"deep"}  # the other teacher's files have no coordinates
    sums = attention.groupby(["case_id", "teacher", "level"]).score.sum()
    np.testing.assert_allclose(sums, 1, atol=1e-4)
    row = attention.iloc[0]
    with h5py.File(root / f"features/deep/{row.slide_id}.h5") as file:
        assert (row.x, row.y) in {tuple(xy) for xy in file["coords"][:].tolist()}


@pytest.mark.parametrize("targets", ["learned", "attached"])
@pytest.mark.parametrize("gate", ["before_norm", "off"])
def test_published_choices_can_be_reached(root: Path, targets: str, gate: str) -> None:
    options = {"gate": gate, "distillation": {"targets": targets, "weight": 0.01}}
    table = train(root, {**MODELS["shazam_v2"], **options})
    assert np.isfinite(table.risk).all()


def test_messages_name_what_is_wrong(root: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean `deep`"):
        train(root, {"kind": "single", "teacher": "deeep"})
    with pytest.raises(ConfigError, match="flat has no level `low`"):
        train(root, {"kind": "concat", "levels": ["low"]})
    with pytest.raises(UserError, match=r"epoch \d+; lower training.learning_rate"):
        train(root, MODELS["single"], learning_rate=1e30)
    path = root / "case_to_features.json"
    mapping = json.loads(path.read_text())
    del mapping["cases"]["case05"]
    path.write_text(json.dumps(mapping))
    with pytest.raises(ArtifactError, match=r"`case05` is not in case_to_features\.json"):
        train(root, MODELS["single"])


def test_a_damaged_checkpoint_is_named(root: Path) -> None:
    train(root, MODELS["single"])
    folder = root / "models/time/model/fold_0/seed_0"
    meta = json.loads((folder / "meta.json").read_text())
    meta["model"]["d_model"] = 16
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ArtifactError, match=r"weights\.safetensors: does not fit"):
        load_checkpoint(folder)
