"""A task's result in a sentence, with what it allows to conclude."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from pipeline.config.models import ShazamV2Model
from pipeline.config.training import TrainingConfig
from pipeline.contracts.evaluation_summary import BestSingle
from pipeline.report.evaluated import Evaluation
from pipeline.report.results import ModelInfo
from pipeline.report.tables import metrics
from pipeline.report.tables.cells import fixed, interval, p_text, plural, signed

MORE_CASES = (
    " The comparison is not on equal terms: the student's probes also learn from the validation "
    "cases, which other models use for early stopping only (refit: true)."
)


@dataclasses.dataclass(frozen=True)
class Headline:
    """A task's result.

    Attributes:
        sentence: the student, the best single teacher, the difference, the oracle.
        short: what the difference and the student's own interval allow to say.
        choice: how the teacher was chosen.
    """

    sentence: Markup
    short: str
    choice: str


def cases_of(opened: Evaluation) -> str:
    """`52 cases (33 events)`."""
    row = opened.row(opened.order[0])
    events = row["n_events"]
    suffix = f" ({plural(int(events), 'event')})" if pd.notna(events) and events else ""
    return plural(int(row["n"]), "case") + suffix


def has_more_cases(training: TrainingConfig, student: str) -> bool:
    """Whether the student also fits its probes to the validation cases."""
    model = training.models.get(student)
    return (
        isinstance(model, ShazamV2Model)
        and model.refit
        and model.fallback != "off"
        and not model.faithful
        and training.nested is None
    )


def headline(
    opened: Evaluation, infos: Mapping[str, ModelInfo], validation: bool, more_cases: bool
) -> Headline:
    """The student, the best single teacher, their paired difference, and the oracle if known.

    Args:
        validation: whether the numbers are validation results, and to be called that.
        more_cases: what `has_more_cases` says.
    """
    student, metric = opened.order[0], metrics.describe(opened.primary)
    row = opened.row(student)
    sentence = Markup(
        'The student <b>{}</b> reaches {} <b class="value-own">{}</b> {} on {}'
    ).format(
        infos[student].label,
        f"validation {metric.label}" if validation else metric.label,
        fixed(row["value"]),
        interval(row["low"], row["high"]),
        cases_of(opened),
    )
    short = choice = ""
    singles = opened.summary.best_single
    if singles:
        best = singles.on_test
        sentence += Markup("; the best single teacher, <b>{}</b>, {} {}").format(
            infos[best.model].label, fixed(best.value), interval(best.low, best.high)
        )
        pair = best.comparison
        if pair:
            sentence += Markup("; difference <b>{}</b> {}, {}").format(
                signed(pair["difference"]),
                interval(pair["low"], pair["high"], signs=True),
                p_text(pair["p_value"]),
            )
            short = _verdict(pair, metric.higher) + (MORE_CASES if more_cases else "")
        choice = _choice(singles, infos)
    short = " ".join(part for part in (short, _humbled(row, metric)) if part)
    if opened.primary in opened.oracle:
        sentence += Markup(
            "; an oracle that knows the true state behind the drawn slides reaches {}"
        ).format(fixed(opened.oracle[opened.primary]))
    return Headline(sentence + Markup("."), short, choice)


def _humbled(row: Mapping[str, Any], metric: metrics.Metric) -> str:
    """What has to be said of a student that chance could have made, however others fare."""
    if metric.chance is None or pd.isna(row["low"]) or row["low"] > metric.chance:
        return ""
    return (
        f"The student's own interval includes {fixed(metric.chance)}, the value of a guess: this "
        "cohort does not show that it predicts anything."
    )


def _verdict(pair: Mapping[str, Any], higher: bool) -> str:
    """What the paired interval allows to say."""
    if pair["low"] is None or pair["high"] is None:
        return ""
    if pair["low"] <= 0 <= pair["high"]:
        return (
            "The interval of the difference includes zero: this cohort does not show a difference."
        )
    which = "better" if (pair["low"] > 0) == higher else "worse"
    return f"The interval of the difference excludes zero: the student is {which} here."


def _choice(best: BestSingle, infos: Mapping[str, ModelInfo]) -> str:
    """How the best teacher was found, and whether validation would have named the same."""
    chosen, honest = best.on_test, best.on_validation
    note = "That teacher was chosen by its test result, which favours it; "
    if honest.model == chosen.model:
        return note + "validation alone would have chosen the same."
    found = f"validation alone would have chosen {infos[honest.model].label}"
    pair = honest.comparison
    if not pair:
        return f"{note}{found}."
    return (
        f"{note}{found}, to which the difference is {signed(pair['difference'])} "
        f"{interval(pair['low'], pair['high'], signs=True)}."
    )
