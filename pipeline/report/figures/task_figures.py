"""From the evaluation's points to the figures of a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config.tasks import SurvivalTask
from pipeline.report.evaluated import Evaluation
from pipeline.report.figures import curves, style
from pipeline.report.figures.charts import Drawing
from pipeline.report.figures.curves import Line, Panel, SurvivalGroup, SurvivalPanel
from pipeline.report.results import ModelInfo, Results
from pipeline.report.tables.cells import fixed, interval, p_text

SHOWN = 3  # models next to one another
PANELS = 9  # classes, times or targets
FEW = 3  # targets that are drawn for other models than the student


def drawings(
    results: Results,
    opened: Evaluation,
    infos: Mapping[str, ModelInfo],
    models: Sequence[str],
) -> tuple[Drawing, ...]:
    """The figures that a task's kind calls for, of the student and the best of the others.

    Args:
        results: the opened results.
        opened: the task's evaluation.
        infos: model → its label and colour.
        models: names, in the order of the page.
    """
    shown = compared(infos, models)
    spec = results.config.tasks[opened.task]
    if isinstance(spec, SurvivalTask):
        made = [
            _kaplan_meier(opened, infos, shown, spec.unit),
            _survival_calibration(opened, infos, shown, spec.unit),
        ]
    elif spec.type == "classification":
        made = [
            _roc(opened, infos, shown),
            _precision_recall(opened, infos, shown),
            _confusion(opened, infos, shown),
            _calibration(opened, infos, shown),
            _decision(opened, infos, shown),
        ]
    else:
        made = [_scatter(opened, infos, shown)]
    source = (f"evaluation/{opened.task}/curves.json",)
    return tuple(dataclasses.replace(d, source=source) for d in made if d is not None)


def compared(infos: Mapping[str, ModelInfo], models: Sequence[str]) -> list[str]:
    """The student, the best single teacher and the best fusion, as far as there are such."""
    chosen = []
    for roles in (("student",), ("single",), ("fusion", "average")):
        chosen += [m for m in models if infos[m].role in roles][:1]
    return chosen[:SHOWN]


def _kaplan_meier(
    opened: Evaluation, infos: Mapping[str, ModelInfo], shown: Sequence[str], unit: str
) -> Drawing | None:
    panels = []
    for model in shown:
        found = opened.curves.get("kaplan_meier", {}).get(model)
        if found:
            groups = [SurvivalGroup(**group) for group in found["groups"]]
            panels.append(SurvivalPanel(infos[model].label, groups, found["ticks"], _test(found)))
    if not panels:
        return None
    return curves.kaplan_meier(
        f"{opened.task}-kaplan-meier",
        "Survival of the predicted risk groups",
        panels,
        unit,
    )


def _test(found: Mapping[str, Any]) -> str:
    """The log-rank test and the hazard ratio, a line each; what is undefined is left out."""
    parts = []
    if found["logrank_p"] is not None:
        parts.append(f"log-rank {p_text(found['logrank_p'])}")
    ratio = found["hazard_ratio"]
    if ratio:
        parts.append(f"HR {fixed(ratio['value'], 2)} {interval(ratio['low'], ratio['high'], 2)}")
    return "\n".join(parts)


def _survival_calibration(
    opened: Evaluation, infos: Mapping[str, ModelInfo], shown: Sequence[str], unit: str
) -> Drawing | None:
    return _squares(
        opened, infos, shown, "calibration", "points", ("predicted", "observed"),
        ("predicted survival", "observed survival"),
        "Calibration of the predicted survival",
        "Points are groups of cases with similar predictions, one time per panel, with the "
        "Kaplan–Meier interval of the observed survival: below the diagonal a model is too "
        "hopeful.",
        unit=unit,
    )  # fmt: skip


def _roc(
    opened: Evaluation, infos: Mapping[str, ModelInfo], shown: Sequence[str]
) -> Drawing | None:
    return _squares(
        opened, infos, shown, "roc", "line", ("fpr", "tpr"),
        ("false positive rate", "true positive rate"),
        "ROC curves per class, against the rest",
        "A curve that hugs the upper left corner finds most cases of the class at few false "
        "positives; the dashed diagonal is chance, the number the area beneath.",
    )  # fmt: skip


def _precision_recall(
    opened: Evaluation, infos: Mapping[str, ModelInfo], shown: Sequence[str]
) -> Drawing | None:
    """Precision over recall, with the class's share as the line of chance."""
    found = opened.curves.get("precision_recall", {})
    shares = {name: one["share"] for model in shown for name, one in found.get(model, {}).items()}
    panels = []
    for name, lines in _by_class(opened, infos, shown, "precision_recall", ("recall", "precision")):
        share = shares[name]
        chance = Line("share of the class", style.REFERENCE, (0, 1), (share, share), True)
        panels.append(Panel(name, [*lines, chance], "recall", "precision"))
    if not panels:
        return None
    return curves.unit_squares(
        f"{opened.task}-precision-recall",
        "Precision and recall per class",
        "Among the cases that a threshold calls the class, how many are; over how many of the "
        "class it finds. Guessing reaches the dashed line.",
        panels,
        "steps",
    )


def _calibration(
    opened: Evaluation, infos: Mapping[str, ModelInfo], shown: Sequence[str]
) -> Drawing | None:
    return _squares(
        opened, infos, shown, "calibration", "points", ("predicted", "observed"),
        ("predicted probability", "observed share"),
        "Calibration per class",
        "Points are groups of cases with similar predictions, with the interval of the observed "
        "share: on "
        "the diagonal a predicted 70 % is right in 70 %; below it the model is too sure.",
    )  # fmt: skip


def _squares(
    opened: Evaluation,
    infos: Mapping[str, ModelInfo],
    shown: Sequence[str],
    kind: str,
    marks: str,
    keys: tuple[str, str],
    labels: tuple[str, str],
    title: str,
    read: str,
    unit: str = "",
) -> Drawing | None:
    """One panel per class, or per time in `unit`; one line per model; None where there are no such
    points."""
    found = _by_class(opened, infos, shown, kind, keys)
    if unit:
        found = [(f"at {_time(one):g} {unit}", one[1]) for one in sorted(found, key=_time)]
    panels = [Panel(name, lines, *labels) for name, lines in found]
    if not panels:
        return None
    return curves.unit_squares(f"{opened.task}-{kind}", title, read, panels, marks)


def _by_class(
    opened: Evaluation,
    infos: Mapping[str, ModelInfo],
    shown: Sequence[str],
    kind: str,
    keys: tuple[str, str],
) -> list[tuple[str, list[Line]]]:
    """Class (or time) -> one line per model that has points of it."""
    found = opened.curves.get(kind, {})
    panels: dict[str, list[Line]] = {}
    for model in shown:
        for name, one in found.get(model, {}).items():
            area = f" {fixed(one['auc'], 2)}" if "auc" in one else ""
            panels.setdefault(name, []).append(
                Line(
                    label=infos[model].label + area,
                    colour=infos[model].colour,
                    x=one[keys[0]],
                    y=one[keys[1]],
                    low=one.get("low", ()),
                    high=one.get("high", ()),
                )
            )
    return list(panels.items())[:PANELS]


def _time(panel: tuple[str, list[Line]]) -> float:
    """The time in a survival panel's name, `t = 7.05`."""
    return float(panel[0].removeprefix("t = "))


def _decision(
    opened: Evaluation, infos: Mapping[str, ModelInfo], shown: Sequence[str]
) -> Drawing | None:
    found = opened.curves.get("decision", {}).get(shown[0], {})
    panels = []
    for name, lines in _by_class(opened, infos, shown, "decision", ("threshold", "net_benefit")):
        everyone = found.get(name)
        if everyone:
            all_of_them = Line(
                "act on all", style.REFERENCE, everyone["threshold"], everyone["treat_all"], True
            )
            lines = [*lines, all_of_them]
        panels.append(Panel(name, lines, "threshold probability", "net benefit"))
    return curves.decision(f"{opened.task}-decision", panels) if panels else None


def _confusion(
    opened: Evaluation, infos: Mapping[str, ModelInfo], shown: Sequence[str]
) -> Drawing | None:
    found = opened.curves.get("confusion", {})
    panels = [
        (infos[model].label, found[model]["classes"], found[model]["counts"])
        for model in shown
        if model in found
    ]
    return curves.confusion(f"{opened.task}-confusion", panels) if panels else None


def _scatter(
    opened: Evaluation, infos: Mapping[str, ModelInfo], shown: Sequence[str]
) -> Drawing | None:
    """Targets from the student's best to its worst; of more than a few the student's alone."""
    found = opened.curves.get("scatter", {})
    own = found.get(shown[0], {})
    r = {t: -1.0 if one["pearson"] is None else float(one["pearson"]) for t, one in own.items()}
    order = sorted(own, key=lambda target: -r[target])
    panels = []
    for model in shown if len(order) <= FEW else shown[:1]:
        for target in order:
            one = found.get(model, {}).get(target)
            if one is None:
                continue
            note = f"R² {fixed(one.get('r2'), 2)}\nr {fixed(one.get('pearson'), 2)}"
            title = f"{infos[model].label}: {target}"
            panels.append(
                (title, Line(target, infos[model].colour, one["true"], one["predicted"]), note)
            )
    if not panels:
        return None
    return curves.scatter(
        f"{opened.task}-scatter",
        "Predicted against measured"
        + (", the student's best, middle and worst targets" if len(order) == PANELS else ""),
        panels[: 3 * PANELS],
    )
