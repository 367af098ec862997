"""Part of section 3: how well each teacher's tiles tell tissue classes apart."""

from __future__ import annotations

import dataclasses

from pipeline.config.probing import ProbingConfig
from pipeline.contracts.tile_probes import GAINS, TeacherProbes, read_gains, read_teacher_probes
from pipeline.report.results import Results
from pipeline.report.tables.cells import Column, Table, count, estimate, number, plural, text

NAMES = {
    "logistic": "logistic regression",
    "sgd": "linear, SGD ensemble",
    "few_shot": "few-shot",
}


@dataclasses.dataclass(frozen=True)
class ProbesSection:
    """Tables, or why there are none.

    Attributes:
        summary: one row per teacher; None without results.
        details: for each teacher, all that was measured.
        absent: teachers that could not be probed, with the reason, as sentences.
    """

    summary: Table | None
    details: list[Table]
    absent: list[str]


def section(results: Results) -> ProbesSection | None:
    """Build the part; None where the run has no probing."""
    if results.config.section(ProbingConfig) is None:
        return None
    found = {teacher: read_teacher_probes(results.root, teacher) for teacher in _probed(results)}
    measured = {teacher: facts for teacher, facts in found.items() if facts.rows}
    return ProbesSection(
        summary=_summary(measured) if measured else None,
        details=[_details(teacher, facts) for teacher, facts in measured.items()],
        absent=[f"{t}: {facts.reason}." for t, facts in found.items() if facts.reason],
    )


def _probed(results: Results) -> list[str]:
    """The teachers, then the encoders that are made here, each before its control; those of a fold
    are not probed, since their slides are not the same."""
    made = [one.name for one in results.config.made() if not one.task]
    return [*results.config.extraction.teachers, *made]


def _summary(measured: dict[str, TeacherProbes]) -> Table:
    """Balanced accuracy of every probe that was trained on all tiles, and of the few-shot ones."""
    kinds = [
        (row.probe, row.training)
        for row in next(iter(measured.values())).rows
        if row.metric == "balanced_accuracy" and (row.training == "all" or row.probe == "few_shot")
    ]
    rows = []
    for teacher, facts in measured.items():
        place = {(r.probe, r.training): r for r in facts.rows if r.metric == "balanced_accuracy"}
        cells = [place.get(kind) for kind in kinds]
        rows.append(
            [text(teacher)]
            + [estimate(c.value, c.low, c.high) if c else estimate(None, None, None) for c in cells]
            + [count(facts.n_tiles)]
        )
    facts = next(iter(measured.values()))
    known = facts.classes or {}
    classes = ", ".join(f"{name} {n}" for name, n in known.items())
    return Table(
        caption="Tile probes: balanced accuracy of simple classifiers on frozen features",
        columns=[
            Column("teacher"),
            *(Column(_short(*kind), True, called(*kind)) for kind in kinds),
            Column("tiles", True),
        ],
        rows=rows,
        read=f"{len(known)} classes ({classes}) on {plural(facts.n_slides or 0, 'slide')} "
        f"of {plural(facts.n_cases or 0, 'case')}; 1/{len(known)} is chance. Folds are "
        "grouped by case and intervals resample cases; n-shot learns from n tiles per class, its "
        "intervals are over draws.",
        source=("probing/",),
    )


def gains(results: Results, stage: str) -> Table | None:
    """Encoders that were made here against themselves before; None where none was compared.

    Args:
        results: the opened results.
        stage: that made them, `pretraining` or `encoder_distillation`.
    """
    if not (results.root / "probing" / GAINS).is_file():
        return None
    own = {one.name for one in results.config.made() if one.stage == stage}
    found = read_gains(results.root)
    rows = [row for row in found.rows if row.teacher in own]
    absent = "".join(f" Not compared: {t}: {why}." for t, why in found.absent.items() if t in own)
    if not rows and not absent:
        return None
    return Table(
        caption="What training gave these encoders: balanced accuracy of their tiles, and the "
        "difference to the same encoder before it was trained",
        columns=[
            Column("encoder"),
            Column("probe"),
            Column("trained", True),
            Column("before", True),
            Column("difference", True),
            Column("cases", True),
        ],
        rows=[
            [
                text(row.teacher),
                text(called(row.probe, "all")),
                number(row.value),
                number(row.before),
                estimate(row.difference, row.low, row.high),
                count(row.n_cases),
            ]
            for row in rows
        ],
        read="Folds are grouped by case; intervals resample cases, the same for both. An interval "
        "that is wholly above 0 says that the training taught it something; several probes are "
        "looked at, so that one alone may be chance." + absent,
        source=("probing/all/gains.csv",),
    )


def _details(teacher: str, facts: TeacherProbes) -> Table:
    return Table(
        caption=f"Tile probes of {teacher}, level {facts.level}",
        columns=[
            Column("probe"),
            Column("trained on"),
            Column("metric"),
            Column("value", True),
            Column("spread over folds", True),
            Column("training tiles", True),
            Column("test tiles", True),
        ],
        rows=[
            [
                text(called(row.probe, "all")),
                text(row.training),
                text(METRICS[row.metric]),
                estimate(row.value, row.low, row.high),
                number(row.fold_std),
                count(row.n_train),
                count(row.n_test),
            ]
            for row in facts.rows
        ],
        source=(f"probing/{teacher}.csv",),
    )


METRICS = {"auc": "macro AUC", "balanced_accuracy": "balanced accuracy", "f1": "macro F1"}


def _short(probe: str, training: str) -> str:
    """A column's heading; its tooltip is the full name."""
    kind, _, size = probe.partition("_")
    known = {"logistic": "logistic", "sgd": f"SGD × {size}", "knn": f"{size}-NN"}
    return known.get(kind) or f"{training.split()[0]}-shot"


def called(probe: str, training: str) -> str:
    """`knn_20` is `20 nearest neighbours`, `sgd_30` a `linear, SGD ensemble of 30`."""
    kind, _, number_ = probe.rpartition("_") if probe[-1].isdigit() else (probe, "", "")
    if kind == "knn":
        return f"{number_}-nearest neighbours" if number_ != "1" else "nearest neighbour"
    if kind == "sgd":
        return f"{NAMES['sgd']} of {number_}"
    return NAMES[kind] if training == "all" else f"{NAMES[kind]}, {training}"
