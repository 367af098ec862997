"""Whatever the parse accepts, the folds accept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.cohort import stage as cohort_stage
from pipeline.config.cohort import CohortJob
from pipeline.config.folds import FoldsJob
from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.contracts.columns import spelled_out
from pipeline.errors import ConfigError, UserError
from pipeline.files.parquet import read_table, write_table
from pipeline.folds import stage as folds_stage
from pipeline.mapping.cases import case_table
from pipeline.mapping.coverage import Coverage
from pipeline.plan.cohort_plan import cohort_plan

TASKS = {
    "survival": {"type": "survival", "time": "time", "event": "event"},
    "classes": {"type": "classification", "label": "grade"},
    "scores": {"type": "regression", "targets": ["score", "time"]},
}


def config(folder: Path, tasks: dict[str, Any], **changes: Any) -> Config:
    (folder / "features").mkdir(exist_ok=True)
    (folder / "features" / "s0.h5").touch()
    return parse(
        {
            "cohort": {"name": "t", "sheet": "sheet.csv"},
            "extraction": {
                "teachers": {"a": {"source": "import", "path": str(folder / "features")}}
            },
            "tasks": tasks,
            "training": {"models": {"single": {"kind": "single"}}},
            "evaluation": {"student": "single_a"},
            **changes,
        }
    )


def write_sheet(folder: Path, rows: list[list[str]]) -> None:
    head = "slide_id,case_id,site,time,event,grade,score"
    lines = [f"s{i},{','.join(row)}" for i, row in enumerate(rows)]
    (folder / "sheet.csv").write_text("\n".join([head, *lines]) + "\n")


def fold_all(config: Config, folder: Path) -> None:
    """What mapping and folds do where every slide has its features."""
    root = folder / "results"
    root.mkdir()
    job = CohortJob(cohort=config.cohort, tasks=config.tasks)
    cohort_stage.run(job=job, root=root, base=folder)
    slides = read_table(root / "slides.parquet")
    have = Coverage({}, {"a": dict.fromkeys(slides["slide_id"], "")}, {}, slides)
    write_table(root / "cases.parquet", case_table(slides, have)[0])
    write_table(root / "coverage.parquet", slides.assign(teacher="a", status="ok"))
    for name, task in config.tasks.items():
        spelled = spelled_out(task, slides.columns)
        job = FoldsJob(folds=config.folds, cases="union", task=spelled)
        folds_stage.run(job=job, root=root, task=name)


cell = st.one_of(
    st.integers(0, 9).map(str),
    st.sampled_from(["1", "1.0", "01", "0", "", "NA", "2.5", "1e2", "A", "a", "Unknown", "-3"]),
)
odd_row = st.tuples(
    st.integers(0, 14).map(lambda i: f"case{i}"), st.sampled_from(["", "x", "y", "z", "X"]), cell,
    st.sampled_from(["0", "1", "1.0", "", "2"]), st.sampled_from(["A", "B", "1", "1.0", ""]), cell,
)  # fmt: skip
sound_row = st.tuples(
    st.integers(0, 25).map(lambda i: f"case{i}"), st.sampled_from("vwxyz"),
    st.sampled_from(["1", "2.5"]), st.sampled_from("01"), st.sampled_from("AB"),
    st.sampled_from("345"),
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.one_of(
        st.lists(sound_row, min_size=4, max_size=40, unique_by=lambda row: row[0]),
        st.lists(sound_row, min_size=4, max_size=40),
        st.lists(odd_row, min_size=4, max_size=30),
    ),
    name=st.sampled_from(sorted(TASKS)),
    k=st.integers(2, 5),
    inner=st.sampled_from([None, None, 2, 3]),
    group_by=st.sampled_from(["case", "case", "site"]),
)
def test_whatever_the_parse_accepts_folds_accept(
    rows: list[tuple[str, ...]], name: str, k: int, inner: int | None, group_by: str
) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_sheet(folder, [list(row) for row in rows])
        folds = {"k": k, "inner": inner, "group_by": group_by}
        cfg = config(folder, {name: TASKS[name]}, folds=folds)
        try:
            cohort_plan(cfg, folder)
        except UserError:
            return
        fold_all(cfg, folder)


def plain(n: int = 30, **columns: Callable[[int], str]) -> list[list[str]]:
    rows = []
    for i in range(n):
        row = {"case": f"c{i}", "site": f"h{i % 6}", "time": str(i + 1), "event": str(i % 2)}
        row |= {"grade": "AB"[i % 2], "score": str(i)}
        rows.append([columns[key](i) if key in columns else value for key, value in row.items()])
    return rows


def refused(folder: Path, rows: list[list[str]], **changes: Any) -> str:
    write_sheet(folder, rows)
    with pytest.raises(UserError) as caught:
        cohort_plan(config(folder, TASKS, **changes), folder)
    return str(caught.value)


def test_a_sound_sheet_passes_the_parse_and_the_folds(tmp_path: Path) -> None:
    write_sheet(tmp_path, plain())
    sound = config(tmp_path, TASKS)
    cohort_plan(sound, tmp_path)
    fold_all(sound, tmp_path)


def test_what_cannot_be_split_is_refused_at_the_parse(tmp_path: Path) -> None:
    few = refused(tmp_path, plain(site=lambda i: f"h{i % 3}"), folds={"k": 5, "group_by": "site"})
    assert "only 3 sites" in few and "Lower folds.k" in few
    none = refused(tmp_path, plain(site=lambda i: ""), folds={"k": 3, "group_by": "site"})
    assert "30 case(s) have no site" in none
    one = refused(
        tmp_path,
        plain(site=lambda i: "" if i == 7 else f"h{i % 9}"),
        folds={"k": 3, "group_by": "site"},
    )
    assert "1 case(s) have no site" in one and "c7" in one
    events = refused(tmp_path, plain(event=lambda i: str(int(i in (1, 11, 21)))), folds={"k": 3})
    assert "only 3 case(s) with `event`" in events
    inner = refused(tmp_path, plain(12), folds={"k": 3, "inner": 9})
    assert "folds.inner is 9" in inner
    gone = refused(tmp_path, plain(), folds={"import_dir": "nowhere/splits"})
    assert "nowhere/splits is not a folder" in gone


def test_imported_ids_as_numbers_are_found_and_strangers_refused(tmp_path: Path) -> None:
    write_sheet(tmp_path, plain(case=lambda i: f"{i + 1:04d}"))
    splits = tmp_path / "splits"
    splits.mkdir()
    lines = [f"{i},{i + 11}.0,{i + 1}.0,{i + 21}" for i in range(10)]
    (splits / "splits_0.csv").write_text("\n".join([",train,val,test", *lines]) + "\n")
    imported = config(tmp_path, TASKS, folds={"import_dir": "splits"})
    cohort_plan(imported, tmp_path)
    text = (splits / "splits_0.csv").read_text()
    (splits / "splits_0.csv").write_text(text.replace(".0", "x"))
    with pytest.raises(UserError, match="no usable case in train, val"):
        cohort_plan(imported, tmp_path)


def test_paths_that_nobody_opens_before_the_work(tmp_path: Path) -> None:
    write_sheet(tmp_path, plain())
    pattern = "annotations/{slide_id}.geojson"
    probed = config(tmp_path, TASKS, probing={"annotations": pattern})
    with pytest.raises(ConfigError, match=r"probing\.annotations: no slide has a file"):
        cohort_plan(probed, tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "s3.geojson").touch()
    cohort_plan(probed, tmp_path)
    tissue = {"method": "learned", "weights": "net.pt"}
    teachers = {"a": {"source": "timm", "model": "resnet10t", "weights": "random"}}
    learned = config(tmp_path, TASKS, tiling={"tissue": tissue}, extraction={"teachers": teachers})
    with pytest.raises(ConfigError, match=r"tiling\.tissue\.weights: no file .*net\.pt"):
        cohort_plan(learned, tmp_path)


def test_a_site_that_one_slide_of_a_case_lacks_is_the_others(tmp_path: Path) -> None:
    rows = plain(case=lambda i: f"c{i // 2}", grade=lambda i: "AB"[i // 2 % 2])
    rows = [[r[0], f"h{i // 2 % 6}" if i % 2 else "", *r[2:]] for i, r in enumerate(rows)]
    write_sheet(tmp_path, rows)
    sites = config(tmp_path, {"classes": TASKS["classes"]}, folds={"k": 3, "group_by": "site"})
    cohort_plan(sites, tmp_path)
    fold_all(sites, tmp_path)
