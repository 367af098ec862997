"""The ledger: a slide's failure is a row, and too many end the run with the list."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts import ledger
from pipeline.contracts.ledger import Record
from pipeline.errors import ArtifactError, SlideError, UserError


def test_manifest_is_canonical_and_round_trips(tmp_path: Path) -> None:
    records = [Record("b", "tiling", "ok", facts={"n_tiles": 3}), Record("a", "tiling", "empty")]
    ledger.write_manifest(tmp_path / "1.json", "tiling", "f", records)
    ledger.write_manifest(tmp_path / "2.json", "tiling", "f", reversed(records))
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    assert ledger.read_manifest(tmp_path / "1.json") == [records[1], records[0]]


def test_what_is_not_a_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"slides": [{"slide": 1}]}')
    with pytest.raises(ArtifactError, match="not a manifest"):
        ledger.read_manifest(tmp_path / "x.json")


def test_failures_keep_kind_and_reason_on_one_line() -> None:
    known = ledger.failed("s", "tiling", SlideError("no mpp:\n add a column", kind="no_mpp"))
    assert (known.kind, known.reason) == ("no_mpp", "no mpp: add a column")
    unknown = ledger.failed("s", "tiling", ValueError("odd"))
    assert (unknown.kind, unknown.reason) == ("ValueError", "ValueError: odd")


def test_too_many_failures_end_the_run_with_the_reasons_and_their_counts() -> None:
    records = [Record(f"s{i}", "tiling", "ok") for i in range(8)]
    bad = [Record(f"t{i}", "tiling", "failed", "no_mpp", "no scale") for i in range(7)]
    bad += [Record("u", "extraction/a", "failed", "bad_features", "torn")]
    bad += [Record("u", "extraction/b", "failed", "bad_features", "torn")]
    empty = [Record("v", "tiling", "empty", "no_tissue", "blank")]
    found = records + bad + empty
    ledger.enforce(found, {"failed": 0.5, "empty": 0.1}, "ledger.csv")
    with pytest.raises(UserError) as caught:
        ledger.enforce(found, {"failed": 0.4, "empty": 0.1}, "ledger.csv")
    head, *lines = str(caught.value).splitlines()
    assert "8 of 17 slides failed" in head and "mapping.max_failed_fraction = 0.4" in head
    assert lines[0] == "  7 no mpp (tiling)"
    assert lines[1] == "    - t0: no scale"
    assert lines[6] == "    - and 2 more: ledger.csv"
    assert lines[7:] == ["  1 bad features (extraction/a)", "    - u: torn"]
    with pytest.raises(UserError, match=r"1 of 17 slides have no tissue.*max_empty_fraction"):
        ledger.enforce(found, {"failed": 0.5, "empty": 0.05}, "ledger.csv")


@given(st.text(min_size=1), st.integers(1, 500))
def test_a_slide_has_one_chunk_for_good(slide_id: str, chunks: int) -> None:
    chunk = ledger.chunk_of(slide_id, chunks)
    assert 0 <= chunk < chunks
    assert chunk == ledger.chunk_of(slide_id, chunks)


def test_chunks_are_even() -> None:
    counts = Counter(ledger.chunk_of(f"slide_{i}", 10) for i in range(5000))
    assert min(counts.values()) > 400
    assert max(counts.values()) < 600
