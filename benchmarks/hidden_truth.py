"""What few cases allow a model that need not look at pictures: the demo's hidden truth.

    python benchmarks/hidden_truth.py

A Cox regression on the hidden states, four numbers a case, cross-validated on the demo's cohort
with its own labels, for several sizes of it. `models.py`, which trains all models on a larger
embedded cohort, takes the cohort, outcomes drawn from its true hazards and their measure from here.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import yaml
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from pipeline.cohort.synthetic.hidden_states import (
    STATES,
    HiddenCase,
    censoring_rate,
    hidden_cases,
    outcome,
)
from pipeline.cohort.synthetic.oracle import concordance

REPOSITORY = Path(__file__).resolve().parent.parent
CENSORING = 0.3
JUDGED = 12  # draws of outcomes that predictions are judged by
DEMO_SEED = 7
DEMO_CASES = (52, 80, 100, 125)
FOLDS, DEALS = 5, 8
LABELS = ("time", "event", "log_hazard")
RIDGE = 5.0

Fit = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


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


def informed(states: np.ndarray) -> Fit:
    """A Cox regression on the hidden states with a light ridge."""
    z = (states - states.mean(0)) / states.std(0)

    def fit(learn: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
        seen = Surv.from_arrays(y[learn, 1] > 0, y[learn, 0])
        return np.asarray(CoxPHSurvivalAnalysis(alpha=RIDGE).fit(z[learn], seen).predict(z))

    return fit


def main() -> None:
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
