"""What training gave an encoder that the workflow made: its tiles' probes against its own before.

Writes `probing/all/gains.json` (Snakemake output), and its rows as `gains.csv`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.config.probing import ProbingGainsJob
from pipeline.contracts.tile_probes import Gain, Gains, read_teacher_probes, write_gains
from pipeline.files.artifacts import write_text
from pipeline.probing.measure import difference, scores
from pipeline.probing.stage import csv_text

# Raised when the comparison changes. 1: the first.
VERSION = 1

METRIC = "balanced_accuracy"


def run(*, job: ProbingGainsJob, root: Path) -> None:
    """Compare each encoder with itself before it was trained, on the same tiles of the same folds.

    Args:
        job: which encoders.
        root: the results folder.

    Raises:
        ArtifactError: probes are missing or damaged.
    """
    cfg = job.probing
    rows: list[Gain] = []
    absent: dict[str, str] = {}
    for teacher, control in job.pairs.items():
        after, before = read_teacher_probes(root, teacher), read_teacher_probes(root, control)
        if after.by_case is None or before.by_case is None:
            absent[teacher] = after.reason or before.reason
            continue
        for probe, counts in after.by_case.items():
            both = np.array(counts), np.array(before.by_case[probe])
            if not np.array_equal(both[0].sum(2), both[1].sum(2)):
                absent[teacher] = f"{control} has other tiles"
                break
            rng = np.random.default_rng(cfg.seed)
            found = difference(*both, cfg.bootstraps, cfg.confidence, rng)
            values = [
                scores(c, 1, cfg.confidence, np.random.default_rng(0))[METRIC].value for c in both
            ]
            cases = int((both[0].sum((1, 2)) > 0).sum())
            rows.append(Gain(teacher, control, probe, values[0], values[1], n_cases=cases, **found))
    write_text(root / "probing" / "all" / "gains.csv", csv_text(rows, Gain))
    write_gains(root, Gains(rows, absent))
