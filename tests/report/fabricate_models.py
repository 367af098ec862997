"""The models of the fabricated folder: predictions with more or less signal, history, attention."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from pipeline.config.whole import Config
from pipeline.contracts.folds import PARTS, Fold, read_folds
from pipeline.contracts.model_meta import write_meta
from pipeline.files.parquet import write_csv, write_table
from tests.contracts.metas import meta

EPOCHS = 30


def models(config: Config, root: Path, task: str, cases: pd.DataFrame) -> None:
    """predictions.parquet of every model, and per fold meta.json and history.csv."""
    labels = cases.set_index("case_id")
    folds = read_folds(root, task)
    teachers = list(config.extraction.teachers)
    for m, (model, spec) in enumerate(config.model_specs().items()):
        rng = np.random.default_rng(zlib.crc32(f"{task}/{model}".encode()))
        noise = 0.6 if model == "shazam_v2" else 1.0
        folder = root / "models" / task / model
        parts = [_predictions(config, task, labels, fold, noise, rng) for fold in folds]
        write_table(folder / "predictions.parquet", pd.concat(parts, ignore_index=True))
        for fold in folds:
            place = folder / f"fold_{fold.index}" / "seed_0"
            best = _history(place, rng)
            facts = {"kind": spec.kind, "teacher": getattr(spec, "teacher", None)}
            write_meta(
                place,
                meta(
                    model=facts,
                    fold=fold.index,
                    best_epoch=best,
                    n_parameters=20_000 * (m + 1),
                    seconds=0.5 * (m + 1),
                    inference_seconds_per_case=0.001 * (m + 1 + fold.index),
                    teachers=[spec.teacher] if spec.kind == "single" else teachers,
                ),
            )


def _predictions(
    config: Config,
    task: str,
    labels: pd.DataFrame,
    fold: Fold,
    noise: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    rows = [(0, fold.index, part, case) for part in PARTS for case in fold.part(part)]
    table = pd.DataFrame(rows, columns=["seed", "fold", "split", "case_id"])
    own = labels.loc[table["case_id"]].reset_index(drop=True)
    n = len(table)
    if task == "survival":
        table["risk"] = -np.log(own["time"]) + noise * rng.normal(size=n)
        return table.assign(time=own["time"], event=own["event"])
    if task == "subtype":
        names = sorted(labels["subtype"].unique())
        logits = np.stack([own["subtype"] == name for name in names], axis=1) * 1.5
        logits = logits + noise * rng.normal(size=logits.shape)
        chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        for c, name in enumerate(names):
            table[f"prob_{name}"] = chance[:, c]
        return table.assign(label=own["subtype"])
    table["pred_score"] = 0.6 * own["score"] + 0.6 * noise * rng.normal(size=n)
    return table.assign(true_score=own["score"])


def _history(place: Path, rng: np.random.Generator) -> int:
    """history.csv of one training; returns the epoch with the lowest validation loss."""
    epochs = np.arange(1, EPOCHS + 1)
    train = 0.9 * np.exp(-epochs / 12) + 0.3 + rng.normal(0, 0.01, EPOCHS)
    val = 0.7 * np.exp(-epochs / 7) + 0.45 + 0.006 * epochs + rng.normal(0, 0.015, EPOCHS)
    columns: dict[str, Any] = {"epoch": epochs, "train_loss": train, "val_loss": val}
    write_csv(place / "history.csv", pd.DataFrame(columns))
    return int(epochs[val.argmin()])


def attention(config: Config, root: Path, cases: pd.DataFrame, rng: np.random.Generator) -> None:
    """Attention of two cases per fold of the survival student."""
    coverage = pd.read_parquet(root / "coverage.parquet").query("status == 'ok'")
    ids = cases["case_id"].tolist()
    for fold in range(5):
        rows = []
        for case in ids[2 * fold : 2 * fold + 2]:
            for slide in sorted(coverage.loc[coverage["case_id"] == case, "slide_id"].unique()):
                with h5py.File(root / "tiles" / f"{slide}.h5") as file:
                    coords = file["coords"][:]
                spot = coords[rng.integers(len(coords))]
                far = np.linalg.norm(coords - spot, axis=1) / 2000
                for teacher in config.extraction.teachers:
                    for level in ("low", "mid", "high"):
                        score = np.exp(-far + rng.normal(0, 0.2, len(coords)))
                        table = pd.DataFrame({"x": coords[:, 0], "y": coords[:, 1]})
                        rows.append(
                            table.assign(
                                case_id=case, slide_id=slide, teacher=teacher, level=level,
                                score=score / score.sum(), influence=far - far.mean(),
                            )
                        )  # fmt: skip
        path = root / f"models/survival/shazam_v2/fold_{fold}/seed_0/attention.parquet"
        columns = ["case_id", "slide_id", "teacher", "level", "x", "y", "score", "influence"]
        write_table(path, pd.concat(rows)[columns])
