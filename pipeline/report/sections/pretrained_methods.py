"""Part of the section on pre-training: every encoder by every measure, with its controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config.models import SingleModel
from pipeline.config.pretraining import PretrainingConfig
from pipeline.config.probing import ProbingConfig
from pipeline.contracts.tile_probes import TeacherProbes, read_teacher_probes
from pipeline.report.evaluated import Evaluation, read_evaluation
from pipeline.report.results import Results
from pipeline.report.sections import probes
from pipeline.report.tables import metrics
from pipeline.report.tables.cells import Cell, Column, Table, estimate, text

# Of the linear and the larger k-NN probe balanced accuracy, of the nearest tile F1, as published.
METRIC_OF = {"knn_1": "f1"}


def table(results: Results) -> Table | None:
    """A row for each encoder that was pre-trained, then as they started, then the other teachers.

    None where neither tiles nor models of slides say anything of a pre-trained encoder.
    """
    shown = _rows(results)
    columns = {**_of_tiles(results, shown), **_of_slides(results, shown)}
    if not any(set(of) & set(shown) for of in columns.values()):
        return None
    nothing = estimate(None, None, None)
    return Table(
        caption="Pre-training by method, measured by tiles and by slides",
        columns=[
            Column("encoder"),
            Column("method"),
            *(Column(heading, True, hint) for heading, hint in columns),
        ],
        rows=[
            [text(name), text(method), *(of.get(name, nothing) for of in columns.values())]
            for name, method in shown.items()
        ],
        read="Rows without a method did not learn here: `_untrained` is an encoder as it starts, "
        "the others are teachers that the config names. All numbers are of cases that neither "
        "probe nor model has learned from, with intervals over cases; these are of each encoder by "
        "itself, so that two may overlap and the encoders still differ.",
        source=("probing/", "evaluation/"),
    )


def _rows(results: Results) -> dict[str, str]:
    """Encoder, as models call it -> its method; '' of one that did not learn here."""
    config = results.config.section(PretrainingConfig)
    assert config is not None
    made = [one for one in results.config.made() if one.stage == "pretraining"]
    learned = {one.teacher: config.teachers[one.student].method for one in made if not one.control}
    others = [*(one.teacher for one in made if one.control), *results.config.extraction.teachers]
    return learned | dict.fromkeys(others, "")


Columns = dict[tuple[str, str], dict[str, Cell]]


def _of_tiles(results: Results, shown: Mapping[str, str]) -> Columns:
    """(heading, hint) -> encoder -> what a probe of its tiles reaches."""
    if results.config.section(ProbingConfig) is None:
        return {}
    probed = {one.name for one in results.config.made() if not one.task}
    known = [name for name in shown if name in {*probed, *results.config.extraction.teachers}]
    found: Columns = {}
    for name in known:
        facts: TeacherProbes = read_teacher_probes(results.root, name)
        for row in facts.rows:
            wanted = METRIC_OF.get(row.probe, "balanced_accuracy")
            if row.training != "all" or row.probe == "few_shot" or row.metric != wanted:
                continue
            label = probes.METRICS[row.metric]
            heading = (f"tiles: {probes.called(row.probe, 'all')}, {label}", label)
            found.setdefault(heading, {})[name] = estimate(row.value, row.low, row.high)
    return found


def _of_slides(results: Results, shown: Mapping[str, str]) -> Columns:
    """(heading, hint) -> encoder -> what a model of slides reaches that reads it alone."""
    specs: dict[str, Any] = results.config.model_specs()
    single = {
        name: spec
        for name, spec in specs.items()
        if isinstance(spec, SingleModel) and spec.teacher in shown
    }
    found: Columns = {}
    for task in results.tasks if single else ():
        opened: Evaluation = read_evaluation(results.root, task, results.config.evaluation.student)
        metric = metrics.describe(opened.primary)
        for name, spec in single.items():
            row = opened.row(name)
            if row:
                heading = (f"{task}: {spec.aggregator}, {metric.label}", metric.hint)
                cell = estimate(row["value"], row["low"], row["high"])
                found.setdefault(heading, {}).setdefault(spec.teacher, cell)
    return found
