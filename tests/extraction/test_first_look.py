"""Imported files of different encoders are refused when the workflow is parsed."""

from __future__ import annotations

import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.bags import files as bag_files
from pipeline.errors import ArtifactError
from pipeline.extraction.first_look import check_alike
from pipeline.files.recall import Recall


def features(path: Path, dim: int = 4, **attributes: str) -> Path:
    with h5py.File(path, "w") as file:
        file["features"] = np.ones((2, dim), np.float32)
        file.attrs.update(attributes)
    return path


def recall() -> Recall:
    return Recall(Path(), {})


@pytest.mark.parametrize("change", [{"extractor": "b"}, {"extractor": "a", "dim": 5}])
def test_files_that_differ_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    found = {s: features(tmp_path / f"{s}.h5", extractor="a") for s in "123"}
    check_alike("t", found, recall())
    features(tmp_path / "3.h5", **change)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=r"teacher `t`: 1 of 3 (.|\n)*3\.h5"):
        check_alike("t", found, recall())


def test_what_cannot_be_opened_is_left_to_the_ledger(tmp_path: Path) -> None:
    (tmp_path / "bad.h5").write_text("version https://git-lfs.github.com/spec/v1")
    (tmp_path / "x.pt").write_text("x")
    good = features(tmp_path / "a.h5")
    others = {"b": tmp_path / "bad.h5", "c": tmp_path / "x.pt", "d": tmp_path / "no.h5", "e": None}
    check_alike("t", {"a": good, **others}, recall())


def test_a_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time() + 100
    monkeypatch.setattr("pipeline.files.recall.time.time", lambda: later)
    known = recall()
    found = {"a": features(tmp_path / "a.h5")}
    check_alike("t", found, known)
    known.known = dict(known.used)
    monkeypatch.setattr(bag_files, "open_features", None)
    check_alike("t", found, known)
