"""Labels: what could not be learned or split later is said before any work starts."""

from __future__ import annotations

import pytest

from pipeline.cohort.labels import case_labels, check_labels, summary, told
from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
from pipeline.contracts.slide_row import SlideRow
from pipeline.errors import SheetError

SURVIVAL = SurvivalTask(type="survival", time="time", event="event")
SUBTYPE = ClassificationTask(type="classification", label="subtype")
SCORE = RegressionTask(type="regression", targets=["score"])


def cohort(*labels: dict[str, str], cases: list[str] | None = None) -> list[SlideRow]:
    names = cases or [f"c{i}" for i in range(len(labels))]
    return [
        SlideRow(f"s{i}", case, "", None, "", "", "", values, row=i + 2)
        for i, (case, values) in enumerate(zip(names, labels, strict=True))
    ]


def survival(*pairs: tuple[str, str]) -> list[SlideRow]:
    return cohort(*({"time": t, "event": e} for t, e in pairs))


def refused(rows: list[SlideRow], task: object, folds: int | None = None) -> str:
    with pytest.raises(SheetError) as caught:
        check_labels(rows, {"mine": task}, folds)
    return str(caught.value)


def test_sound_labels_pass_and_are_counted() -> None:
    rows = survival(("1.5", "1"), ("2", "0.0"), ("3", "1"), ("", ""))
    check_labels(rows, {"mine": SURVIVAL}, folds=2)
    facts = summary(rows, SURVIVAL)
    assert (facts.cases, facts.cases_without_label, facts.events) == (3, 1, 2)
    rows = cohort(*({"subtype": s} for s in ("b", "a", "b", "")))
    check_labels(rows, {"mine": SUBTYPE})
    assert summary(rows, SUBTYPE).classes == {"a": 1, "b": 2}
    check_labels(cohort({"score": "1"}, {"score": "2e1"}), {"mine": SCORE})


def test_a_missing_column_names_the_nearest() -> None:
    rows = cohort({"survival_tyme": "1", "event": "1"})
    task = SurvivalTask(type="survival", time="survival_time", event="event")
    message = refused(rows, task)
    assert "task `mine`: no column `survival_time`; did you mean `survival_tyme`?" in message


def test_targets_may_be_named_by_a_pattern() -> None:
    genes = RegressionTask(type="regression", targets=["GENE_*", "age"])
    rows = cohort(*({"GENE_B": str(i), "age": str(9 + i), "GENE_A": str(2 * i)} for i in range(3)))
    check_labels(rows, {"mine": genes})
    assert summary(rows, genes).columns == ["GENE_B", "GENE_A", "age"]
    none = RegressionTask(type="regression", targets=["gene_*"])
    assert "task `mine`: no column `gene_*`" in refused(rows, none)
    rows[1].labels["GENE_A"] = "many"
    assert "column `GENE_A`" in refused(rows, genes)


def test_slides_of_a_case_agree() -> None:
    rows = cohort(
        {"subtype": "a"},
        {"subtype": "b"},
        {"subtype": ""},
        {"subtype": "c"},
        cases=["x"] * 3 + ["y"],
    )
    message = refused(rows, SUBTYPE)
    assert "case `x` has different values in column `subtype`: 'a' (row 2), 'b' (row 3)" in message
    same = cohort(
        {"score": "12"}, {"score": "12.0"}, {"score": ""}, {"score": "3"}, cases=list("xxxy")
    )
    check_labels(same, {"mine": SCORE})
    assert [c.values["score"] for c in case_labels(same, ["score"])] == ["12", "3"]


@pytest.mark.parametrize("time", ["0", "-4", "soon", "inf", "1_0"])
def test_times_are_above_zero(time: str) -> None:
    message = refused(survival(("3", "1"), (time, "0"), ("5", "1")), SURVIVAL)
    what = "number" if time in ("soon", "inf", "1_0") else "time"
    assert f"column `time`: 1 case without a {what}" in message
    assert f"{time!r} (row 3, case `c1`)" in message
    assert "c0" not in message


@pytest.mark.parametrize("event", ["2", "-1", "dead", "True", "0.5"])
def test_events_are_zero_or_one(event: str) -> None:
    message = refused(survival(("3", "1"), ("4", event)), SURVIVAL)
    assert "column `event`: 1 case with" in message
    assert f"{event!r} (row 3, case `c1`)" in message


def test_a_case_without_one_of_the_values_is_left_out_and_counted() -> None:
    rows = survival(("3", "1"), ("4", ""), ("5", "1"), ("", "0"), ("6", "0"))
    check_labels(rows, {"mine": SURVIVAL})
    (line,) = told(rows, {"mine": SURVIVAL})
    assert "3 cases, 2 events" in line
    assert "1 left out (no value in column `event`), 1 left out (no value in column `time`)" in line


def test_all_findings_of_all_tasks_in_one_message() -> None:
    rows = cohort(
        {"time": "-1", "event": "7", "score": "high"}, {"time": "2", "event": "1", "score": "1"}
    )
    with pytest.raises(SheetError) as caught:
        check_labels(rows, {"a": SURVIVAL, "b": SCORE, "c": SUBTYPE})
    message = str(caught.value)
    assert "4 problem(s)" in message
    assert all(part in message for part in ("'-1'", "'7'", "'high'", "no column `subtype`"))


def test_there_must_be_something_to_learn() -> None:
    assert "all are censored" in refused(survival(("1", "0"), ("2", "0")), SURVIVAL)
    assert "two classes" in refused(cohort({"subtype": "a"}, {"subtype": "a"}), SUBTYPE)
    assert "same value" in refused(cohort({"score": "1"}, {"score": "1.0"}), SCORE)
    assert "0 case(s) with a label" in refused(cohort({"score": ""}, {"score": ""}), SCORE)


def test_folds_need_cases_events_and_classes() -> None:
    rows = survival(("1", "1"), ("2", "0"), ("3", "1"), ("4", "1"))
    check_labels(rows, {"mine": SURVIVAL}, folds=3)
    assert "3 events for 4 folds" in refused(rows, SURVIVAL, folds=4)
    assert "5 folds need at least 5" in refused(rows, SURVIVAL, folds=5)
    rows = cohort(*({"subtype": s} for s in "aaabb"))
    check_labels(rows, {"mine": SUBTYPE}, folds=2)
    assert "2 cases of class 'b' for 3 folds" in refused(rows, SUBTYPE, folds=3)


def test_classes_that_are_given_are_the_only_ones() -> None:
    task = ClassificationTask(type="classification", label="subtype", classes=["ductal", "lobular"])
    rows = cohort({"subtype": "ductal"}, {"subtype": "lobulr"}, {"subtype": "lobular"})
    message = refused(rows, task)
    assert "1 case with a value that is not one of `classes` (ductal, lobular): 'lobulr'" in message
    assert "did you mean `lobular`?" in message


def test_long_lists_are_cut() -> None:
    message = refused(survival(*[("0", "1")] * 60), SURVIVAL)
    assert "60 cases without a time above 0 in months: '0' (row 2, case `c0`)" in message
    assert "and 57 more; correct" in message
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize(
    "typed",
    [("LUAD", "luad", "LUSC"), ("0", "1", "1.0"), ("grade 1", "grade1", "x"),
     ("T1", "\uff341", "T2"), ("non-small", "Non small", "x"), ("01", "1", "2")],
)  # fmt: skip
def test_classes_that_differ_only_in_how_they_are_written(typed: tuple[str, ...]) -> None:
    rows = cohort(*({"subtype": s} for s in typed * 4))
    message = refused(rows, SUBTYPE)
    assert "differ only in how they are written" in message and "(4 cases)" in message
    named = ClassificationTask(type="classification", label="subtype", classes=sorted(typed))
    check_labels(rows, {"mine": named})


def test_classes_that_look_alike_and_are_not() -> None:
    for classes in (["ER+", "ER-"], ["T1-2", "T12"], ["1", "10"], ["a", "b"]):
        check_labels(cohort(*({"subtype": s} for s in classes * 3)), {"mine": SUBTYPE})


def test_a_class_may_not_be_called_by_a_word_for_nothing() -> None:
    task = ClassificationTask(type="classification", label="subtype", classes=["a", "Unknown"])
    assert "means no value" in refused(cohort({"subtype": "a"}, {"subtype": ""}), task)


@pytest.mark.parametrize(
    ("texts", "cause"),
    [
        (("1,5", "2,5"), "decimal comma"),
        (("1,234", "2,345.5"), "thousands"),
        (("TRUE", "FALSE"), "yes or no in words"),
        (("1:DECEASED", "0:LIVING"), "cBioPortal"),
        (("yes", "no"), "yes or no in words"),
        (("Dead", "Alive"), "status in words"),
        (("2019-01-02", "02.01.2019"), "date"),
        (("12 months", "3 mo"), "unit"),
        ((">60", "<1"), "limit"),
    ],
)
def test_a_column_without_numbers_is_one_message_with_its_cause(
    texts: tuple[str, str], cause: str
) -> None:
    message = refused(survival(*[(t, "1") for t in texts * 10]), SURVIVAL)
    assert "1 problem(s)" in message and cause in message
    assert "20 cases" in message and "and 17 more" in message


def test_events_one_and_two() -> None:
    message = refused(survival(*[("3", "1"), ("4", "2")] * 5), SURVIVAL)
    assert "subtract 1" in message and "5 cases" in message


def test_censoring_and_long_times_are_asked_about() -> None:
    task = SurvivalTask(type="survival", time="time", event="censorship")
    rows = cohort(*({"time": str(i + 1), "censorship": str(i % 2)} for i in range(8)))
    message = refused(rows, task)
    assert "does 1 stand for the event?" in message and "4 of 8 cases have (50 %)" in message
    check_labels(rows, {"mine": task}, accepted=["censorship_column"])
    rows = survival(*[(str(100 * i + 1), str(i % 2)) for i in range(12)])
    message = refused(rows, SURVIVAL)
    assert "1101 months" in message and "cohort.accept: [long_times]" in message
    check_labels(rows, {"mine": SURVIVAL}, accepted=["long_times"])
    days = SURVIVAL.model_copy(update={"unit": "days"})
    check_labels(rows, {"mine": days})


def test_what_will_be_learned_from_is_told() -> None:
    rows = survival(("1.5", "1"), ("2", "0"), ("30", "1"), ("4", "0"), ("", ""))
    assert told(rows, {"os": SURVIVAL}) == [
        "task os: 4 cases, 2 events (50 %), times 1.5 to 30 months, "
        "1 left out (no value in column `time`)"
    ]
    rows = cohort(*({"subtype": s, "score": str(i)} for i, s in enumerate("abb")))
    assert told(rows, {"t": SUBTYPE, "r": SCORE}) == [
        "task t: 3 cases, a 1, b 2",
        "task r: 3 cases, score 0 to 2",
    ]
