"""What the best predictor of the hidden state reaches on the embedded cohort's tasks.

No model that sees only pixels can be expected to do better: it would have to know the noise that
was added after the state. The report shows students between chance and these numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.cohort.labels import columns_of
from pipeline.cohort.synthetic.hidden_states import SUBTYPES, HiddenCase


def oracle(cases: Sequence[HiddenCase], tasks: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Metric values by task, for the tasks that predict the cohort's own labels.

    Args:
        cases: the hidden truth.
        tasks: name -> task config; one of other columns is left out.
    """
    return {
        name: _MEASURES[tuple(columns_of(task))](cases)
        for name, task in tasks.items()
        if tuple(columns_of(task)) in _MEASURES
    }


def concordance(time: Sequence[float], event: Sequence[int], risk: Sequence[float]) -> float:
    """Harrell's C-index (JAMA 1982): of the pairs whose order is known, the share ranked right.

    A pair is known when the earlier time is an event, or when times are equal and one of the two is
    an event. Equal risks count one half.

    Args:
        time, event, risk: one value a case; higher risk means an earlier event.

    Returns:
        The index, or NaN where no pair is known.
    """
    import numpy as np

    t, d, r = (np.asarray(x, float) for x in (time, event, risk))
    earlier = (t[:, None] < t) | ((t[:, None] == t) & (d == 0))
    known = earlier & (d[:, None] == 1)
    right = (r[:, None] > r) + 0.5 * (r[:, None] == r)
    return float(right[known].mean()) if known.any() else float("nan")


def _survival(cases: Sequence[HiddenCase]) -> dict[str, float]:
    hazards = [c.log_hazard for c in cases]
    times, events = [c.time for c in cases], [c.event for c in cases]
    return {"c_index": concordance(times, events, hazards)}


def _subtype(cases: Sequence[HiddenCase]) -> dict[str, float]:
    import numpy as np
    from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

    labels = np.array([c.subtype for c in cases])
    probabilities = np.array([c.subtype_probabilities for c in cases])
    best = np.array(SUBTYPES)[probabilities.argmax(axis=1)]
    present = [k for k, name in enumerate(SUBTYPES) if name in labels]
    areas = [roc_auc_score(labels == SUBTYPES[k], probabilities[:, k]) for k in present]
    return {
        "auc": float(np.mean(areas)),
        "balanced_accuracy": float(balanced_accuracy_score(labels, best)),
        "f1": float(f1_score(labels, best, average="macro")),
    }


def _score(cases: Sequence[HiddenCase]) -> dict[str, float]:
    import numpy as np

    true = np.array([c.score for c in cases])
    expected = np.array([c.expected_score for c in cases])
    explained = 1 - ((true - expected) ** 2).sum() / ((true - true.mean()) ** 2).sum()
    return {"pearson": float(np.corrcoef(true, expected)[0, 1]), "r2": float(explained)}


_MEASURES: dict[tuple[str, ...], Callable[[Sequence[HiddenCase]], dict[str, float]]] = {
    ("time", "event"): _survival,
    ("subtype",): _subtype,
    ("score",): _score,
}
