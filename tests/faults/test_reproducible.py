"""The same numbers, byte for byte, whatever the number of cores, the chunks, the order of jobs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults import stages
from tests.faults.compare import contents, differences
from tests.faults.stages import CONFIG, Cohort, Warm

# Per chunk, or telling of chunks: not compared where their number differs.
CHUNKED = ("manifest", "results/tiny/slides/", "slides.parquet", "slides.csv", "report", "cohort")


def workers(argv: list[str], number: int) -> list[str]:
    if "--workers" in argv:
        place = argv.index("--workers")
        argv = argv[:place] + argv[place + 2 :]
    return [*argv, "--workers", str(number)]


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("stage", ["extraction", "training"])
def test_the_number_of_cores(warm: Warm, cohort: Cohort, stage: str, number: int) -> None:
    argv = stages.everything(cohort.path)[stage]
    expected = contents(cohort.path)
    cohort.undo(stage)
    ended = warm.run(workers(argv, number), cohort.path)
    assert ended.code == 0, ended.said
    assert differences(expected, contents(cohort.path)) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("stage", ["cohort_chunk", "tiling"])
def test_the_number_of_processes(warm: Warm, cohort: Cohort, stage: str, number: int) -> None:
    test_the_number_of_cores(warm, cohort, stage, number)


@pytest.mark.slow
def test_the_number_of_chunks_and_the_order_of_jobs(
    warm: Warm, finished: Cohort, tmp_path: Path
) -> None:
    """Another division of the slides, worked through in another order by other numbers of cores."""
    schedule = random.Random(4)
    folder = tmp_path / "run"
    folder.mkdir()
    jobs = stages.everything(folder, {"cohort": {**CONFIG["cohort"], "chunks": 7}})
    named: dict[str, list[list[str]]] = {}
    for name, argv in jobs.items():
        named.setdefault(name.partition("#")[0], []).append(argv)
    for name, group in named.items():
        for argv in schedule.sample(group, len(group)):
            many = name in ("cohort_chunk", "tiling", "extraction", "training")
            ended = warm.run(workers(argv, schedule.choice([1, 2, 3])) if many else argv, folder)
            assert ended.code == 0, ended.said
    expected, found = (
        {k: v for k, v in contents(path).items() if not any(word in k for word in CHUNKED)}
        for path in (finished.path, folder)
    )
    assert any("predictions" in name for name in expected)
    assert any("features/tiny/SYN" in name for name in expected)
    assert differences(expected, found) == []
