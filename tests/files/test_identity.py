"""Whether a slide is the same: what counts, and what does not."""

from __future__ import annotations

import os

from pipeline.files.identity import ENDS, content_digest, file_identity
from tests.slides import files
from tests.slides.mirax import write_mirax


def test_content_counts_and_place_does_not(tmp_path):
    data = bytes(range(256)) * 1024
    one, two = tmp_path / "a.svs", tmp_path / "b" / "c.svs"
    two.parent.mkdir()
    one.write_bytes(data)
    two.write_bytes(data)
    os.utime(two, (0, 0))
    assert file_identity(one) == file_identity(two) != "missing"
    for changed in (b"x" + data[1:], data[:-1] + b"x", data + b"x", data[:ENDS]):
        two.write_bytes(changed)
        assert file_identity(two) != file_identity(one)
    assert file_identity(tmp_path / "absent") == "missing"


def test_what_lies_behind_a_door_file_counts(tmp_path):
    path = write_mirax(tmp_path / "a.mrxs", files.tissue_image(600, 600))
    before = file_identity(path)
    with (tmp_path / "a" / "Data0000.dat").open("ab") as file:
        file.write(b"more")
    assert file_identity(path) != before

    before = file_identity(tmp_path / "a")
    (tmp_path / "a" / "new.dat").write_bytes(b"x")
    assert file_identity(tmp_path / "a") != before

    door = tmp_path / "slide.vms"
    door.write_text("[Virtual Microscope Specimen]")
    before = file_identity(door)
    (tmp_path / "other.jpg").write_bytes(b"x")
    assert file_identity(door) == before
    (tmp_path / "slide(0,1).jpg").write_bytes(b"x")
    assert file_identity(door) != before


def test_small_files_count_whole(tmp_path):
    path = tmp_path / "mask.geojson"
    path.write_bytes(bytes(3 * ENDS))
    before, same = content_digest(path), file_identity(path)
    path.write_bytes(bytes(ENDS) + b"x" + bytes(2 * ENDS - 1))
    assert content_digest(path) != before
    assert file_identity(path) == same  # the cheap one does not see the middle
