"""Section 1: what came in, what was used, and why the rest was not."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping

from pipeline.contracts import slide_warnings
from pipeline.contracts.folds_summary import FoldsSummary
from pipeline.report.figures import style
from pipeline.report.results import Results
from pipeline.report.tables.cells import Cell, Column, Table, code, count, plural, share, text

LEDGER_ROWS = 300
STATUSES = {
    "ok": "",
    "empty": "no tissue: not a failure",
    "failed": "could not be used; each is listed below",
    "excluded": "left out by the sheet or the config",
    "missing": "an imported teacher has no file for it",
}


@dataclasses.dataclass(frozen=True)
class Step:
    """One number of the strip at the section's head: what remains after a stage."""

    label: str
    value: int
    note: str


@dataclasses.dataclass(frozen=True)
class FlowSection:
    steps: tuple[Step, ...]
    stages: Table
    incomplete: Table | None
    warnings: Table | None
    ledger: Table | None
    planted: str
    teachers: Table


def section(results: Results, folds: Mapping[str, FoldsSummary]) -> FlowSection:
    """Build the section.

    Args:
        folds: task -> how its cases were split.
    """
    return FlowSection(
        steps=tuple(_steps(results)),
        stages=_stages(results, folds),
        incomplete=_incomplete(results),
        warnings=_warnings(results),
        ledger=_ledger(results),
        planted=_planted(results),
        teachers=_coverage(results),
    )


def _steps(results: Results) -> Iterable[Step]:
    slides, cases = results.flow.slides, results.flow.cases
    yield Step("slides came in", slides.total, f"of {plural(cases.total, 'case')}")
    if results.tiling:
        tiled = [r for r in results.tiling.values() if r.status == "ok"]
        n_tiles = sum(r.n_tiles for r in tiled)
        yield Step("slides were tiled", len(tiled), plural(n_tiles, "tile"))
    yield Step(
        "slides have features",
        slides.usable,
        f"{slides.with_all_teachers} from every teacher ({len(results.teachers)})",
    )
    yield Step("cases are complete", cases.complete, "every teacher has them")
    mode = (
        "incomplete cases are left out, so that all models use the same cases"
        if results.flow.mode == "intersection"
        else "absent teachers are masked"
    )
    yield Step("cases are used", cases.used, mode)


def _stages(results: Results, folds: Mapping[str, FoldsSummary]) -> Table:
    rows = []
    for stage in results.flow.stages:
        kinds = [f"{kind} ({n})" for kind, n in stage.kinds.items()]
        rows.append(
            [
                text(stage.stage.replace("extraction/", "features: ")),
                text("slides"),
                count(stage.came_in),
                *(count(getattr(stage, status)) for status in STATUSES),
                text(", ".join(kinds), css="prose"),
            ]
        )
    rows.append(_case_row(results))
    rows += [_fold_row(task, content) for task, content in folds.items()]
    return Table(
        caption="From the sheet to the folds",
        columns=[
            Column("stage"),
            Column("unit"),
            Column("in", True),
            *(Column(status, True, hint) for status, hint in STATUSES.items()),
            Column("reasons"),
        ],
        rows=rows,
        read="Each row shows what happened to everything that reached a stage; whatever is "
        "dropped has a row in the ledger.",
        source=("cohort_flow.json", "coverage.csv", "folds/<task>/folds.json"),
    )


def _blank(n: int) -> list[Cell]:
    return [text("") for _ in range(n)]


def _case_row(results: Results) -> list[Cell]:
    cases = results.flow.cases
    reasons = []
    if cases.total > cases.usable:
        reasons.append(f"no usable slide ({cases.total - cases.usable})")
    if cases.usable > cases.complete:
        masked = ", kept masked" if cases.used > cases.complete else ""
        reasons.append(f"a teacher is missing{masked} ({cases.usable - cases.complete})")
    return [
        text("mapping"),
        text("cases"),
        count(cases.total),
        count(cases.used),
        *_blank(2),
        count(cases.total - cases.used),
        text(""),
        text(", ".join(reasons), css="prose"),
    ]


def _fold_row(task: str, content: FoldsSummary) -> list[Cell]:
    excluded = content.excluded
    used = content.n_cases
    kinds = Counter(excluded.values())
    return [
        text(f"folds: {task}"),
        text("cases"),
        count(used + len(excluded)),
        count(used),
        *_blank(2),
        count(len(excluded)),
        text(""),
        text(", ".join(f"{reason} ({n})" for reason, n in kinds.most_common(6)), css="prose"),
    ]


def _incomplete(results: Results) -> Table | None:
    lacking = results.flow.incomplete_cases
    if not lacking:
        return None
    shown = sorted(lacking.items())[:LEDGER_ROWS]
    left = len(lacking) - len(shown)
    return Table(
        caption="Cases without some teacher",
        columns=[Column("case"), Column("teachers that lack it")],
        rows=[[code(case), text(", ".join(teachers))] for case, teachers in shown],
        read="With mapping.cases: intersection these cases stay out of every comparison; with "
        "union they take part with the absent teachers masked.",
        more=f"{plural(left, 'more case')} in cohort_flow.json." if left > 0 else "",
        source=("cohort_flow.json",),
    )


def _warnings(results: Results) -> Table | None:
    """Every kind of warning with its slides, before the ledger that lists them one by one."""
    ledger = results.ledger
    told = zip(ledger["slide_id"].astype(str), ledger["kind"], ledger["reason"], strict=True)
    groups = slide_warnings.by_kind(slide_warnings.in_ledger(told))
    if not groups:
        return None
    rows = []
    for kind, group in groups.items():
        first = "; ".join(f"{slide}: {w.text}" for slide, w in group[: slide_warnings.SHOWN])
        slides = len({slide for slide, _ in group})
        rows.append(
            [
                text(kind),
                count(slides),
                text(slide_warnings.KINDS[kind], css="prose"),
                text(first, css="prose"),
            ]
        )
    return Table(
        caption="Warnings about slides",
        columns=[
            Column("kind"),
            Column("slides", True),
            Column("what it means, and what to do"),
            Column("first examples"),
        ],
        rows=rows,
        read="These slides are used unless the ledger below says that they are not. Look at some "
        "of each kind before you trust a number.",
        source=("ledger.csv",),
    )


def _ledger(results: Results) -> Table | None:
    ledger = results.ledger
    if ledger.empty:
        return None
    order = {"failed": 0, "excluded": 1, "empty": 2, "missing": 3}
    ranked = ledger.assign(_rank=ledger["status"].map(order).fillna(4)).sort_values(
        ["_rank", "stage", "slide_id"], kind="stable"
    )
    shown = ranked.head(LEDGER_ROWS)
    rows = []
    for row in shown.itertuples():
        status = "used" if row.status == "ok" else str(row.status)
        rows.append(
            [
                code(row.slide_id),
                code(row.case_id),
                text(row.stage),
                text(status, css=f"status {row.status}"),
                text(row.kind),
                text(row.reason, css="prose"),
            ]
        )
    left = len(ranked) - len(shown)
    return Table(
        caption="The ledger: every slide that a stage could not use, or used with a warning",
        columns=[Column(c) for c in ("slide", "case", "stage", "status", "kind", "reason")],
        rows=rows,
        read="A failed slide does not stop the run; its case is used through its other slides, or "
        "leaves the comparison and is counted above.",
        more=f"{plural(left, 'more row')} in ledger.csv." if left > 0 else "",
        source=("ledger.csv",),
    )


def _planted(results: Results) -> str:
    """What the embedded cohort's generator broke on purpose, and whether the ledger found it."""
    planted = results.cohort.planted_faults
    if not planted:
        return ""
    found = set(results.ledger["slide_id"].astype(str)) & set(planted)
    faults = ", ".join(f"{slide} ({fault})" for slide, fault in sorted(planted.items()))
    return (
        f"The embedded cohort holds {plural(len(planted), 'slide')} broken on purpose: {faults}. "
        f"The ledger names {len(found)} of them."
    )


def _coverage(results: Results) -> Table:
    slides, cases = results.flow.slides.total, results.flow.cases.total
    rows = [
        [
            text(teacher),
            share(facts.slides, slides, style.SINGLE),
            share(facts.cases, cases, style.FUSION),
            count(facts.tiles),
        ]
        for teacher, facts in results.flow.teachers.items()
    ]
    return Table(
        caption="Coverage per teacher",
        columns=[
            Column("teacher"),
            Column("slides with features"),
            Column("cases"),
            Column("feature vectors", True, "tiles, or regions of imported features"),
        ],
        rows=rows,
        read="A fair comparison of models needs cases that have features of every teacher.",
        source=("coverage.csv",),
    )
