"""The last lines of a run: used, lost by reason, ledger and report; after a failure, the jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.accounting import run_summary
from pipeline.contracts.cohort_flow import CaseCounts, CohortFlow, SlideCounts, write_cohort_flow


def flow(**changes: Any) -> CohortFlow:
    known: dict[str, Any] = {
        "mode": "intersection",
        "slides": SlideCounts(total=1460, usable=1456, with_all_teachers=1450),
        "cases": CaseCounts(total=100, usable=99, complete=97, used=97),
        "lost": {"no_mpp": 1, "no_tissue": 3},
        "warned": 12,
        "stages": [],
        "teachers": {},
        "incomplete_cases": {},
        "slide_columns": [],
    }
    return CohortFlow(**{**known, **changes})


def test_used_and_lost_by_reason_the_most_frequent_first() -> None:
    assert run_summary.used_and_lost(flow()) == {
        "slides": "1,460 in the sheet, 1,456 used, 4 lost (3 no tissue, 1 no mpp); 12 with a "
        "warning",
        "cases": "100 in the sheet, 97 used, 3 lost (1 without a usable slide, 2 without some "
        "teacher)",
    }


def test_nothing_lost_needs_no_reason() -> None:
    slides, cases = SlideCounts(3, 3, 3), CaseCounts(3, 3, 3, 3)
    said = run_summary.used_and_lost(flow(slides=slides, cases=cases, lost={}, warned=0))
    assert said["slides"] == said["cases"] == "3 in the sheet, 3 used, 0 lost"


def test_a_finished_run_names_ledger_and_report(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    root.mkdir()
    assert run_summary.finished(root) == "", "there is nothing to say before `mapping`"
    write_cohort_flow(root, flow())
    assert "report" not in run_summary.finished(root), "a page that is not there is not named"
    (root / "ledger.csv").touch()
    (root / "report.html").touch()
    first, *_, ledger, report = run_summary.finished(root).splitlines()
    assert first == "demo: finished."
    assert ledger.split() == ["ledger", str(root / "ledger.csv")]
    assert report.split() == ["report", str(root / "report.html")]


def test_a_failed_run_lists_its_jobs_and_the_way_on(tmp_path: Path) -> None:
    said = run_summary.failed(tmp_path / "demo", ["tiling chunk 3: a disk (log: x.log)"])
    assert said.splitlines()[:2] == [
        "demo: 1 job failed.",
        "  tiling chunk 3: a disk (log: x.log)",
    ]
    assert "mapping" in said and said.endswith(run_summary.AGAIN)
