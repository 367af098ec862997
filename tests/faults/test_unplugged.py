"""A disk or network path that does not answer, or is gone, blames no slide and no file."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.faults import stages
from tests.faults.compare import contents, differences
from tests.faults.stages import LOOK, READ, Cohort, Ended, Fault, Warm

SLIDES = "resources/tiny/slides"
# Where a stage reads what it cannot do without.
READS = {
    "tiling": SLIDES,
    "extraction": SLIDES,
    "mapping": "results/tiny/features",
    "training": "results/tiny/features",
    "evaluation": "results/tiny/models",
    "report": "results/tiny/evaluation",
}


def recovers(warm: Warm, cohort: Cohort, stage: str, expected: dict[str, bytes]) -> None:
    cohort.forget_attempts()
    again = warm.run(stages.everything(cohort.path)[stage], cohort.path)
    assert again.code == 0, again.said
    assert differences(expected, contents(cohort.path)) == []


def unplugged(
    warm: Warm, cohort: Cohort, stage: str, calls: int, error: int, at: int
) -> tuple[Ended, dict[str, bytes]]:
    argv = stages.everything(cohort.path)[stage]
    expected = contents(cohort.path)
    cohort.undo(stage)
    fault = Fault(calls, cohort.path / READS[stage], error, at, lasting=True)
    return warm.run(argv, cohort.path, fault), expected


@pytest.mark.parametrize("stage", READS)
def test_a_disk_that_stops_answering(warm: Warm, cohort: Cohort, stage: str) -> None:
    failed, expected = unplugged(warm, cohort, stage, READ, errno.EIO, 3)
    assert failed.code == 1, failed.said
    assert "does not answer" in failed.said and "Traceback" not in failed.said
    assert not list(cohort.path.glob(f"results/tiny/{stage}/manifest/0.json"))
    recovers(warm, cohort, stage, expected)


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 2, 5, 9])
@pytest.mark.parametrize("stage", READS)
def test_a_stale_network_path(warm: Warm, cohort: Cohort, stage: str, at: int) -> None:
    failed, expected = unplugged(warm, cohort, stage, READ | LOOK, errno.ESTALE, at)
    assert failed.code == 1, failed.said
    assert "does not answer" in failed.said and "Traceback" not in failed.said
    recovers(warm, cohort, stage, expected)


@pytest.mark.parametrize("stage", ["tiling", "extraction"])
def test_slides_that_are_gone_for_a_while(warm: Warm, cohort: Cohort, stage: str) -> None:
    """A manifest is final: with the slides as failed in it they would stay lost forever."""
    argv = stages.everything(cohort.path)[stage]
    expected = contents(cohort.path)
    cohort.undo(stage)
    if stage == "tiling":
        # Of the embedded cohort the workflow knows that they are there; of a sheet it looks.
        assert (cohort.path / SLIDES).is_dir()
    away = cohort.path / "unplugged"
    (cohort.path / SLIDES).rename(away)
    failed = warm.run(argv, cohort.path)
    assert (failed.code, "is gone" in failed.said) == (1, True), failed.said
    assert not (cohort.results / made_manifest(stage)).exists()
    away.rename(cohort.path / SLIDES)
    recovers(warm, cohort, stage, expected)


def made_manifest(stage: str) -> Path:
    return Path("tiles" if stage == "tiling" else "features/tiny") / "manifest" / "0.json"
