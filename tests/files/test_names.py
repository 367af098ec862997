"""Names with accents are found in either spelling."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from pipeline.files.names import as_on_disk

NAMES = ("Müller 3.svs", "Ångström é.h5", "Žluťoučký.png")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("sheet", "disk"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC")])
def test_a_file_is_found_in_the_disks_spelling(
    tmp_path: Path, name: str, sheet: str, disk: str
) -> None:
    folder = tmp_path / unicodedata.normalize(disk, "Patienten für Studie")  # type: ignore[arg-type]
    folder.mkdir()
    made = folder / unicodedata.normalize(disk, name)  # type: ignore[arg-type]
    made.touch()
    asked = tmp_path / unicodedata.normalize(sheet, f"Patienten für Studie/{name}")  # type: ignore[arg-type]
    assert as_on_disk(asked) == made


def test_a_name_that_mixes_both_spellings_is_found(tmp_path: Path) -> None:
    made = tmp_path / ("é" + unicodedata.normalize("NFD", "é"))
    made.touch()
    assert as_on_disk(tmp_path / "éé") == made


def test_what_is_not_there_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "Muller.svs").touch()
    for name in ("Müller.svs", "plain.svs", "no folder/Müller.svs"):
        assert as_on_disk(tmp_path / name) == tmp_path / name
    assert as_on_disk(Path("relativ/ä")) == Path("relativ/ä")
