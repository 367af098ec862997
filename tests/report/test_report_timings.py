from __future__ import annotations

import math
from pathlib import Path

from pipeline.report import results
from pipeline.report.sections import timings
from tests.report.conftest import small_config

HEADER = "s\th:m:s\tmax_rss\tcpu_time\n"


def write(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(row + "\n" for row in rows))


def test_records_are_read_by_rule_and_teacher(tmp_path: Path) -> None:
    write(tmp_path / "cohort.tsv", "1.5\t0:00:01\t100.0\t1.0")
    write(tmp_path / "extraction" / "vit" / "0.tsv", "10\t0:00:10\tNA\t-")
    write(tmp_path / "training" / "survival" / "mean.tsv", "2\t0\t50\t3", "4\t0\t70\t5")
    (tmp_path / "notes.tsv").write_text("something\telse\n1\t2\n")
    jobs = timings.read_jobs(tmp_path)
    assert [(j.rule, j.seconds) for j in jobs] == [
        ("cohort", 1.5),
        ("extraction: vit", 10.0),
        ("training", 2.0),
        ("training", 4.0),
    ]
    assert math.isnan(jobs[1].max_rss)
    assert jobs[3].max_rss == 70.0


def test_throughput_divides_tiles_by_job_time(small: Path) -> None:
    for path in (small / "benchmarks").rglob("*.tsv"):
        path.unlink()
    write(small / "benchmarks" / "tiling" / "0.tsv", "10\t0\t100\t9")
    write(small / "benchmarks" / "tiling" / "1.tsv", "30\t0\t200\t29")
    opened = results.read(small_config(), small)
    section = timings.section(opened)
    assert section.table is not None
    (row,) = section.table.rows
    ok = [r for r in opened.tiling.values() if r.status == "ok"]
    cells = {c.label: cell.key for c, cell in zip(section.table.columns, row, strict=True)}
    assert cells["jobs"] == 2
    assert cells["total"] == 40
    assert cells["peak memory, MB"] == 200
    assert cells["tiles/s"] == sum(r.facts["n_tiles"] for r in ok) / 40
    assert cells["slides/h"] == len(ok) * 90
    assert "2 jobs took 40 s" in section.total


def test_no_benchmarks_is_said(small: Path) -> None:
    for path in (small / "benchmarks").rglob("*.tsv"):
        path.unlink()
    assert "No benchmark files" in timings.section(results.read(small_config(), small)).absent
