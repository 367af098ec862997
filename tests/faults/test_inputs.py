"""Inputs are data, not code: they are refused or handled, and never run or believed.

Slide ids are held in tests/workflow/test_bad_input.py, TIFF bombs in tests/slides and tests/tiling.
"""

from __future__ import annotations

import io
import os
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.bags.files import open_features
from pipeline.config.reading import load
from pipeline.encoders.weights import read_checkpoint
from pipeline.errors import ArtifactError, ConfigError, SlideError
from pipeline.slides.slide import open_slide
from tests.faults import stages
from tests.faults.compare import manifest
from tests.faults.stages import Warm
from tests.slides import files


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder),))


def pickled(path: Path, folder: Path) -> Path:
    torch.save({"features": torch.zeros(3, 4), "x": Evil(folder)}, path)
    return path


def plain_pickle(path: Path, folder: Path) -> Path:
    path.write_bytes(pickle.dumps(Evil(folder)))
    return path


def object_array(path: Path, folder: Path) -> Path:
    array = np.array([Evil(folder)], dtype=object)
    np.save(path.with_suffix(".npy"), array, allow_pickle=True)
    return path.with_suffix(".npy")


@pytest.mark.parametrize("make", [pickled, plain_pickle, object_array])
def test_a_pickle_in_a_feature_file_is_not_run(tmp_path: Path, make) -> None:
    path = make(tmp_path / "x.pt", tmp_path / "pwned")
    with pytest.raises(ArtifactError, match=r"x\.(pt|npy)"):
        open_features(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("make", [pickled, plain_pickle])
def test_a_pickle_in_a_checkpoint_is_not_run(tmp_path: Path, make) -> None:
    path = make(tmp_path / "x.pt", tmp_path / "pwned")
    with pytest.raises(ArtifactError):
        read_checkpoint(path)
    assert not (tmp_path / "pwned").exists()


BOMB = 'a: &a ["x","x","x","x","x","x","x","x","x"]\n' + "".join(
    f"{name}: &{name} [{','.join([f'*{last}'] * 9)}]\n"
    for last, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "place",
    [
        "cohort: *i",
        "cohort: {name: *i}",
        "tasks: {os: {type: classification, label: a, classes: *i}}",
        "extraction: {teachers: *i}",
        "extraction: {together: *i}",
        "training: {models: {m: {kind: shazam_v2, drop_teachers: *i}}}",
    ],
)
def test_a_yaml_bomb_is_refused_before_it_grows(tmp_path: Path, place: str) -> None:
    """Nine aliases deep, nine each: 387 million values if anybody spells them out."""
    path = tmp_path / "config.yaml"
    path.write_text(BOMB + place)
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert "aliases" in str(refused.value) and len(str(refused.value)) < 1000


def test_a_yaml_tag_makes_no_object(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"report: {{title: !!python/object/apply:os.mkdir ['{tmp_path}/pwned']}}")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load(path)
    assert not (tmp_path / "pwned").exists()


def png(width: int, height: int) -> bytes:
    """A PNG of a kilobyte that declares a size."""

    def part(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    data = zlib.compress(bytes(100_000))
    ends = part(b"IHDR", header), part(b"IDAT", data), part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(ends)


def test_an_image_that_declares_more_than_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(1_000_000, 1_000_000))
    with pytest.raises(SlideError) as refused:
        open_slide(tmp_path / "bomb.png")
    assert refused.value.kind == "too_large"


ODD = 'it\'s a "slide" $(touch pwned) `touch pwned`; touch pwned\n& é.svs'


def test_a_slide_file_with_any_name(warm: Warm, tmp_path: Path) -> None:
    """The sheet quotes it as CSV does; from there on it is a text in a table, never in a shell."""
    import csv

    work = tmp_path / "work $(touch pwned)"
    (work / "scans").mkdir(parents=True)
    files.write_aperio(work / "scans" / ODD, files.tissue_image(700, 800))
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["slide_id", "case_id", "path", "time", "event"])
    for i in range(12):
        scan = f"scans/{ODD}" if i == 0 else f"none{i}.svs"
        writer.writerow([f"s{i}", f"c{i}", scan, i + 1, i % 2])
    (work / "sheet.csv").write_text(table.getvalue())
    sheet = {"name": "tiny", "source": "sheet", "sheet": "sheet.csv", "chunks": 1}
    changes = {"cohort": sheet | {"missing_files": "ledger"}}
    jobs = stages.everything(work, changes)
    for job in ("cohort_chunk", "cohort", "tiling"):
        ended = warm.run(jobs[job], work)
        assert ended.code == 0, ended.said
    found = manifest(work / "results/tiny/tiles/manifest/0.json")
    assert found.pop("s0") == "ok" and set(found.values()) == {"failed"}
    assert not list(tmp_path.rglob("pwned"))
