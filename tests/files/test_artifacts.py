"""Files are whole or absent."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.errors import ArtifactError
from pipeline.files import artifacts


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    artifacts.write_json(target, {"v": 1})
    with pytest.raises(RuntimeError), artifacts.atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed")
    assert artifacts.read_json(target) == {"v": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_json_is_canonical_and_refuses_nan(tmp_path: Path) -> None:
    artifacts.write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    artifacts.write_json(tmp_path / "b.json", {"a": 2, "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        artifacts.write_json(tmp_path / "c.json", float("nan"))
    assert not (tmp_path / "c.json").exists()


def test_damaged_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run the stage"):
        artifacts.read_json(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"a":')
    with pytest.raises(ArtifactError, match="delete it and run again"):
        artifacts.read_json(tmp_path / "half.json")


def test_hdf5_is_recognised_by_its_fingerprint_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "x.h5"
    with artifacts.new_hdf5(target, {"fingerprint": "f1"}) as file:
        file["coords"] = np.zeros((3, 2), np.int32)
    assert artifacts.is_complete(target, "f1")
    assert not artifacts.is_complete(target, "f2")
    assert not artifacts.is_complete(tmp_path / "none.h5", "f1")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file.attrs["fingerprint"] = "f1"
    assert not artifacts.is_complete(tmp_path / "foreign.h5", "f1")
    target.write_bytes(target.read_bytes()[:100])
    assert not artifacts.is_complete(target, "f1")


def test_hdf5_without_a_fingerprint_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fingerprint"), artifacts.new_hdf5(tmp_path / "x.h5", {}):
        pass


def test_a_crash_while_writing_hdf5_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        artifacts.new_hdf5(tmp_path / "x.h5", {"fingerprint": "f"}) as file,
    ):
        file["coords"] = np.zeros(3)
        raise RuntimeError("killed")
    assert list(tmp_path.iterdir()) == []
