"""What each choice of the student is worth: every ablation as a difference to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.config.models import ShazamV1Model, ShazamV2Model
from pipeline.config.section import Section
from pipeline.config.whole import Config
from pipeline.report import histories
from pipeline.report.evaluated import Evaluation
from pipeline.report.results import ModelInfo, Results
from pipeline.report.sections.comparisons import TESTS
from pipeline.report.tables import metrics
from pipeline.report.tables.cells import (
    Cell,
    Column,
    Table,
    code,
    count,
    drawing,
    estimate,
    fixed,
    interval,
    number,
    p_value,
    scale_of,
    signed,
    text,
)


def table(
    results: Results, opened: Evaluation, infos: Mapping[str, ModelInfo], ablations: Sequence[str]
) -> Table | None:
    """A row an ablation, best first, after the student's own; None without ablations.

    Args:
        results: the opened results.
        opened: the task's evaluation.
        infos: model → its label and colour.
        ablations: names of the variants.
    """
    if not ablations:
        return None
    student, primary = opened.student, metrics.describe(opened.primary)
    pairs = {name: _turned(opened.comparison(name)) for name in ablations}
    ends = [pair[end] for pair in pairs.values() for end in ("difference", "low", "high")]
    scale = scale_of(ends, ((0.0, "no difference"),))
    assert scale is not None
    rows = [_student(results, opened, infos[student])]
    for name, pair in pairs.items():
        row = opened.row(name)
        value, low, high = (pair[key] for key in ("difference", "low", "high"))
        rows.append(
            [
                text(infos[name].label),
                code(changed(results.config, name)),
                estimate(row["value"], row["low"], row["high"]),
                Cell(
                    Markup('{}<span class="ci">{}</span>').format(
                        signed(value), interval(low, high, signs=True)
                    ),
                    number(value).key,
                ),
                drawing(value, low, high, scale, infos[name].colour),
                *(Cell(Markup.escape(p_value(pair[key])), number(pair[key]).key)
                  for key in ("p_value", "p_holm")),
                count(histories.facts(results.root, opened.task, name).n_parameters),
            ]
        )  # fmt: skip
    verdicts = {name: (opened.comparison(name) or {}).get("verdict") for name in ablations}
    apart = [name for name, said in verdicts.items() if said in ("better", "worse")]
    return Table(
        caption="Ablations: the student without one of its parts",
        columns=[
            Column("ablation"),
            Column("changed"),
            Column(primary.label, True, primary.hint),
            Column("difference", True, "ablation minus student, on the same cases"),
            Column("", hint=f"from {fixed(scale.low, 2)} to {fixed(scale.high, 2)}"),
            Column("p", True, TESTS["p_value"][1]),
            Column("p, Holm", True, "adjusted for the number of models, ablations among them"),
            Column("parameters", True, "trained or fitted numbers; teachers are frozen"),
        ],
        rows=rows,
        read=f"Left of the dashed line the ablation is worse than the student: the part helps. "
        f"{_verdict(apart)}",
        source=(f"evaluation/{opened.task}/comparisons.csv",),
        emphasised=frozenset({0}),
    )


def _turned(pair: Mapping[str, Any] | None) -> dict[str, float]:
    """The comparison as ablation less student."""
    keys = ("p_value", "p_holm")
    if pair is None:
        return dict.fromkeys(("difference", "low", "high", *keys), float("nan"))
    return {
        "difference": -float(pair["difference"]),
        "low": -float(pair["high"]),
        "high": -float(pair["low"]),
        **{key: float(pair.get(key, float("nan"))) for key in keys},
    }


def _student(results: Results, opened: Evaluation, info: ModelInfo) -> list[Cell]:
    row = opened.row(info.name)
    return [
        text(info.label),
        text(""),
        estimate(row["value"], row["low"], row["high"]),
        text(""),
        Cell(Markup("")),
        text(""),
        text(""),
        count(histories.facts(results.root, opened.task, info.name).n_parameters),
    ]


def _verdict(apart: Sequence[str]) -> str:
    if not apart:
        return (
            "This cohort does not show that any of them differs from the student: no adjusted "
            "p value is at most 0.05."
        )
    return f"Shown to differ from the student: {', '.join(apart)}."


def changed(config: Config, name: str) -> str:
    """How a model's config differs from the student's, as YAML would have it.

    Of another kind: the kind, and what is not that kind's default.
    """
    models = {**config.model_specs(), **config.training.models, **config.training.ablations}
    own, student = models[name], models.get(config.evaluation.student)
    if student is None or type(own) is not type(student):
        plain = type(own).model_construct(kind=own.kind)
        return ", ".join([f"kind: {own.kind}", *_different(own, plain)])
    return ", ".join(_different(own, student))


def _different(own: Section, other: Section) -> list[str]:
    found = []
    decided = own.decided() if isinstance(own, ShazamV1Model | ShazamV2Model) else {}
    for key in (key for key in type(own).model_fields if key not in decided):
        mine, theirs = getattr(own, key), getattr(other, key, None)
        if mine == theirs:
            continue
        if isinstance(mine, Section) and isinstance(theirs, Section):
            found += [f"{key}.{line}" for line in _different(mine, theirs)]
        else:
            found.append(f"{key}: {_written(mine)}")
    return found


def _written(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_written, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
