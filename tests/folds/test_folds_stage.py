"""Folds: disjoint, a partition, stratified, the same for any order of the rows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.folds import FoldsConfig, FoldsJob
from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
from pipeline.contracts.folds import PARTS, fold_path, folder, read_fold, read_folds
from pipeline.contracts.labels import Task
from pipeline.errors import ArtifactError, SheetError, UserError
from pipeline.files.artifacts import read_json, write_json
from pipeline.files.parquet import write_table
from pipeline.folds import stage

SURVIVAL = SurvivalTask(type="survival", time="time", event="event")
SUBTYPE = ClassificationTask(type="classification", label="subtype")
SCORE = RegressionTask(type="regression", targets=["score"])


def write_cases(root: Path, n: int = 60, seed: int = 0, **columns: Any) -> pd.DataFrame:
    """A cohort of `n` cases, every third with a second slide."""
    rng = np.random.default_rng(seed)
    cases = pd.DataFrame(
        {
            "case_id": [f"c{i:03d}" for i in range(n)],
            "site": [f"site{i % 9}" for i in range(n)],
            "n_slides": [1 + (i % 3 == 0) for i in range(n)],
            "n_usable_slides": [1 + (i % 3 == 0) for i in range(n)],
            "complete": [True] * n,
            "time": rng.exponential(20, n).round(2) + 0.1,
            "event": rng.permutation(([1, 0, 0] * n)[:n]),
            "subtype": rng.permutation((["a", "b", "b", "c"] * n)[:n]),
            "score": rng.normal(size=n),
        }
    ).assign(**columns)
    write_cohort(root, cases)
    return cases


def write_cohort(root: Path, cases: pd.DataFrame) -> None:
    write_table(root / "cases.parquet", cases)
    slides = [
        (f"{case}_s{j}", case)
        for case, number in zip(cases["case_id"], cases["n_slides"], strict=True)
        for j in range(number)
    ]
    table = pd.DataFrame(slides, columns=["slide_id", "case_id"])
    write_table(root / "slides.parquet", table)
    write_table(root / "coverage.parquet", table.assign(teacher="t", status="ok"))


def split(root: Path, task: Task = SURVIVAL, cases: str = "intersection", **cfg: Any) -> dict:
    job = FoldsJob(folds=FoldsConfig(**cfg), cases=cases, task=task.model_dump())
    stage.run(job=job, root=root, task="os")
    return read_json(folder(root, "os") / "folds.json")


@pytest.mark.parametrize("task", [SURVIVAL, SUBTYPE, SCORE], ids=lambda t: t.type)
@pytest.mark.parametrize("group_by", ["case", "site"])
def test_folds_are_disjoint_and_their_tests_partition_the_cases(
    tmp_path: Path, task: Task, group_by: str
) -> None:
    cases = write_cases(tmp_path)
    summary = split(tmp_path, task, k=4, group_by=group_by)
    folds = read_folds(tmp_path, "os")
    assert sorted(c for f in folds for c in f.test) == sorted(cases["case_id"])
    site_of = dict(zip(cases["case_id"], cases["site"], strict=True))
    for fold in folds:
        parts = [set(fold.part(part)) for part in PARTS]
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(cases)
        if group_by == "site":
            sites = [{site_of[c] for c in part} for part in parts]
            assert sum(map(len, sites)) == len(set.union(*sites))
        counted = summary["folds"][fold.index]
        assert [counted[part]["cases"] for part in PARTS] == list(map(len, parts))
    assert (summary["tests"], summary["labelled"], summary["n_cases"]) == ("partition", "test", 60)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(24, 90),
    k=st.integers(2, 5),
    fraction=st.floats(0.1, 0.5),
    seed=st.integers(0, 10_000),
    task=st.sampled_from([SURVIVAL, SUBTYPE, SCORE]),
)
def test_case_folds_hold_for_any_cohort(
    n: int, k: int, fraction: float, seed: int, task: Task
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        cases = write_cases(root, n, seed).set_index("case_id")
        split(root, task, k=k, validation_fraction=fraction, seed=seed)
        folds = read_folds(root, "os")
    sizes = [len(f.test) for f in folds]
    assert max(sizes) - min(sizes) <= 1
    for fold in folds:
        rest = n - len(fold.test)
        assert abs(len(fold.val) - fraction * rest) <= 3
        assert len(fold.train) + len(fold.val) == rest
        if task is SURVIVAL:
            share = cases["event"].mean()
            for part in PARTS:
                events = cases.loc[list(fold.part(part)), "event"].sum()
                assert abs(events - share * len(fold.part(part))) <= 2
                assert events >= 1


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 25), min_size=4, max_size=20),
    k=st.integers(2, 4),
    seed=st.integers(0, 100),
    task=st.sampled_from([SURVIVAL, SUBTYPE, SCORE]),
)
def test_site_folds_never_part_a_site_or_say_why_not(
    sizes: list[int], k: int, seed: int, task: Task
) -> None:
    sites = [f"h{i}" for i, size in enumerate(sizes) for _ in range(size)]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        cases = write_cases(root, len(sites), site=sites)
        try:
            split(root, task, k=k, seed=seed, group_by="site")
        except UserError as error:
            assert "folds.k" in str(error)
            return
        folds = read_folds(root, "os")
    site_of = dict(zip(cases["case_id"], cases["site"], strict=True))
    for fold in folds:
        found = [{site_of[case] for case in fold.part(part)} for part in PARTS]
        assert sum(map(len, found)) == len(set.union(*found)) == len(sizes)


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does(tmp_path: Path) -> None:
    cases = write_cases(tmp_path)
    split(tmp_path, seed=3)
    first = read_folds(tmp_path, "os")
    write_cohort(tmp_path, cases.sample(frac=1, random_state=1))
    split(tmp_path, seed=3)
    assert read_folds(tmp_path, "os") == first
    split(tmp_path, seed=4)
    assert read_folds(tmp_path, "os") != first


def test_unequal_sites_are_spread_evenly(tmp_path: Path) -> None:
    sizes = [30, 25, 14, 10, 8, 6, 5, 4, 3, 2, 2, 1]
    sites = [f"h{i}" for i, size in enumerate(sizes) for _ in range(size)]
    write_cases(tmp_path, len(sites), site=sites)
    summary = split(tmp_path, k=3, group_by="site")
    tests = [fold["test"]["cases"] for fold in summary["folds"]]
    assert max(tests) <= 45 and min(tests) >= 28
    assert all(fold["val"]["cases"] >= 8 for fold in summary["folds"])


def test_cases_that_cannot_be_used_are_excluded_with_a_reason(tmp_path: Path) -> None:
    cases = write_cases(tmp_path)
    cases.loc[0, "n_usable_slides"] = 0
    cases.loc[:1, "complete"] = False
    cases.loc[2, ["time", "event"]] = np.nan
    write_cohort(tmp_path, cases)
    excluded = split(tmp_path)["excluded"]
    assert sorted(excluded) == ["c000", "c001", "c002"]
    assert "no teacher" in excluded["c000"] and "not all teachers" in excluded["c001"]
    assert "`time`" in excluded["c002"]
    assert sorted(split(tmp_path, cases="union")["excluded"]) == ["c000", "c002"]
    only = ClassificationTask(type="classification", label="subtype", classes=["b", "a"])
    with pytest.raises(SheetError, match="not one of `classes`"):
        split(tmp_path, only)


def test_files_are_written_as_clam_reads_them_and_stale_ones_removed(tmp_path: Path) -> None:
    write_cases(tmp_path)
    split(tmp_path, k=5)
    summary = split(tmp_path, k=3)
    there = {p.name for p in folder(tmp_path, "os").iterdir()} - {"folds.json"}
    assert there == {Path(f).name for f in summary["files"]} and len(there) == 9
    fold = read_fold(tmp_path, "os", 1)
    columns = pd.read_csv(folder(tmp_path, "os") / "splits_1.csv", index_col=0)
    flags = pd.read_csv(folder(tmp_path, "os") / "splits_1_bool.csv", index_col=0)
    assert list(columns.columns) == list(flags.columns) == ["train", "val", "test"]
    for part in PARTS:
        slides = set(columns[part].dropna())
        assert slides == set(flags.index[flags[part]])
        assert {s.split("_")[0] for s in slides} == set(fold.part(part))


@pytest.mark.parametrize(
    ("columns", "task", "cfg", "message"),
    [
        ({}, SURVIVAL, {"k": 50}, "only 8 cases to split"),
        ({}, SURVIVAL, {"k": 5, "group_by": "site"}, "only 4 sites to split"),
        ({"event": [1, 1] + [0] * 6}, SURVIVAL, {"k": 3}, "only 2 case.s. with `event`"),
        (
            {"event": [2] + [0] * 7},
            SURVIVAL,
            {},
            "neither 1 .event. nor 0 .*'2' .case `c000`",
        ),
        (
            {"time": [-1.0] + [1] * 7},
            SURVIVAL,
            {},
            "without a time above 0 .*'-1' .case `c000`",
        ),
        (
            {"time": ["x"] + ["1"] * 7},
            SURVIVAL,
            {},
            "without a number: 'x' .case `c000`",
        ),
        ({"subtype": ["a"] * 7 + ["b"]}, SUBTYPE, {"k": 2}, "only 1 case.s. with class `b`"),
        ({"subtype": ["a"] * 8}, SUBTYPE, {"k": 2}, "only the class"),
        ({"score": [None] * 8}, SCORE, {"k": 2}, "no case has both features and a label"),
        ({"site": [""] + ["a"] * 7}, SURVIVAL, {"group_by": "site"}, "no site.*c000"),
    ],
)
def test_cohorts_that_cannot_be_split_say_why(
    tmp_path: Path, columns: dict[str, Any], task: Task, cfg: dict[str, Any], message: str
) -> None:
    write_cases(tmp_path, 8, **{"site": ["a", "b", "c", "d"] * 2, **columns})
    with pytest.raises((UserError, SheetError), match=message):
        split(tmp_path, task, **cfg)


def test_unknown_columns_and_classes_name_the_nearest(tmp_path: Path) -> None:
    write_cases(tmp_path)
    with pytest.raises(SheetError, match="did you mean `subtype`"):
        split(tmp_path, ClassificationTask(type="classification", label="subtyp"))
    wrong = ClassificationTask(
        type="classification", label="subtype", classes=["a", "b", "c", "bb"]
    )
    with pytest.raises(SheetError, match="no case has `bb`"):
        split(tmp_path, wrong)


def test_a_fold_without_an_event_is_refused(tmp_path: Path) -> None:
    events = [1] * 20 + [0] * 40
    write_cases(tmp_path, 60, event=events, site=[f"s{i // 20}" for i in range(60)])
    with pytest.raises(UserError, match="no case with `event` in"):
        split(tmp_path, k=3, group_by="site")


# --- reading --------------------------------------------------------------------------------------


def test_reading_refuses_files_that_break_the_promise(tmp_path: Path) -> None:
    write_cases(tmp_path)
    split(tmp_path, k=3)
    path = fold_path(tmp_path, "os", 0)
    whole = path.read_text()
    case = read_fold(tmp_path, "os", 0).test[0]

    path.write_text(whole + f"{case},val\n")
    with pytest.raises(ArtifactError, match=f"in both val and test, such as {case}"):
        read_fold(tmp_path, "os", 0)
    path.write_text(whole + f"{case},test\n")
    with pytest.raises(ArtifactError, match="twice in one part"):
        read_fold(tmp_path, "os", 0)
    path.write_text(whole + "x,exam\n")
    with pytest.raises(ArtifactError, match="line 62"):
        read_fold(tmp_path, "os", 0)
    path.write_text(whole.replace(f"{case},test", f"{case},train"))
    read_fold(tmp_path, "os", 0)
    with pytest.raises(ArtifactError, match=f"every case exactly once.*{case}"):
        read_folds(tmp_path, "os")
    path.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        read_fold(tmp_path, "os", 0)
    (folder(tmp_path, "os") / "folds.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"folds\.json: .*Field required"):
        read_fold(tmp_path, "os", 1)


# --- imported folds -------------------------------------------------------------------------------


def write_clam(
    root: Path, parts: list[dict[str, list[str]]], flags: bool = False, name: str = "clam"
) -> Path:
    folder = root / name
    folder.mkdir(exist_ok=True)
    for k, part in enumerate(parts):
        if flags:
            ids = sorted({i for column in part.values() for i in column})
            table = pd.DataFrame({p: [i in part[p] for i in ids] for p in PARTS}, index=ids)
            table.to_csv(folder / f"splits_{k}_bool.csv")
        else:
            table = pd.DataFrame({p: pd.Series(part[p], dtype=object) for p in PARTS})
            table.to_csv(folder / f"splits_{k}.csv")
    return folder


def _parts(cases: pd.DataFrame, k: int = 2) -> list[dict[str, list[str]]]:
    ids = cases["case_id"].tolist()
    return [
        {"test": ids[i::k], "val": ids[1 - i :: 2 * k], "train": ids[3 - i :: 2 * k]}
        for i in range(k)
    ]


@pytest.mark.parametrize("flags", [False, True])
def test_clam_folds_are_taken_over(tmp_path: Path, flags: bool) -> None:
    cases = write_cases(tmp_path)
    parts = _parts(cases)
    summary = split(tmp_path, k=2, import_dir=str(write_clam(tmp_path, parts, flags)))
    for fold, wanted in zip(read_folds(tmp_path, "os"), parts, strict=True):
        assert {part: list(fold.part(part)) for part in PARTS} == {
            part: sorted(wanted[part]) for part in PARTS
        }
    assert (summary["source"], summary["tests"]) == ("imported", "partition")


def test_our_own_files_can_be_imported_again(tmp_path: Path) -> None:
    write_cases(tmp_path)
    split(tmp_path, k=3)
    first = read_folds(tmp_path, "os")
    folder(tmp_path, "os").rename(tmp_path / "kept")
    split(tmp_path, k=3, import_dir=str(tmp_path / "kept"))
    assert read_folds(tmp_path, "os") == first


def test_validation_that_is_test_is_refused_or_labelled(tmp_path: Path) -> None:
    cases = write_cases(tmp_path)
    parts = [{**p, "val": p["test"]} for p in _parts(cases)]
    where = str(write_clam(tmp_path, parts))
    with pytest.raises(UserError, match="allow_validation_is_test: true"):
        split(tmp_path, k=2, import_dir=where)
    summary = split(tmp_path, k=2, import_dir=where, allow_validation_is_test=True)
    assert summary["labelled"] == "validation"
    assert all(f.labelled == "validation" and f.val == f.test for f in read_folds(tmp_path, "os"))
    write_json(folder(tmp_path, "os") / "folds.json", {**summary, "labelled": "test"})
    with pytest.raises(ArtifactError, match="in both val and test"):
        read_folds(tmp_path, "os")


def test_nothing_allows_training_on_test_cases(tmp_path: Path) -> None:
    cases = write_cases(tmp_path)
    parts = _parts(cases)
    parts[1]["train"].append(parts[1]["test"][0])
    where = str(write_clam(tmp_path, parts))
    with pytest.raises(UserError, match=r"splits_1.csv: 1 case.s. are in both train and test"):
        split(tmp_path, k=2, import_dir=where, allow_validation_is_test=True)
    slides = [{p: [f"{c}_s0" for c in ids] for p, ids in part.items()} for part in _parts(cases)]
    slides[0]["train"].append("c000_s1")  # the second slide of a case whose first is in test
    where = str(write_clam(tmp_path, slides))
    with pytest.raises(UserError, match=r"both train and test .all slides of a case"):
        split(tmp_path, k=2, import_dir=where)


def test_imported_ids_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    cases = write_cases(tmp_path)
    cases.loc[5, "complete"] = False
    write_cohort(tmp_path, cases)
    parts = _parts(cases)
    for part in parts:
        part["train"].append("elsewhere")
        for ids in part.values():
            if "c007" in ids:
                ids.remove("c007")
    summary = split(tmp_path, k=2, import_dir=str(write_clam(tmp_path, parts)))
    assert "not in the cohort" in summary["excluded"]["elsewhere"]
    assert "not all teachers" in summary["excluded"]["c005"]
    assert summary["excluded"]["c007"] == "not in the imported folds"
    strangers = [{p: [f"x{c}" for c in ids] for p, ids in part.items()} for part in parts]
    with pytest.raises(UserError, match=r"no usable case in train, val, test.*like x"):
        split(tmp_path, k=2, import_dir=str(write_clam(tmp_path, strangers, name="other")))


def test_overlapping_and_wrongly_counted_imports(tmp_path: Path) -> None:
    cases = write_cases(tmp_path)
    same = [_parts(cases)[0]] * 2
    where = str(write_clam(tmp_path, same))
    assert split(tmp_path, k=2, import_dir=where)["tests"] == "overlapping"
    write_clam(tmp_path, _parts(cases)[:1], name="one")
    summary = split(tmp_path, k=2, import_dir=str(write_clam(tmp_path, _parts(cases)[:2])))
    assert summary["tests"] == "partition"
    published = split(tmp_path, k=2, import_dir=str(tmp_path / "one"))
    assert (published["k"], published["tests"]) == (1, "incomplete")
    where = write_clam(tmp_path, same * 2)
    assert split(tmp_path, k=2, import_dir=str(where))["k"] == 4
    (where / "splits_1.csv").unlink()
    with pytest.raises(UserError, match=r"neither splits_1.csv nor splits_1_bool.csv"):
        split(tmp_path, k=2, import_dir=str(where))
    with pytest.raises(UserError, match=r"nowhere is not a folder"):
        split(tmp_path, k=2, import_dir=str(tmp_path / "nowhere"))
    write_clam(tmp_path, [_parts(cases)[1]], flags=True, name="one")
    with pytest.raises(UserError, match="do not agree"):
        split(tmp_path, k=2, import_dir=str(tmp_path / "one"))
    (tmp_path / "one" / "splits_0_bool.csv").unlink()
    (tmp_path / "one" / "splits_0.csv").write_text(",train,test\n0,a,b\n")
    with pytest.raises(UserError, match="no column val"):
        split(tmp_path, k=2, import_dir=str(tmp_path / "one"))


def test_imported_folds_must_keep_sites_together_when_asked(tmp_path: Path) -> None:
    cases = write_cases(tmp_path)
    where = str(write_clam(tmp_path, _parts(cases)))
    with pytest.raises(UserError, match="group_by is site, but the site"):
        split(tmp_path, k=2, import_dir=where, group_by="site")


@pytest.mark.parametrize("task", [SURVIVAL, SUBTYPE, SCORE], ids=lambda t: t.type)
@pytest.mark.parametrize("group_by", ["case", "site"])
def test_inner_parts_hold_what_a_fold_may_learn_from(
    tmp_path: Path, task: Task, group_by: str
) -> None:
    cases = write_cases(tmp_path).set_index("case_id")
    split(tmp_path, task, k=3, inner=3, group_by=group_by)
    for fold in read_folds(tmp_path, "os"):
        assert len(fold.inner) == 3
        assert sorted(c for part in fold.inner for c in part) == sorted([*fold.train, *fold.val])
        for part in fold.inner:
            if task is SURVIVAL:
                assert cases.loc[list(part)].event.sum() > 0
            if group_by == "site":
                rest = {c for p in fold.inner if p is not part for c in p}
                assert not set(cases.loc[list(part)].site) & set(cases.loc[list(rest)].site)


def test_inner_parts_that_do_not_fit_their_fold_are_refused(tmp_path: Path) -> None:
    write_cases(tmp_path)
    split(tmp_path, k=3, inner=4)
    path = folder(tmp_path, "os") / "inner_1.csv"
    tested = read_fold(tmp_path, "os", 1).test[0]
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], f"{tested},0"]) + "\n")
    with pytest.raises(ArtifactError, match=r"inner_1\.csv: its parts must hold"):
        read_folds(tmp_path, "os")
    split(tmp_path, k=3)  # without: no file is left behind, none is read
    assert not path.exists()
    assert read_fold(tmp_path, "os", 1).inner == ()


def test_too_many_inner_parts_are_a_message(tmp_path: Path) -> None:
    write_cases(tmp_path, n=24, event=[1] * 6 + [0] * 18)
    with pytest.raises(UserError, match=r"folds\.inner is 5.*only \d case\(s\) with `event`"):
        split(tmp_path, k=3, inner=5)


@pytest.mark.parametrize(("n", "k", "inner"), [(20, 5, None), (12, 6, 3), (16, 4, 3), (9, 8, None)])
def test_regression_bins_are_cut_to_the_number_of_folds(
    tmp_path: Path, n: int, k: int, inner: int | None
) -> None:
    write_cases(tmp_path, n)
    summary = split(tmp_path, SCORE, k=k, inner=inner)
    assert sum(fold["test"]["cases"] for fold in summary["folds"]) == n


@pytest.mark.parametrize(
    "spelled",
    [
        lambda case: f"{case}.svs",
        lambda case: f"slides/{case}_s0.NDPI",
        lambda case: case.upper(),
        lambda case: f"{case} ",
        lambda case: f"c{int(case[1:])}",
    ],
)
def test_imported_ids_in_another_spelling(tmp_path: Path, spelled: Any) -> None:
    cases = write_cases(tmp_path)
    parts = [{p: [spelled(c) for c in ids] for p, ids in part.items()} for part in _parts(cases)]
    summary = split(tmp_path, import_dir=str(write_clam(tmp_path, parts)))
    assert summary["excluded"] == {} and summary["n_cases"] == len(cases)


def test_imported_ids_that_could_be_several_cases_are_not_guessed(tmp_path: Path) -> None:
    cases = write_cases(tmp_path)
    cases["case_id"] = [f"x{i}" for i in range(58)] + ["007", "7"]
    write_cohort(tmp_path, cases)
    parts = _parts(cases)
    renamed = [
        {p: ["7.0" if c == "7" else c for c in ids] for p, ids in part.items()} for part in parts
    ]
    excluded = split(tmp_path, import_dir=str(write_clam(tmp_path, renamed)))["excluded"]
    assert set(excluded) == {"7.0", "7"}
