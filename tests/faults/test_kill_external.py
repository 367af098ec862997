"""`kill -9` while models of another cohort's run are applied and measured; then the same again."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.plan import cohort_plan, stage_params
from tests.faults import stages
from tests.faults.compare import contents, differences
from tests.faults.stages import CHANGES, COUNT, KILL_GROUP, NAME, TASK, Cohort, Fault, Warm
from tests.faults.test_kill_stages import moments

SECOND = "results/second"
CONFIG: dict[str, Any] = {
    "cohort": {
        **stages.CONFIG["cohort"],
        "name": "second",
        "chunks": 1,
        "synthetic": {**stages.CONFIG["cohort"]["synthetic"], "hospital": "second"},
    },
    "external": {"trained": f"results/{NAME}", "models": ["single"]},
}
# Stage -> what it makes, below the results.
MADE = {"external_predictions": f"models/{TASK}/single", "external": f"evaluation/{TASK}"}


def jobs(config: Config) -> Iterator[tuple[str, list[str]]]:
    """All jobs of the external cohort, in an order that works."""
    for name, argv in stages._jobs(config, cohort_plan.cohort_plan(config, Path.cwd())):
        if name == "folds":
            break
        yield name, argv
    given = ["--root", SECOND, "--task", TASK]
    applied = stage_params.external_predictions(config, TASK, "single").canonical()
    yield (
        "external_predictions",
        ["external-predictions", "--cfg", applied, *given, "--model", "single"],
    )
    cfg = stage_params.external(config, TASK).canonical()
    yield "external", ["external", "--cfg", cfg, *given]


@pytest.mark.slow
def test_an_external_cohort_that_is_killed_ends_as_if_it_had_not_been(
    warm: Warm, cohort: Cohort
) -> None:
    with contextlib.chdir(cohort.path):
        every = dict(jobs(parse({**CONFIG, "evaluation": {"student": "single"}})))
    for name, argv in every.items():
        done = warm.run(argv, cohort.path)
        assert done.code == 0, f"{name}: {done.said}"
    expected = contents(cohort.path)
    for name, folder in MADE.items():
        place = cohort.path / SECOND / folder
        shutil.rmtree(place)
        counted = warm.run(every[name], cohort.path, Fault(CHANGES, cohort.path, COUNT))
        assert counted.code == 0, counted.said
        assert differences(expected, contents(cohort.path)) == [], "a rerun differs by itself"
        for moment in moments(name, counted.calls, 6):
            shutil.rmtree(place)
            killed = warm.run(
                every[name], cohort.path, Fault(CHANGES, cohort.path, KILL_GROUP, moment)
            )
            assert killed.code == -signal.SIGKILL, f"{name}, call {moment}: {killed.said}"
            again = warm.run(every[name], cohort.path)
            assert again.code == 0, f"{name}, after a kill at call {moment}: {again.said}"
            wrong = differences(expected, contents(cohort.path))
            assert not wrong, f"{name}, after a kill at call {moment}: {wrong}"
