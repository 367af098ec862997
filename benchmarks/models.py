"""Whether the student is better than what it is made from, where the answer is not chance.

    python benchmarks/models.py [--folder DIR] [--cases 260] [--seed 101] [--learn 80] [--repeats 8]

An embedded cohort is drawn and its features are extracted as the workflow does it (some 12 minutes
of a core; `--folder` keeps them). Each of the demo's models is trained for each of its tasks, as
the training stage does it, on some cases, a fifth of them for validation, and
predicts all others: several times as many as a test fold has. Survival learns from outcomes drawn
again from the true hazards and is judged by further draws. A quarter of an hour of a core with the
features there.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from hidden_truth import JUDGED, features, known, lost, outcomes

from pipeline.bags.store import Store, open_store
from pipeline.cohort.synthetic.hidden_states import HiddenCase
from pipeline.config.reading import load
from pipeline.config.whole import Config
from pipeline.contracts.case_map import read_case_map
from pipeline.contracts.labels import read_labels
from pipeline.runtime import progress
from pipeline.training.job import TrainingJob, prepare
from pipeline.training.loop import Trial, train
from pipeline.training.metrics import macro_auc
from pipeline.training.models import reads
from pipeline.training.multitask import AuxiliaryTask, align
from pipeline.training.predict import predict
from pipeline.training.refit import refitted

VALIDATED = 0.2
JUDGED_BY = {
    "survival": "C-index lost to the true hazard",
    "classification": "1 - AUC",
    "regression": "1 - R²",
}


def main() -> None:
    """Make the cohort unless it is there, train, print one table per task."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="for slides and features; default: temporary")
    parser.add_argument("--cases", type=int, default=260)
    parser.add_argument("--seed", type=int, default=101, help="of the cohort; the demo has 7")
    parser.add_argument("--learn", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--cores", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.cores)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        root = features(folder, options)
        names = sorted(read_case_map(root).cases)
        cases = known(names, options)
        config = load(folder / "config.yaml")
        for task in config.tasks:
            table(config, root, task, cases, options)


def table(
    config: Config, root: Path, task: str, cases: list[HiddenCase], options: argparse.Namespace
) -> None:
    """Print what each model loses in a task, and how much more than the student."""
    losses: dict[str, list[float]] = {}
    names = list(config.model_specs(ablations=False))
    for r in progress.counted(range(options.repeats), "repeats"):
        order = np.random.default_rng(r).permutation(len(cases))
        cut = round(options.learn * VALIDATED)
        parts = dict(
            zip(("val", "train", "test"), np.split(order, [cut, options.learn]), strict=True)
        )
        parts = {part: np.sort(rows) for part, rows in parts.items()}
        for name in names:
            losses.setdefault(name, []).append(trained(config, root, task, name, cases, parts, r))
    student = np.array(losses[config.evaluation.student])
    print(f"{task}: {JUDGED_BY[config.tasks[task].type]}, {options.learn} cases to learn from")
    for name, values in sorted(losses.items(), key=lambda item: float(np.mean(item[1]))):
        more = np.array(values) - student
        error = more.std(ddof=1) / np.sqrt(len(more))
        lead = f"student better by {more.mean():+.4f} ± {error:.4f}"
        print(f"  {name:24}{np.mean(values):8.4f}   {lead}")


def trained(
    config: Config,
    root: Path,
    task: str,
    name: str,
    cases: list[HiddenCase],
    parts: dict[str, np.ndarray],
    repeat: int,
) -> float:
    """What one model, trained once, loses on the test part."""
    hazard = np.array([case.log_hazard for case in cases])
    time, event = outcomes(hazard, f"learn/{repeat}")
    sheet = pd.DataFrame([vars(case) for case in cases]).assign(time=time, event=event)
    spec = config.tasks[task]
    ids = [case.case_id for case in cases]
    auxiliary = tuple(
        AuxiliaryTask(other, config.tasks[other], weight, *align(labels, ids))
        for other, weight in spec.auxiliary.items()
        for labels in [read_labels(sheet, other, config.tasks[other])]
    )
    model = config.model_specs()[name]
    teachers, levels = reads(model, read_case_map(root))
    store = bags(root, tuple(teachers), tuple(levels), tuple(ids))
    cfg = config.training
    job = TrainingJob(
        cfg,
        name,
        model,
        spec,
        store,
        read_labels(sheet, task, spec),
        "",
        {},
        np.arange(len(cases)),
        auxiliary,
    )
    ready = prepare(job, cfg, model, parts["train"], repeat)
    fitted = train(Trial(ready.network, ready.head, ready.y, parts, cfg, repeat), store)
    if cfg.refit:
        ready = refitted(job, ready, fitted.best_epoch, parts, repeat)
    head, y = ready.head, ready.y
    out = predict(
        ready.network, store, np.arange(len(cases)), cfg.max_tiles_per_case, cfg.precision
    )
    rows = parts["test"]
    if spec.type == "survival":
        judges = [outcomes(hazard, f"judge/{n}") for n in range(JUDGED)]
        return lost(head.score(out)[rows], rows, hazard, judges)
    columns = head.columns(out[rows], y[rows])
    if spec.type == "classification":
        said = np.stack([columns[c] for c in columns if c.startswith("prob_")], axis=1)
        return 1 - macro_auc(said, y[rows, 0].astype(np.int64))
    target = spec.targets[0]
    truth = columns[f"true_{target}"]
    return float(((columns[f"pred_{target}"] - truth) ** 2).mean() / truth.var())


@lru_cache
def bags(
    root: Path, teachers: tuple[str, ...], levels: tuple[str, ...], ids: tuple[str, ...]
) -> Store:
    """What models read, from disk once."""
    mapping = read_case_map(root)
    return open_store(mapping, root, teachers, levels, ids, torch.device("cpu"))


if __name__ == "__main__":
    main()
