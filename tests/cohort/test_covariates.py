"""Covariates are checked before any work starts."""

from __future__ import annotations

import pytest

from pipeline.cohort.covariates import check_covariates, told
from pipeline.config.tasks import SurvivalTask
from pipeline.contracts.slide_row import SlideRow
from pipeline.errors import SheetError

TASK = {"os": SurvivalTask(type="survival", time="time", event="event")}


def rows(**columns: list[str]) -> list[SlideRow]:
    n = len(next(iter(columns.values())))
    return [
        SlideRow(
            slide_id=f"s{i}",
            case_id=f"c{i}",
            path="",
            mpp=None,
            site="",
            mask="",
            coordinates="",
            labels={"time": "1", "event": "1", **{k: v[i] for k, v in columns.items()}},
            row=i + 2,
        )
        for i in range(n)
    ]


AGES = [str(50 + i) for i in range(20)]


@pytest.mark.parametrize(
    ("columns", "wanted", "says"),
    [
        ({"age": AGES}, {"aeg": "auto"}, "no column `aeg`; did you mean `age`"),
        ({"age": ["60"] * 20}, {"age": "auto"}, "only the value '60'"),
        ({"age": [""] * 20}, {"age": "auto"}, "no value"),
        ({"age": [*AGES[:-1], "old"]}, {"age": "auto"}, r"row 21.*cohort.covariates: {age: categ"),
        ({"doctor": [f"Dr {i}" for i in range(20)]}, {"doctor": "auto"}, "20 categories"),
        ({"sex": ["male", "Male"] * 10}, {"sex": "auto"}, "differ only in how"),
        ({"age": AGES}, {"event": "auto"}, "the task `os` predicts it"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    columns: dict[str, list[str]], wanted: dict, says: str
) -> None:
    with pytest.raises(SheetError, match=says):
        check_covariates(rows(**columns), wanted, TASK)


def test_slides_of_a_case_must_agree() -> None:
    both = rows(sex=["f", "m", "m"])
    two = [both[0], SlideRow(**{**vars(both[1]), "case_id": "c0"}), both[2]]
    with pytest.raises(SheetError, match="case `c0` has different values in column `sex`"):
        check_covariates(two, {"sex": "auto"}, TASK)


def test_a_code_may_be_a_category_and_a_line_says_what_was_read() -> None:
    found = rows(grade=["1", "2", "3", ""] * 5, age=AGES, rare=["a"] * 17 + ["b"] * 3)
    wanted: dict = {"grade": "category", "age": "auto", "rare": "auto"}
    check_covariates(found, wanted, TASK)
    assert told(found, wanted) == [
        "covariate grade: category, 1 5, 2 5, 3 5, 5 of 20 cases without",
        "covariate age: number, 50 to 69",
        "covariate rare: category, a 17, b 3, CAREFUL: fewer than 5 cases are b",
    ]
