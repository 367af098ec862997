"""The evaluation stage: every model of a task on its test folds, and the student against each.

Writes `evaluation/<task>/`:

- `metrics.parquet` and `.csv`: one row per model and metric (`metrics.metric_table`), the primary
  metric first, models from the best to the worst;
- `comparisons.parquet` and `.csv`: one row per metric and other model (`comparisons.compare`); both
  tables say in `labelled` whether their numbers are test or validation results;
- `attribution.parquet` and `.csv`, of a student with controls: what its lead over a single teacher
  is made of (`attribution.attribution_table`);
- `covariates.parquet` and `.csv`, where the cohort has covariates: the student with them against
  them alone (`covariates.covariates_table`);
- `missing_teachers.parquet` and `.csv`, where tested cases lack a teacher: every model on cases
  with all of them, and on those without one (`missing_teachers.missing_table`);
- `stacks.parquet` and `.csv`, of ensembles: what each member weighs in each fold
  (`stacks.stack_table`);
- `per_case.parquet`: the pooled out-of-fold test predictions that all numbers come from;
- `nested.parquet` and `.csv`, with nested cross-validation: what each fold chose, and from what
  (`nested.nested_table`);
- `auxiliary.parquet` and `.csv`, where models learn auxiliary endpoints: metrics of
  those (`auxiliary_endpoints.auxiliary_table`);
- `targets.parquet` and `.csv`, of several regression targets: one row per model and target, and
  `profiles.parquet` and `.csv`: one row per model and case (`targets.target_table`, `case_table`);
- `curves.json`: the points of the figures (`figures.figure_points`), and `forest`;
- `evaluation.json`: the summary (`contracts.evaluation_summary`).

With the trained models stands `average`, the mean of the single-teacher models' predictions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config.controls import Controls
from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.models import STACKS
from pipeline.config.tasks import SurvivalTask
from pipeline.contracts.cohort_facts import FILE, read_cohort_facts
from pipeline.contracts.columns import spelled_out
from pipeline.contracts.evaluation_summary import write_evaluation_summary
from pipeline.contracts.folds import read_folds
from pipeline.contracts.folds_summary import FoldsSummary, read_folds_summary
from pipeline.contracts.labels import Labels, Task
from pipeline.errors import ConfigError, nearest
from pipeline.evaluation.attribution import attribution_table
from pipeline.evaluation.auxiliary_endpoints import auxiliary_table
from pipeline.evaluation.comparisons import compare
from pipeline.evaluation.covariates import covariates_table
from pipeline.evaluation.figures import figure_points, forest, jsonable
from pipeline.evaluation.load_inputs import known_labels, lacking_teachers, open_bench
from pipeline.evaluation.metrics import PRIMARY, Bench, Measured, higher_is_better, metric_table
from pipeline.evaluation.missing_teachers import missing_table
from pipeline.evaluation.nested import nested_table
from pipeline.evaluation.pooling import Pool, average, pooled, risk_groups
from pipeline.evaluation.predictions import Predictions, read_predictions
from pipeline.evaluation.reference import reference_metrics
from pipeline.evaluation.retained import retained_table, teacher_of
from pipeline.evaluation.stacks import stack_table
from pipeline.evaluation.summary import summary
from pipeline.evaluation.survival_curves import GROUP_NAMES, QUANTILES
from pipeline.evaluation.targets import case_table, target_table
from pipeline.files.artifacts import sweep, write_json
from pipeline.files.parquet import read_table, write_table
from pipeline.runtime import progress

# Raised when every task's measures change. 1: the first. 2: the test that decides draws folds and
# their cases, fold tests use the cases that both models predict, hazard ratios are per deviation of
# the tested cases' scores. 3: these draws are widened as few folds need it. 4: the best single
# teacher may be that of a linear model. 5: tables of covariates, stacks and missing teachers.
VERSION = 5

AVERAGE = "average"


def run(
    *,
    cfg: EvaluationConfig,
    task_name: str,
    task: Task,
    models: list[str],
    root: Path,
    auxiliary: Mapping[str, Task] | None = None,
    controls: Controls | None = None,
    zero_shot: Sequence[str] = (),
    made: Sequence[str] = (),
) -> None:
    """Measure and compare the models of one task.

    Args:
        cfg: the stage's config.
        task_name, task: the task.
        models: names of the trained models, ablations among them.
        root: the results folder.
        auxiliary: the tasks that the models learned with it.
        controls: the models that the student is taken apart with.
        zero_shot: predictions from words, which stand beside the models.
        made: encoders that the workflow made; they are compared with their teachers, and none of
            these themselves.

    Raises:
        ConfigError: the student is not among the models, or one is called `average`.
        ArtifactError: predictions are missing, or do not fit the folds or the labels.
    """
    if cfg.student not in models:
        raise ConfigError(
            f"evaluation.student is `{cfg.student}`, which is no trained model"
            f"{nearest(cfg.student, models)}"
        )
    if AVERAGE in models:
        raise ConfigError(
            f"training: a model is called `{AVERAGE}`, which is the name of the single models' "
            f"mean in the evaluation; rename it"
        )
    sweep(root / "evaluation" / task_name)
    folds = read_folds(root, task_name)
    summed = read_folds_summary(root, task_name)
    cases = read_table(root / "cases.parquet")
    task = spelled_out(task, cases.columns)
    labels = known_labels(cases, task_name, task, folds)
    predictions = [
        read_predictions(root, task_name, task, m, labels, folds) for m in (*models, *zero_shot)
    ]
    bench, pools = open_bench(cfg, task, labels, folds, predictions)
    given = [one for one in predictions if teacher_of(one) not in made]
    field = line_up(given, pools, bench)
    folder = root / "evaluation" / task_name
    by_name, known = field.by_name, controls or Controls()
    parts = attribution_table(known, cfg.student, by_name, bench, cfg.confidence)
    beyond = covariates_table(known, cfg.student, by_name, bench, cfg.confidence)
    lacking = lacking_teachers(root)
    missing = missing_table(list(by_name.values()), lacking, bench, cfg.confidence)
    _write_or_remove(folder / "attribution.parquet", parts)
    _write_or_remove(folder / "covariates.parquet", beyond)
    _write_or_remove(folder / "missing_teachers.parquet", missing)
    _write_or_remove(folder / "stacks.parquet", stack_table(predictions))
    _write_or_remove(folder / "nested.parquet", nested_table(predictions, field.pools, bench))
    kept = retained_table(predictions, field.measured, made, bench, cfg.confidence)
    _write_or_remove(folder / "encoders.parquet", kept)
    stacked = {m.name for m in predictions if m.meta and m.meta.model["kind"] in STACKS}
    networks = [name for name in models if name not in stacked]
    learned_too = auxiliary_table(cfg, root, task_name, auxiliary or {}, networks, folds, cases)
    _write_or_remove(folder / "auxiliary.parquet", learned_too)
    publish(
        cfg=cfg,
        task_name=task_name,
        bench=bench,
        field=field,
        predictions=predictions,
        plain=_of_one_teacher(given),
        split=summed,
        labels=labels,
        root=root,
    )


@dataclasses.dataclass(frozen=True)
class Field:
    """Every model on the bench, the best first.

    Attributes:
        pools, measured: of each model.
        members: the models that `average` is the mean of.
    """

    pools: list[Pool]
    measured: list[Measured]
    members: list[str]

    @property
    def by_name(self) -> dict[str, tuple[Pool, Measured]]:
        return {pool.name: (pool, one) for pool, one in zip(self.pools, self.measured, strict=True)}


def line_up(predictions: Sequence[Predictions], pools: Sequence[Pool], bench: Bench) -> Field:
    """Measure the models, and `average` where there are several single-teacher models.

    Args:
        predictions: of each trained model.
        pools: the same on a common scale.
        bench: cases, labels and resamples.
    """
    members = _singles(predictions)
    pools = list(pools)
    if len(members) > 1:
        pools.append(average(AVERAGE, [pool for pool in pools if pool.name in members]))
    measured = [bench.measure(pool) for pool in progress.counted(pools, "models measured")]
    order = _order(measured, PRIMARY[bench.task.type])
    return Field([pools[i] for i in order], [measured[i] for i in order], members)


def publish(
    *,
    cfg: EvaluationConfig,
    task_name: str,
    bench: Bench,
    field: Field,
    predictions: Sequence[Predictions],
    plain: Sequence[str],
    split: FoldsSummary,
    labels: Labels,
    root: Path,
) -> None:
    """Compare the student with every other model, and write the task's tables, figures' points and
    last its summary.

    Args:
        cfg: the stage's config.
        task_name: the task's name.
        bench: cases, labels and resamples.
        field: the models on it.
        predictions: of each trained model.
        plain: the simple models of one teacher, of which the best is named.
        split: how its cases were split.
        labels: of all cases that the folds hold.
        root: the results folder.
    """
    task, pools, measured = bench.task, field.pools, field.measured
    others = field.by_name
    student = others.pop(cfg.student)
    labelled = split.labelled
    metrics = metric_table(measured, bench, cfg.confidence).assign(labelled=labelled)
    comparisons = compare(student, list(others.values()), bench, cfg.confidence)
    comparisons = comparisons.assign(labelled=labelled)
    groups = _groups(pools, bench, cfg, task)
    curves = figure_points(list(zip(pools, measured, strict=True)), groups, bench, cfg)

    folder = root / "evaluation" / task_name
    write_table(folder / "metrics.parquet", metrics, csv=True)
    write_table(folder / "comparisons.parquet", comparisons, csv=True)
    write_table(folder / "per_case.parquet", _per_case(pools, bench, groups, cfg))
    _write_or_remove(folder / "targets.parquet", target_table(pools, bench, cfg.confidence))
    _write_or_remove(folder / "profiles.parquet", case_table(pools, bench, labels))
    curves["forest"] = forest(metrics, comparisons, PRIMARY[task.type])
    write_json(folder / "curves.json", jsonable(curves))
    found = summary(
        cfg=cfg,
        task_name=task_name,
        bench=bench,
        split=split,
        predictions=predictions,
        pools=pools,
        members=field.members,
        plain=plain,
        metrics=metrics,
        comparisons=comparisons,
        curves=curves,
        oracle=_oracle(root, task_name),
        reference=reference_metrics(bench, labels),
    )
    write_evaluation_summary(folder, found)


def _write_or_remove(path: Path, table: pd.DataFrame | None) -> None:
    """Write a table that not every run has; one of an earlier run goes."""
    if table is not None:
        write_table(path, table, csv=True)
        return
    for old in (path, path.with_suffix(".csv")):
        old.unlink(missing_ok=True)


def _singles(models: Sequence[Predictions]) -> list[str]:
    """The single-teacher models: by their meta.json, or by name where there is none."""
    return [
        m.name
        for m in models
        if (m.meta.model["kind"] == "single" if m.meta else m.name.startswith("single"))
    ]


def _of_one_teacher(models: Sequence[Predictions]) -> list[str]:
    """The simple models of one teacher: those that are averaged, and linear ones."""
    linear = [
        m.name
        for m in models
        if m.meta and m.meta.model["kind"] == "linear" and len(m.meta.teachers) == 1
    ]
    return [*_singles(models), *linear]


def _order(measured: list[Measured], primary: str) -> list[int]:
    """Indices of the models from the best to the worst; undefined ones last."""

    def key(i: int) -> tuple[float, str]:
        values = measured[i].values.get(primary)
        value = float("nan") if values is None else float(values[0])
        sign = -1.0 if higher_is_better(primary) else 1.0
        return (sign * value if np.isfinite(value) else np.inf, measured[i].name)

    return sorted(range(len(measured)), key=key)


def _groups(
    pools: list[Pool], bench: Bench, cfg: EvaluationConfig, task: Task
) -> dict[str, np.ndarray]:
    if not isinstance(task, SurvivalTask):
        return {}
    return {
        pool.name: risk_groups(pool, bench.labels.cases, QUANTILES[cfg.cutoff]) for pool in pools
    }


def _per_case(
    pools: list[Pool], bench: Bench, groups: dict[str, np.ndarray], cfg: EvaluationConfig
) -> pd.DataFrame:
    """One row per model and tested case.

    Columns: model, case_id, fold (the first that tests it), n_predictions; survival: score, group,
    time, event; classification: prob_<class>, predicted, label; regression: pred_<target>,
    true_<target>.
    """
    labels = bench.labels
    fold_of: dict[str, int] = {}
    for fold in bench.folds:
        for case in fold.test:
            fold_of.setdefault(case, fold.index)
    tables = []
    for pool in pools:
        whole = pooled(pool, labels.cases)
        table = pd.DataFrame({"model": pool.name, "case_id": list(labels.cases)})
        table["fold"] = [fold_of[case] for case in labels.cases]
        table["n_predictions"] = whole.n
        said = pd.DataFrame(whole.values, columns=list(pool.values))
        table = pd.concat([table, said], axis=1)
        if labels.time is not None and labels.event is not None:
            names = np.array([*GROUP_NAMES[cfg.cutoff], ""], dtype=object)
            table = table.assign(
                group=names[groups[pool.name]], time=labels.time, event=labels.event.astype(int)
            )
        if labels.label is not None:
            names = np.array(labels.classes, dtype=object)
            best = names[np.nan_to_num(whole.values, nan=-1).argmax(axis=1)]
            table = table.assign(
                predicted=np.where(whole.there, best, ""), label=names[labels.label]
            )
        if labels.targets is not None:
            measured = [f"true_{column.removeprefix('pred_')}" for column in pool.values]
            true = pd.DataFrame(labels.targets, columns=measured)
            table = pd.concat([table, true], axis=1)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _oracle(root: Path, task_name: str) -> dict[str, float]:
    """What the hidden state of an embedded cohort allows, by metric; empty for real cohorts."""
    if not (root / FILE).is_file():
        return {}
    return read_cohort_facts(root).oracle.get(task_name, {})
