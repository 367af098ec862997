"""One patient under two ids and one slide in two cases are refused before they leak."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cohort.same_patient import case_problems, shared_slides
from pipeline.config.cohort import Accept, ColumnsConfig
from pipeline.contracts.patient import patient
from pipeline.contracts.slide_row import SlideRow


def rows(*cases: str, slides: tuple[str, ...] = ()) -> list[SlideRow]:
    names = slides or tuple(f"s{i}" for i in range(len(cases)))
    return [
        SlideRow(slide, case, "", None, "", "", "", {}, row=i + 2)
        for i, (slide, case) in enumerate(zip(names, cases, strict=True))
    ]


def problems(*cases: str, accepted: tuple[Accept, ...] = (), **more: tuple[str, ...]) -> list[str]:
    return case_problems(rows(*cases, **more), ColumnsConfig(), accepted)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("TCGA-A3-3300-01A", "TCGA-A3-3300-01Z"),
        ("TCGA-A3-3300", "tcga-a3-3300-11A-02"),
        ("C3L-00017-21", "C3L-00017"),
        ("p1", "P1"),
        ("0007", "7"),
        ("P007", "P7"),
        ("100", "100.0"),
        ("Mu\u0308ller 1", "M\u00fcller1"),
        ("\uff11\uff12", "12"),
        ("a\u200b1", "a1"),
        ("site_1-2", "site\u20131-2"),
    ],
)
def test_two_ids_of_one_patient(first: str, second: str) -> None:
    (message, *_) = [p for p in problems(first, "other", second) if "several case ids" in p]
    assert f"`{first}` (row 2) and `{second}` (row 4)" in message
    accepted: tuple[Accept, ...] = ("similar_case_ids", "float_ids")
    assert problems(first, "other", second, accepted=accepted) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [("P1", "P10"), ("1.05", "1.5"), ("A-1-12", "A-11-2"), ("TCGA-A3-3300", "TCGA-A3-3301"),
     ("1.2.840.0", "1.2.840"), ("C3L-00017", "C3N-00017"), ("x10", "x1"), ("0", "00a")],
)  # fmt: skip
def test_ids_of_two_patients_pass(first: str, second: str) -> None:
    assert patient(first) != patient(second)
    assert problems(first, second) == []


def test_ids_of_a_spreadsheet() -> None:
    (message,) = problems("1.23457E+17", "a", "b")
    assert "`1.23457E+17` (row 2)" in message and "cohort.accept: [float_ids]" in message
    (message,) = problems("100.0", "101.0", "102.0", "103.0")
    assert "4 id(s)" in message and "and 1 more" in message
    assert problems("1.23457E+17", "a", accepted=("float_ids",)) == []


def test_barcodes_of_slides_tell_the_patient() -> None:
    slides = ("TCGA-A3-3300-01A-01-TSA", "TCGA-A3-3300-01Z-00-DX1", "TCGA-A3-3301-01Z-00-DX1")
    (message,) = problems("c1", "c2", "c3", slides=slides)
    assert "1 patient(s), by the barcodes" in message
    assert problems("c1", "c1", "c3", slides=slides) == []


def test_a_slide_stands_in_one_case() -> None:
    cohort = rows("c1", "c2", "c3", "c3")
    known = {"s0": "aa+mask", "s1": "aa", "s2": "missing", "s3": "bb"}
    (message,) = shared_slides(cohort, known)
    assert "1 slide(s)" in message and "row 2 (slide `s0`, case `c1`)" in message
    assert shared_slides(cohort, known | {"s1": "missing"}) == []
    assert shared_slides(cohort, {"s0": "a", "s1": "b", "s2": "c", "s3": "c"}) == [], "one case's"


def test_links_and_copies_have_one_identity(tmp_path: Path) -> None:
    from pipeline.cohort.sheet import identity

    (tmp_path / "a.svs").write_bytes(b"slide")
    (tmp_path / "b.svs").symlink_to(tmp_path / "a.svs")
    (tmp_path / "c.svs").write_bytes(b"slide")
    cohort = [
        SlideRow(n, n, str(tmp_path / f"{n}.svs"), None, "", "", "", {}, row=i)
        for i, n in enumerate("abc")
    ]
    (message,) = shared_slides(cohort, {r.slide_id: identity(r) for r in cohort})
    assert "cohort.accept: [shared_slides]" in message
