"""Part of section 3: students on single tiles and every teacher's own probes."""

from __future__ import annotations

from markupsafe import Markup

from pipeline.config.probing import ProbingConfig
from pipeline.contracts.tile_probes import Comparison, ModelRow, read_tile_students
from pipeline.report.results import Results
from pipeline.report.sections.probes import METRICS, called
from pipeline.report.tables.cells import (
    Cell,
    Column,
    Table,
    count,
    estimate,
    interval,
    number,
    p_value,
    plural,
    signed,
    text,
)

LABELS = {"shazam_v1": "Shazam v1", "shazam_v2": "Shazam v2"}
PROBES = {"student": "trained on tiles"}


def table(results: Results) -> Table | str | None:
    """One row per model and probe; the reason where there was nothing to compare; None if not asked
    for."""
    probing = results.config.section(ProbingConfig)
    if probing is None or not probing.students:
        return None
    facts = read_tile_students(results.root)
    if facts.reason:
        return f"All teachers together: {facts.reason}."
    pairs = {pair.model: pair for pair in facts.comparisons}
    found: dict[tuple[str, str], dict[str, ModelRow]] = {}
    for row in facts.rows:
        found.setdefault((row.model, row.probe), {})[row.metric] = row
    rows = []
    for (model, probe), by_metric in found.items():
        main = by_metric["balanced_accuracy"]
        against = pairs.get(model) if probe in ("student", "logistic") else None
        rows.append(
            [
                text(LABELS.get(model, model)),
                text(PROBES.get(probe) or called(probe, "all")),
                *(
                    estimate(one.value, one.low, one.high) if one else estimate(None, None, None)
                    for one in (by_metric.get(metric) for metric in METRICS)
                ),
                number(main.fold_std),
                _difference(against),
                Cell(text(p_value(against.p_value)).html if against else text("").html),
                count(main.n_parameters),
            ]
        )
    best = facts.comparisons[0].other if facts.comparisons else ""
    left = f" Left out, with tiles of another scale: {', '.join(facts.left)}." * bool(facts.left)
    return Table(
        caption="Tile classification from all teachers: students and the probes of each teacher",
        columns=[
            Column("model"),
            Column("how"),
            *(Column(label, True) for label in METRICS.values()),
            Column("over folds", True, "standard deviation of the folds' balanced accuracy"),
            Column("minus the best teacher", True, f"balanced accuracy minus that of {best} "
                   "(logistic regression), paired by case"),
            Column("p", True, "paired bootstrap over cases"),
            Column("parameters", True, "trained parameters"),
        ],
        rows=rows,
        read=f"{plural(facts.n_tiles or 0, 'tile')} of {plural(facts.n_cases or 0, 'case')} that "
        "every teacher has, one set of folds grouped by case; a student chooses its epoch on cases "
        f"held out of its training part. {best} was chosen as the best teacher by the same folds, "
        f"which favours it.{left}",
        source=("probing/all/students.csv",),
    )  # fmt: skip


def _difference(pair: Comparison | None) -> Cell:
    if pair is None:
        return text("")
    html = Markup('{}<span class="ci">{}</span>').format(
        signed(pair.difference), interval(pair.low, pair.high, signs=True)
    )
    return Cell(html, number(pair.difference).key)
