"""A job's log says how far it is: at its start and end, and often enough in between."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from pipeline.runtime import progress


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.02)


@pytest.fixture(autouse=True)
def nothing_is_left_over() -> Iterator[None]:
    yield
    assert progress.where() == ""
    assert progress._job is None


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was said, without the times of day."""
    found = capsys.readouterr().err.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in found)
    return [line[9:] for line in found]


def test_a_job_says_that_it_began_and_ended(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.reported("folds task=survival"):
        pass
    first, last = lines(capsys)
    assert first.startswith("folds task=survival: started on ")
    assert last == "folds task=survival: finished in 0 s"


def test_a_line_comes_during_one_long_step_too(
    often: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.reported("tiling"), progress.part("slides", 40, done=10) as part:
        part.step(tiles=1200)
        part.step(tiles=800)
        time.sleep(0.15)
    between = [line for line in lines(capsys) if "left" in line]
    assert len(between) >= 2
    assert re.fullmatch(
        r"tiling: 12 of 40 slides, 2,000 tiles, [\d,.]+ tiles/s; about \d+ s left", between[0]
    )


def test_a_job_that_counts_nothing_is_at_work(
    often: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.reported("mapping"):
        time.sleep(0.1)
    assert "mapping: at work for 0 s" in lines(capsys)


def test_parts_in_parts_are_one_line() -> None:
    said = []
    for model in progress.counted(range(4), "models"):
        progress.note(f"fold {model}, seed 0")
        for epoch in progress.counted(range(1, 11), "epochs"):
            progress.note(f"loss 0.{epoch}")
            said.append(progress.where())
            if epoch == 5:
                break
    assert said[7].startswith("1 of 4 models (fold 1, seed 0), 2 of 10 epochs (loss 0.3); about ")
    assert len(said) == 20


def test_the_time_left_counts_what_this_job_did(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.part("slides", 100, done=50) as part:
        assert "left" not in progress.where(), "nothing is known yet"
        part.step(10)
        clock[0] += 600
        assert progress.where() == "60 of 100 slides; about 40 min left"
        part.step(40)
        assert progress.where() == "100 of 100 slides"


def test_the_outermost_part_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.reported("training"):
        for _ in progress.counted(["a", "b"], "models"):
            for _ in progress.counted([1, 2, 3], "epochs"):
                pass
    assert lines(capsys)[1:-1] == ["training: 2 of 2 models in 0 s"]


def test_an_error_leaves_no_part_behind(capsys: pytest.CaptureFixture[str]) -> None:
    inner = progress.counted([1, 2], "epochs")
    with (
        pytest.raises(ValueError, match="bad"),
        progress.reported("training"),
        progress.part("models", 2),
    ):
        next(inner)
        raise ValueError("bad")
    inner.close()
    assert len(lines(capsys)) == 1, "no end is said of what did not end well"


def test_without_a_job_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress.counted([1, 2], "slides"):
        progress.say("unheard")
    assert capsys.readouterr().err == ""


def test_a_log_on_a_full_disk_ends_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with progress.reported("tiling"):
        monkeypatch.setattr("builtins.print", full)
        progress.say("something")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (1500, "25 min"), (7200, "2.0 h")]
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text
