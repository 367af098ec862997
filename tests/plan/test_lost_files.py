"""Files that vanished or changed since their manifest are seen by one look at the folders."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipeline.contracts.ledger import Record, write_manifest
from pipeline.files.recall import Recall, open_recall
from pipeline.plan.lost_files import lost_files, told


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two chunks of two slides each, written long ago."""
    for chunk in (0, 1):
        records = [Record("none", "extraction/a", "failed", "unreadable", "x")]
        for slide in (f"s{chunk}", f"t{chunk}"):
            path = tmp_path / "features" / "a" / f"{slide}.h5"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"features")
            records.append(Record(slide, "extraction/a", "ok", path=f"features/a/{slide}.h5"))
        write_manifest(manifest(tmp_path, chunk), "extraction/a", "f", records)
    return tmp_path


def manifest(root: Path, chunk: int) -> Path:
    return root / "features" / "a" / "manifest" / f"{chunk}.json"


def look(root: Path, recall: Recall) -> dict[int, list[str]]:
    found = lost_files(root, [manifest(root, c) for c in (0, 1, 2)], recall)
    recall.save()
    recall.known = open_recall(recall.path).known
    return {int(path.stem): files for path, files in found.items()}


@pytest.fixture
def recall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recall:
    later = time.time() + 100
    monkeypatch.setattr("pipeline.files.recall.time.time", lambda: later)
    return open_recall(tmp_path / "recall.json")


def test_nothing_is_lost(root: Path, recall: Recall) -> None:
    assert [look(root, recall), look(root, recall)] == [{}, {}]
    assert told({}, root) == []


@pytest.mark.parametrize("known", [False, True])
def test_a_deleted_file_is_found_whether_or_not_it_was_seen_before(
    root: Path, recall: Recall, known: bool
) -> None:
    if known:
        look(root, recall)
    (root / "features/a/s1.h5").unlink()
    for _ in range(2):  # it stays lost until the manifest is written again
        assert look(root, recall) == {1: ["features/a/s1.h5"]}


@pytest.mark.parametrize("damage", [b"", b"feat", b"FEATURES"])
def test_a_changed_file_is_found(root: Path, recall: Recall, damage: bytes) -> None:
    look(root, recall)
    path = root / "features/a/t0.h5"
    path.write_bytes(damage)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))  # file systems with coarse clocks
    assert look(root, recall) == {0: ["features/a/t0.h5"]}
    [line] = told({manifest(root, 0): ["features/a/t0.h5"]}, root)
    assert "features/a: 1 file(s) are gone or were changed" in line and "t0.h5" in line


def test_a_damaged_manifest_is_lost_itself(root: Path, recall: Recall) -> None:
    manifest(root, 1).write_text('{"slides": [')
    assert look(root, recall) == {1: ["features/a/manifest/1.json"]}


def test_a_new_manifest_says_that_all_is_well(root: Path, recall: Recall) -> None:
    look(root, recall)
    (root / "features/a/t0.h5").write_bytes(b"made again")
    text = manifest(root, 0).read_text()
    manifest(root, 0).unlink()
    manifest(root, 0).with_name("new").write_text(text)
    manifest(root, 0).with_name("new").rename(manifest(root, 0))
    assert look(root, recall) == {}
