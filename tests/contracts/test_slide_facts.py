"""What tiling says of a slide reaches its readers as it was written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipeline.contracts.ledger import Record, read_manifest, write_manifest
from pipeline.contracts.slide_facts import SlideFacts, Stain, slide_facts
from pipeline.contracts.slide_warnings import SlideWarning
from pipeline.errors import ArtifactError

CORE = {"n_tiles": 5, "width": 4000, "height": 2000, "mpp": 0.5, "mpp_source": "aperio.MPP"}


def tiled_facts(**facts: Any) -> dict[str, Any]:
    """Facts of a tiling record, as few as there may be."""
    return {**CORE, "backend": "openslide", **facts}


def test_facts_are_read_as_they_were_written(tmp_path: Path) -> None:
    facts = SlideFacts(
        **tiled_facts(tiles_left_out={"pen": 2}, pen_colours=["blue"]),
        stain=Stain([200.0, 150.0, 180.0], 0.4, 0.2),
        warnings=[SlideWarning("scale_assumed", "0.5 µm/px was assumed")],
    )
    record = Record("s", "tiling", "ok", facts=facts.as_dict())
    write_manifest(tmp_path / "m.json", "tiling", "x", [record])
    (again,) = read_manifest(tmp_path / "m.json")
    assert again == record and again.n_tiles == 5
    assert slide_facts(again) == facts
    assert facts.size_um == (2000.0, 1000.0)
    assert set(record.facts) == {field.name for field in dataclasses.fields(SlideFacts)}


def test_an_older_record_and_one_of_a_slide_that_could_not_be_read() -> None:
    older = slide_facts(Record("s", "tiling", "ok", facts=tiled_facts(stain={}, colours={})))
    assert older is not None and older.fold_fraction is None and older.stain == Stain()
    assert older.as_dict()["stain"] == {}
    assert slide_facts(Record("s", "tiling", "failed", "unreadable", "no TIFF")) is None


def test_a_fact_of_another_type_is_named() -> None:
    record = Record("s", "tiling", "ok", facts=tiled_facts(width="wide"))
    with pytest.raises(ArtifactError, match=r"tiling record of s: width"):
        slide_facts(record)
