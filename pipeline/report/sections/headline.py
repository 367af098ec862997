"""A task's result in a sentence, with what it allows to conclude."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from pipeline.contracts.evaluation_summary import BestSingle
from pipeline.report.evaluated import Evaluation
from pipeline.report.results import ModelInfo
from pipeline.report.tables import metrics
from pipeline.report.tables.cells import fixed, interval, p_text, plural, signed

VERDICTS = {
    "better": "The student is better: what another training and other cases would change does "
    "not undo the difference.",
    "worse": "The student is worse: what another training and other cases would change does not "
    "undo the difference.",
    "open": "This cohort does not show that either is better.",
    "untested": "Whether either is better is not tested: one split trains each model once, and "
    "what another training would change cannot be seen.",
}
BEYOND = {
    "better": "The slides say more than these covariates.",
    "worse": "The student makes these covariates worse.",
    "open": "This cohort does not show that the slides say more than these covariates.",
    "untested": "Whether the slides say more than these covariates is not tested.",
}


@dataclasses.dataclass(frozen=True)
class Headline:
    """A task's result.

    Attributes:
        sentence: the student, its strongest rival, the difference, the oracle.
        short: what the tests and the student's own interval allow to say.
        choice: the best single teacher, as validation and as the test would choose it.
    """

    sentence: Markup
    short: str
    choice: str


def cases_of(opened: Evaluation) -> str:
    """`52 cases (33 events)`."""
    row = opened.row(opened.student)
    events = row["n_events"]
    suffix = f" ({plural(int(events), 'event')})" if pd.notna(events) and events else ""
    return plural(int(row["n"]), "case") + suffix


def headline(opened: Evaluation, infos: Mapping[str, ModelInfo], validation: bool) -> Headline:
    """The student, the strongest of all other models, their difference, and the oracle if known.

    Args:
        opened: the task's evaluation.
        infos: model → its label and colour.
        validation: whether the numbers are validation results, and to be called that.
    """
    metric, row = metrics.describe(opened.primary), opened.row(opened.student)
    sentence = Markup(
        'The student <b>{}</b> reaches {} <b class="value-own">{}</b> {} on {}'
    ).format(
        infos[opened.student].label,
        f"validation {metric.label}" if validation else metric.label,
        fixed(row["value"]),
        interval(row["low"], row["high"]),
        cases_of(opened),
    )
    pairs = {name: opened.comparison(name) for name in opened.order}
    said = []
    for rival, pair in pairs.items():
        if pair is None:
            continue
        other = opened.row(rival)
        sentence += Markup("; its strongest rival, <b>{}</b>, {} {}").format(
            infos[rival].label, fixed(other["value"]), interval(other["low"], other["high"])
        )
        sentence += Markup("; difference <b>{}</b> {}, {} (Holm), {} over folds").format(
            signed(pair["difference"]),
            interval(pair["low"], pair["high"], signs=True),
            p_text(pair["p_holm"]),
            p_text(pair["p_folds"]),
        )
        said.append(VERDICTS[pair["verdict"]])
        break
    said.append(_against_all([str(pair["verdict"]) for pair in pairs.values() if pair]))
    said.append(_humbled(row, metric))
    said.append(beyond_covariates(opened, infos))
    singles = opened.summary.best_single
    choice = _choice(singles, infos) if singles else ""
    short = " ".join(part for part in said if part)
    if opened.primary in opened.oracle:
        sentence += Markup(
            "; an oracle that knows the true state behind the drawn slides reaches {}"
        ).format(fixed(opened.oracle[opened.primary]))
    return Headline(sentence + Markup("."), short, choice)


def beyond_covariates(opened: Evaluation, infos: Mapping[str, ModelInfo]) -> str:
    """What the slides say beyond the covariates, in two sentences; '' where there are none."""
    if opened.beyond is None:
        return ""
    metric, row = metrics.describe(opened.primary), opened.beyond
    ratio = ""
    if pd.notna(row["likelihood_ratio"]):
        ratio = (
            f"; likelihood ratio {fixed(row['likelihood_ratio'], 1)}, "
            f"{p_text(row['p_likelihood'])}, with the trained models as given"
        )
    return (
        f"{infos[str(row['other'])].label} reaches {metric.label} {fixed(row['other_value'])}, "
        f"with the student {fixed(row['with_value'])}: difference {signed(row['difference'])} "
        f"{interval(row['low'], row['high'], signs=True)}, {p_text(row['p_value'])}{ratio}. "
        f"{BEYOND[row['verdict']]}"
    )


def _humbled(row: Mapping[str, Any], metric: metrics.Metric) -> str:
    """What has to be said of a student that chance could have made, however others fare."""
    if metric.chance is None or pd.isna(row["low"]) or row["low"] > metric.chance:
        return ""
    return (
        f"The student's own interval includes {fixed(metric.chance)}, the value of a guess: this "
        "cohort does not show that it predicts anything."
    )


def _against_all(verdicts: list[str]) -> str:
    """How many of the other models the student is shown to be better and worse than."""
    if len(verdicts) < 2 or set(verdicts) == {"untested"}:
        return ""
    return (
        f"Of {len(verdicts)} other models it is shown to be better than "
        f"{verdicts.count('better')} and worse than {verdicts.count('worse')}."
    )


def _choice(best: BestSingle, infos: Mapping[str, ModelInfo]) -> str:
    """The student against the single teacher that validation chose, and whether the test would."""
    chosen, flattered = best.on_validation, best.on_test
    said = (
        f"The best single teacher, chosen on validation, is {infos[chosen.model].label} with "
        f"{fixed(chosen.value)} {interval(chosen.low, chosen.high)}"
    )
    pair = chosen.comparison
    if pair:
        said += (
            f", to which the difference is {signed(pair['difference'])} "
            f"{interval(pair['low'], pair['high'], signs=True)}, {p_text(pair['p_holm'])} (Holm)"
        )
    if flattered.model == chosen.model:
        return said + "; its test result would have chosen the same."
    return (
        f"{said}; its test result would have chosen {infos[flattered.model].label}, which such a "
        f"choice flatters."
    )
