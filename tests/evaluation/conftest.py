"""A results folder with cases, folds and predictions, as the stages before leave it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.folds import FoldsConfig, FoldsJob
from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
from pipeline.contracts.folds import PARTS, read_folds
from pipeline.contracts.labels import Task, read_labels
from pipeline.contracts.model_meta import write_meta
from pipeline.evaluation import stage
from pipeline.files.artifacts import read_json
from pipeline.files.parquet import write_table
from pipeline.folds import stage as folds_stage
from tests.contracts import metas

TASKS: dict[str, Task] = {
    "survival": SurvivalTask(type="survival", time="time", event="event", loss="cox"),
    "classification": ClassificationTask(type="classification", label="subtype"),
    "regression": RegressionTask(type="regression", targets=["score"]),
}
NAME = "task"


class Results:
    """A results folder of one task; `state` is what predictions are made from, one row per case."""

    def __init__(
        self,
        root: Path,
        task: Task,
        n: int = 90,
        seed: int = 0,
        k: int = 3,
        inner: int | None = None,
        **columns: Any,
    ) -> None:
        self.root, self.task = root, task
        rng = np.random.default_rng(seed)
        self.state = rng.normal(size=n)
        cases = [f"c{i:03d}" for i in range(n)]
        hidden = rng.exponential(20 * np.exp(-self.state)) + 0.05
        censored = rng.exponential(25, n) + 0.05
        cuts = np.quantile(self.state, [0.4, 0.7])
        self.cases = pd.DataFrame(
            {
                "case_id": cases,
                "site": "",
                "n_slides": 1,
                "n_usable_slides": 1,
                "complete": True,
                "time": np.minimum(hidden, censored),
                "event": (hidden <= censored).astype(int),
                "subtype": np.array(["a", "b", "c"])[
                    np.searchsorted(cuts, self.state + 0.3 * rng.normal(size=n))
                ],
                "score": self.state + 0.3 * rng.normal(size=n),
            }
        ).assign(**columns)
        slides = pd.DataFrame({"slide_id": cases, "case_id": cases})
        write_table(root / "cases.parquet", self.cases)
        write_table(root / "slides.parquet", slides)
        write_table(root / "coverage.parquet", slides.assign(teacher="t", status="ok"))
        job = FoldsJob(
            folds=FoldsConfig(k=k, inner=inner), cases="intersection", task=task.model_dump()
        )
        folds_stage.run(job=job, root=root, task=NAME)
        self.models: list[str] = []

    def add(
        self,
        model: str,
        noise: float,
        seeds: tuple[int, ...] = (0,),
        scale: Callable[[int, int], float] = lambda seed, fold: 1.0,
        meta: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Write a model's predictions: the state with `noise`, on a scale per training."""
        labels = read_labels(self.cases, NAME, self.task)
        folds = read_folds(self.root, NAME)
        row_of = {case: i for i, case in enumerate(self.cases["case_id"])}
        tables = []
        for seed in seeds:
            for fold in folds:
                rng = np.random.default_rng([seed, fold.index, *map(ord, model)])
                keys = [(part, case) for part in PARTS for case in fold.part(part)]
                rows = np.array([row_of[case] for _, case in keys])
                guess = self.state[rows] + noise * rng.normal(size=len(rows))
                table = pd.DataFrame(
                    {
                        "seed": seed,
                        "fold": fold.index,
                        "split": [part for part, _ in keys],
                        "case_id": [case for _, case in keys],
                    }
                )
                factor = scale(seed, fold.index)
                tables.append(table.assign(**self._columns(guess, rows, labels, factor)))
                if meta is not None:
                    folder = self.folder(model) / f"fold_{fold.index}" / f"seed_{seed}"
                    write_meta(folder, metas.meta(**{**meta, "fold": fold.index, "seed": seed}))
        table = pd.concat(tables, ignore_index=True)
        self.write(model, table)
        return table

    def _columns(
        self, guess: np.ndarray, rows: np.ndarray, labels: Any, factor: float
    ) -> dict[str, Any]:
        if self.task.type == "survival":
            time, event = self.cases["time"].to_numpy(), self.cases["event"].to_numpy()
            return {"risk": guess * factor, "time": time[rows], "event": event[rows]}
        if self.task.type == "classification":
            logits = -((guess[:, None] - np.array([-1.0, 0.2, 1.2])) ** 2)
            values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            label = self.cases["subtype"].to_numpy()
            return {
                "label": label[rows],
                **{f"prob_{c}": values[:, i] for i, c in enumerate("abc")},
            }
        score = self.cases["score"].to_numpy()
        return {"pred_score": guess, "true_score": score[rows]}

    def folder(self, model: str) -> Path:
        return self.root / "models" / NAME / model

    def write(self, model: str, table: pd.DataFrame) -> None:
        write_table(self.folder(model) / "predictions.parquet", table)
        if model not in self.models:
            self.models.append(model)

    def evaluate(self, zero_shot: tuple[str, ...] = (), **cfg: Any) -> dict[str, Any]:
        """Run the stage and return evaluation.json; predictions from words are no models."""
        cfg = {"student": "student", "bootstraps": 60, **cfg}
        stage.run(
            cfg=EvaluationConfig(**cfg),
            task_name=NAME,
            task=self.task,
            models=[name for name in self.models if name not in zero_shot],
            root=self.root,
            zero_shot=zero_shot,
        )
        return dict(read_json(self.out / "evaluation.json"))

    @property
    def out(self) -> Path:
        return self.root / "evaluation" / NAME

    def metric(self, model: str, metric: str) -> pd.Series:
        table = pd.read_parquet(self.out / "metrics.parquet")
        (row,) = table[(table["model"] == model) & (table["metric"] == metric)].index
        return table.loc[row]


@pytest.fixture
def results(tmp_path: Path) -> Callable[..., Results]:
    """`results("survival", n=90, k=3)` makes a results folder of that kind of task."""

    def make(kind: str, **options: Any) -> Results:
        task = options.pop("task", TASKS[kind])
        return Results(tmp_path, task, **options)

    return make
