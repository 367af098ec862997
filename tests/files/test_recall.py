"""What is taken from the last parse is never older than the file it is about."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipeline.files import identity, recall
from pipeline.files.identity import file_identity


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "a.svs"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as left alone at once, so that no test has to wait."""
    monkeypatch.setattr(recall, "SETTLED_SECONDS", -1e9)


def again(memory: recall.Recall) -> recall.Recall:
    memory.save()
    return recall.open_recall(memory.path)


def test_an_untouched_file_is_not_read_again(
    slide: Path, tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = recall.open_recall(tmp_path / "recall.json")
    first = file_identity(slide, memory)
    assert first == file_identity(slide)

    def _read_identity(path: Path) -> str:
        return "read"

    monkeypatch.setattr(identity, "_read_identity", _read_identity)
    assert file_identity(slide, again(memory)) == first
    assert file_identity(slide, recall.open_recall(tmp_path / "other.json")) == "read"


def test_a_replaced_file_of_the_same_size_and_time_is_noticed(
    slide: Path, tmp_path: Path, settled: None
) -> None:
    memory = recall.open_recall(tmp_path / "recall.json")
    before = file_identity(slide, memory)
    times = slide.stat()
    other = tmp_path / "b.svs"
    other.write_bytes(b"two")
    other.replace(slide)
    os.utime(slide, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert slide.stat().st_size == times.st_size
    assert slide.stat().st_mtime_ns == times.st_mtime_ns
    assert file_identity(slide, again(memory)) != before


def test_a_file_that_may_still_be_written_is_not_remembered(slide: Path, tmp_path: Path) -> None:
    memory = recall.open_recall(tmp_path / "recall.json")
    file_identity(slide, memory)
    assert memory.used == {}
    assert recall.file_state(slide)[1] is False
    old = time.time() - 60
    os.utime(slide, (old, old))
    assert recall.file_state(slide)[1] is False, "its inode was changed just now"


def test_a_slide_of_several_files_is_looked_at_each_time(tmp_path: Path, settled: None) -> None:
    door = tmp_path / "a.mrxs"
    door.write_bytes(b"door")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.dat").write_bytes(b"x")
    memory = recall.open_recall(tmp_path / "recall.json")
    before = file_identity(door, memory)
    (tmp_path / "a" / "1.dat").write_bytes(b"y")
    assert file_identity(door, memory) != before


def test_a_damaged_file_or_a_readonly_folder_costs_time_only(slide: Path, tmp_path: Path) -> None:
    (tmp_path / "recall.json").write_text("{")
    memory = recall.open_recall(tmp_path / "recall.json")
    assert memory.known == {}
    (tmp_path / "file").write_text("")
    nowhere = recall.Recall(tmp_path / "file" / "recall.json", {})
    nowhere.answer("key", lambda: 1)
    nowhere.save()
