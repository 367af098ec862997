"""What the student's lead is made of: its learner, its several teachers, its distillation.

A student that beats the best single-teacher model may owe that to having another learner. So its
own learner is trained on each teacher alone, and the difference is split at the teacher for which
validation likes that model best, whatever the test says:

    student - plain model of that teacher  (`whole`)
    = own learner on that teacher - plain model of it  (`learner`)
    + student - own learner on that teacher  (`teachers`)

Next to these stand `distillation`, the student less the same without its distillation loss, and
`simple`, the student less that simple model of any number of teachers that validation likes best.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from pipeline.config.controls import Controls
from pipeline.evaluation.comparisons import adjusted, differences
from pipeline.evaluation.metrics import PRIMARY, Bench, Measured, higher_is_better
from pipeline.evaluation.pooling import Pool

COLUMNS = [
    "part", "model", "other", "teacher", "difference", "low", "high", "p_value", "p_holm",
    "verdict", "test", "n", "fold_difference", "p_folds", "higher_is_better",
]  # fmt: skip


def attribution_table(
    controls: Controls,
    student: str,
    models: Mapping[str, tuple[Pool, Measured]],
    bench: Bench,
    confidence: float,
) -> pd.DataFrame | None:
    """A row a part, by the primary metric; None where the student has no controls.

    Args:
        controls: which models they are.
        student: the student's name.
        models: every model, by name.
        bench: the evaluated cases.
        confidence: of the intervals.

    Returns:
        columns part (`whole`, `learner`, `teachers`, `distillation`, `simple`), model, other,
        teacher (the one that validation chose), difference (model less other), and the others as
        `comparisons.compare` has them, p_holm within these parts.
    """
    if not controls.alone:
        return None

    def best(names: Iterable[str]) -> str:
        """The model that validation likes best; '' of none."""
        sign = 1.0 if higher_is_better(PRIMARY[bench.task.type]) else -1.0
        liked = {name: sign * bench.validation(models[name][0]) for name in names}
        return max(
            sorted(liked), key=lambda name: np.nan_to_num(liked[name], nan=-np.inf), default=""
        )

    alone = best(controls.alone.values())
    (teacher,) = (t for t, name in controls.alone.items() if name == alone)
    plain = best(name for name, of in controls.plain.items() if of == teacher)
    pairs = {
        "whole": (student, plain),
        "learner": (alone, plain),
        "teachers": (student, alone),
        "distillation": (student, controls.without_distillation),
        "simple": (student, best(controls.simple)),
    }
    rows = []
    for part, (model, other) in pairs.items():
        if other in ("", model):
            continue
        of = differences(models[model], models[other], bench, confidence)
        rows += [
            {**row, "part": part, "model": model, "other": other, "teacher": teacher}
            for row in of
            if row["metric"] == PRIMARY[bench.task.type]
        ]
    table = adjusted(pd.DataFrame(rows))
    return table[COLUMNS] if len(table) else None
