"""`kill -9` at any moment of any stage; then the same command again.

The moments are system calls that change a file: the n-th write, rename or removal in the results,
torn in the middle where it is a write. After the second call every file is byte for byte that of an
undisturbed run, nothing is left over, and no piece that was finished was made again.
"""

from __future__ import annotations

import itertools
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime import stages as declared
from tests.faults import stages
from tests.faults.compare import contents, differences, finished_pieces
from tests.faults.stages import CHANGES, COUNT, KILL_GROUP, Cohort, Fault, Warm

SEED = 6
# The tiny cohorts have no probes, and are no external ones.
ABSENT = {"probing", "external"}
# Those of the second cohort, which is asked in words and has an ensemble.
FURTHER = ("pairs", "vision_language", "out_of_fold", "stacking")
NAMES = tuple(s.name for s in declared.STAGES if not {s.name, s.room} & ABSENT)
STAGES = tuple(name for name in NAMES if name not in FURTHER)
FEW, MANY = 2, 12


def moments(stage: str, calls: int, number: int) -> list[int]:
    """Seeded system calls to die at, one in each equal part of the stage's calls."""
    schedule = random.Random(f"{SEED}/{stage}/{number}")
    edges = [1 + calls * i // number for i in range(number + 1)]
    return [schedule.randrange(a, max(a + 1, b)) for a, b in itertools.pairwise(edges)]


def kill_and_finish(
    warm: Warm, cohort: Cohort, stage: str, number: int, changes: dict[str, Any] | None = None
) -> None:
    argv = stages.everything(cohort.path, changes)[stage]
    expected = contents(cohort.path)
    cohort.undo(stage)
    counted = warm.run(argv, cohort.path, Fault(CHANGES, cohort.path, COUNT))
    assert counted.code == 0, counted.said
    assert differences(expected, contents(cohort.path)) == [], "a rerun differs by itself"
    for moment in moments(stage, counted.calls, number):
        cohort.undo(stage)
        killed = warm.run(argv, cohort.path, Fault(CHANGES, cohort.path, KILL_GROUP, moment))
        assert killed.code == -signal.SIGKILL, f"call {moment}: {killed.said}"
        kept = finished_pieces(cohort.path)
        cohort.forget_attempts()
        again = warm.run(argv, cohort.path)
        assert again.code == 0, f"after a kill at call {moment}: {again.said}"
        wrong = differences(expected, contents(cohort.path))
        assert not wrong, f"after a kill at call {moment}: {wrong}"
        now = finished_pieces(cohort.path)
        redone = [path for path, which in kept.items() if now.get(path) != which]
        if (
            stage == "stacking"
        ):  # a fold of it is a fit of a few numbers, which is quicker than a look
            continue
        assert not redone, f"after a kill at call {moment}: made again: {redone}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_killed_ends_as_if_it_had_not_been(
    warm: Warm, cohort: Cohort, stage: str
) -> None:
    kill_and_finish(warm, cohort, stage, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_killed_at_many_moments(warm: Warm, cohort: Cohort, stage: str) -> None:
    kill_and_finish(warm, cohort, stage, MANY)


@pytest.fixture(scope="module")
def further(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """A finished cohort with words and an ensemble. Not to be changed."""
    return stages.build(warm, tmp_path_factory.mktemp("further") / "run", stages.FURTHER)


@pytest.mark.slow
@pytest.mark.parametrize("stage", FURTHER)
def test_a_stage_of_words_or_ensembles_that_is_killed(
    warm: Warm, further: Cohort, tmp_path: Path, stage: str
) -> None:
    assert set(FURTHER) <= set(NAMES)
    kill_and_finish(warm, further.copy(tmp_path / "run"), stage, MANY, stages.FURTHER)
