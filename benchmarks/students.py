"""What the student's probes lose to the true hazard, where it is known, and what few cases allow.

    python benchmarks/students.py [--folder DIR] [--cases 260] [--seed 101] [--learn 42 84 168] …

An embedded cohort is drawn and its features are extracted as the workflow does it (some 12 minutes
of a core; `--folder` keeps them). Then, `--repeats` times, some cases get outcomes drawn again from
their true hazards, the probes of each kind of `fallback` learn from them and predict the other
cases. Measured is the C-index over further drawn outcomes of these, as a loss to that of the true
hazards: the mean over draws is free of most of the chance in one cohort's labels, so that ideas for
the student can be told apart. Next to them stands a Cox regression on the hidden states themselves,
four numbers a case: what so few cases allow a model that need not look at pictures. With `--apart`
each teacher has seen other tiles, as teachers of different tile sizes have. Last, the same
regression cross-validated on the demo's cohort with its own labels, for several sizes of it.
`models.py` trains the whole student and all other models on the same cohort.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from pipeline.aggregators.network import Lesson, Shape
from pipeline.bags.scale import Scaler
from pipeline.bags.store import Store, gather, open_store, whole
from pipeline.cohort.synthetic.hidden_states import (
    STATES,
    HiddenCase,
    censoring_rate,
    hidden_cases,
    outcome,
)
from pipeline.cohort.synthetic.oracle import concordance
from pipeline.contracts.case_map import read_case_map
from pipeline.distillation.anchor import Anchor
from pipeline.distillation.ground import Kind
from pipeline.training.loop import objective
from pipeline.training.survival import RiskHead

REPOSITORY = Path(__file__).resolve().parent.parent
LEVELS = ("low", "mid", "high")
CENSORING = 0.3
JUDGED = 12  # draws of outcomes that predictions are judged by
AT_ONCE = 20  # cases in a batch
DEMO_SEED = 7
DEMO_CASES = (52, 80, 100, 125)
FOLDS, DEALS = 5, 8
SEEN_APART = 0.6  # of its tiles, that a teacher has seen
LABELS = ("time", "event", "log_hazard")
RIDGE = 5.0
KINDS: tuple[Kind, ...] = ("stacked", "joint", "both", "all")

Fit = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def main() -> None:
    """Make the cohort unless it is there, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="for slides and features; default: temporary")
    parser.add_argument("--cases", type=int, default=260)
    parser.add_argument("--seed", type=int, default=101, help="of the cohort; the demo has 7")
    parser.add_argument("--learn", nargs="+", type=int, default=[42, 84, 168])
    parser.add_argument("--repeats", type=int, default=24)
    parser.add_argument("--apart", action="store_true", help="teachers of different tiles")
    parser.add_argument("--cores", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.cores)
    with tempfile.TemporaryDirectory() as temporary:
        root = features(options.folder or Path(temporary), options)
        mapping = read_case_map(root)
        names, teachers = list(mapping.cases), list(mapping.teachers)
        store = open_store(mapping, root, teachers, LEVELS, names, torch.device("cpu"))
        if options.apart:
            store = apart(store)
        measure(store, known(names, options), options)
    demo()


def known(names: Sequence[str], options: argparse.Namespace) -> list[HiddenCase]:
    """What is hidden of the named cases."""
    cases = hidden_cases(options.cases, CENSORING, options.seed)
    found = {case.case_id: case for case in cases}
    return [found[name] for name in names]


def features(folder: Path, options: argparse.Namespace) -> Path:
    """The demo's teachers on a cohort of the given seed; its results, up to the mapping."""
    config = yaml.safe_load((REPOSITORY / "config" / "config.yaml").read_text())
    synthetic = {"cases": options.cases, "seed": options.seed, "censoring": CENSORING}
    synthetic |= {"broken_slides": False, "two_slide_fraction": 0.0}
    config["cohort"] = {"name": "bench", "source": "synthetic", "chunks": 8, "synthetic": synthetic}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--until", "mapping", "--quiet"]
    command += ["--cores", str(options.cores), "-s", str(REPOSITORY / "workflow" / "Snakefile")]
    subprocess.run([*command, "--configfile", "config.yaml"], cwd=folder, check=True)
    return folder / "results" / "bench"


def apart(store: Store) -> Store:
    """The store as if each teacher had seen other tiles: some drawn for it alone."""
    indices, sums, squares, resident = [], [], [], []
    assert store.resident is not None
    for t, (index, matrices) in enumerate(zip(store.teachers, store.resident, strict=True)):
        rng = np.random.default_rng(t)
        bags = [start + np.arange(n) for start, n in zip(index.starts, index.sizes, strict=True)]
        counts = rng.binomial(index.sizes, SEEN_APART)
        seen = [np.sort(rng.choice(b, n, False)) for b, n in zip(bags, counts, strict=True)]
        indices.append(dataclasses.replace(index, sizes=counts))
        wide = {level: matrix.double().numpy() for level, matrix in matrices.items()}
        sums.append({lv: np.stack([x[rows].sum(0) for rows in seen]) for lv, x in wide.items()})
        squares.append(
            {lv: np.stack([(x[rows] ** 2).sum(0) for rows in seen]) for lv, x in wide.items()}
        )
        rows = torch.from_numpy(np.concatenate(seen))
        resident.append({level: matrix[rows] for level, matrix in matrices.items()})
    return dataclasses.replace(
        store,
        teachers=tuple(indices),
        sums=tuple(sums),
        squares=tuple(squares),
        resident=tuple(resident),
    )


def measure(store: Store, cases: Sequence[HiddenCase], options: argparse.Namespace) -> None:
    """Print the loss of each model for each number of cases that it learns from."""
    hazard = np.array([case.log_hazard for case in cases])
    states = np.array([[getattr(case, name) for name in STATES] for case in cases])
    judges = [outcomes(hazard, f"judge/{n}") for n in range(JUDGED)]
    probes: dict[str, Fit] = {f"fallback: {kind}": probed(store, kind) for kind in KINDS}
    models: dict[str, Fit] = {**probes, "Cox on the hidden states": informed(states)}

    print(f"C-index lost to the true hazard, {len(cases)} cases, {options.repeats} repeats")
    print(f"{'learns from':>12}  {'':26}{'lost':>8}{'less than both':>22}")
    for n in options.learn:
        losses: dict[str, list[float]] = {name: [] for name in models}
        for r in range(options.repeats):
            order = np.random.default_rng(r).permutation(len(cases))
            learn, rest = np.sort(order[:n]), np.sort(order[n:])
            y = np.stack(outcomes(hazard, f"learn/{r}"), axis=1).astype(np.float32)
            for name, fit in models.items():
                losses[name].append(lost(fit(learn, y, r)[rest], rest, hazard, judges))
        for name, values in losses.items():
            less = np.array(losses["fallback: both"]) - np.array(values)
            error = less.std(ddof=1) / np.sqrt(len(less))
            print(f"{n:12}  {name:26}{np.mean(values):8.4f}{less.mean():+13.4f} ± {error:.4f}")


def lost(
    said: np.ndarray,
    rows: np.ndarray,
    hazard: np.ndarray,
    judges: Sequence[tuple[np.ndarray, np.ndarray]],
) -> float:
    """The C-index that the true hazards of some cases have more than what is said of them."""
    each = [
        concordance(t[rows], e[rows], hazard[rows]) - concordance(t[rows], e[rows], said)
        for t, e in judges
    ]
    return float(np.mean(each))


def outcomes(hazard: np.ndarray, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Times and events of all cases, drawn from their hazards."""
    rng = random.Random(key)
    drawn = [outcome(rng, float(h), censoring_rate(CENSORING)) for h in hazard]
    return np.array([t for t, _ in drawn]), np.array([e for _, e in drawn])


def probed(store: Store, kind: Kind) -> Fit:
    """Fits the student's probes and predicts all cases."""
    dims = tuple(teacher.dims for teacher in store.teachers)
    shape = Shape(tuple(teacher.name for teacher in store.teachers), dims, 1)
    head = RiskHead("cox", {"ties": "efron"})

    @torch.no_grad()
    def fit(learn: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
        scaler, anchor = Scaler(dims), Anchor(shape, LEVELS, kind)
        scaler.fit(store, learn)
        task = objective(head, y[learn])
        with torch.enable_grad():
            anchor.fit(Lesson(store, learn, y, head.strata(y[learn]), task, True, seed), scaler)
        said = []
        for start in range(0, len(y), AT_ONCE):
            some = list(range(start, min(start + AT_ONCE, len(y))))
            batch = gather(store, whole(store, some, None))
            said.append(anchor(scaler(batch), batch)[:, 0].numpy())
        return np.concatenate(said)

    return fit


def informed(states: np.ndarray) -> Fit:
    """A Cox regression on the hidden states with a light ridge."""
    z = (states - states.mean(0)) / states.std(0)

    def fit(learn: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
        seen = Surv.from_arrays(y[learn, 1] > 0, y[learn, 0])
        return np.asarray(CoxPHSurvivalAnalysis(alpha=RIDGE).fit(z[learn], seen).predict(z))

    return fit


def demo() -> None:
    """Print what a Cox regression on the hidden states reaches in cross-validation on the demo."""
    print("The demo's cohort with its own labels, five folds dealt eight times")
    print(f"{'cases':>12}{'oracle':>10}{'lost by Cox on the hidden states':>36}")
    for n in DEMO_CASES:
        cases = hidden_cases(n, CENSORING, DEMO_SEED)
        t, e, hazard = (np.array([getattr(c, k) for c in cases]) for k in LABELS)
        fit = informed(np.array([[getattr(c, name) for name in STATES] for c in cases]))
        y = np.stack([t, e], axis=1)
        oracle, lost = concordance(t, e, hazard), []
        for deal in range(DEALS):
            fold = np.random.default_rng(deal).permutation(n) % FOLDS
            said = np.zeros(n)
            for k in range(FOLDS):
                said[fold == k] = fit(np.flatnonzero(fold != k), y, 0)[fold == k]
            lost.append(oracle - concordance(t, e, said))
        print(f"{n:12}{oracle:10.3f}{np.mean(lost):28.4f} ± {np.std(lost):.4f}")


if __name__ == "__main__":
    main()
