"""What the report reads of the results folder."""

from __future__ import annotations

from pathlib import Path

from pipeline.contracts.ledger import Record, write_manifest
from pipeline.report import results


def test_teachers_that_share_a_decoding_have_each_its_own_slides(tmp_path: Path) -> None:
    records = [
        Record("s1", "extraction/a", "ok", "", "", "features/a/s1.h5", {}),
        Record("s1", "extraction/b", "failed", "unreadable", "bad tile", "", {}),
        Record("s2", "tiling", "empty", "no_tissue", "no tissue", "", {}),
    ]
    write_manifest(tmp_path / "features/a+b/manifest/0.json", "extraction", "f", records)
    of_a = results._features(tmp_path, "a+b", "a", [0])
    of_b = results._features(tmp_path, "a+b", "b", [0])
    assert {k: r.status for k, r in of_a.items()} == {"s1": "ok", "s2": "empty"}
    assert {k: r.status for k, r in of_b.items()} == {"s1": "failed", "s2": "empty"}
