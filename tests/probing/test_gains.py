"""An encoder against itself before it was trained: paired by case, from the counts of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.config.probing import ProbingConfig, ProbingGainsJob
from pipeline.contracts.tile_probes import TeacherProbes, read_gains, write_teacher_probes
from pipeline.probing import gains


def probes(root: Path, teacher: str, right: list[int], wrong: int = 10) -> None:
    """Of each case some tiles of class 0 right, the others wrong; class 1 always right."""
    counts = [[[n, wrong - n], [0, 5]] for n in right]
    write_teacher_probes(
        root,
        TeacherProbes(teacher, "high", "", [], by_case={"logistic": counts, "knn_1": counts}),
    )


def job(**pairs: str) -> ProbingGainsJob:
    return ProbingGainsJob(probing=ProbingConfig(bootstraps=200), pairs=pairs)


def test_the_difference_is_that_of_the_balanced_accuracies(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    before = rng.integers(2, 6, 12)
    probes(tmp_path, "mine", (before + 3).tolist())
    probes(tmp_path, "mine_untrained", before.tolist())
    gains.run(job=job(mine="mine_untrained"), root=tmp_path)
    rows = read_gains(tmp_path).rows
    assert [row.probe for row in rows] == ["knn_1", "logistic"]
    one = rows[0]
    assert one.difference == pytest.approx(0.15) and one.n_cases == 12
    assert one.before == pytest.approx((before.mean() / 10 + 1) / 2)
    # Each case gained the same, so that resampling cases changes nothing.
    assert one.low == pytest.approx(0.15) and one.high == pytest.approx(0.15)
    table = pd.read_csv(tmp_path / "probing/all/gains.csv")
    assert table["difference"].tolist() == pytest.approx([0.15, 0.15])


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    probes(tmp_path, "mine", [3, 4])
    probes(tmp_path, "other", [3, 4], wrong=9)
    write_teacher_probes(tmp_path, TeacherProbes("none", "high", "no tile has a class", []))
    gains.run(job=job(mine="other", none="mine"), root=tmp_path)
    found = read_gains(tmp_path)
    assert found.rows == []
    assert found.absent == {"mine": "other has other tiles", "none": "no tile has a class"}
