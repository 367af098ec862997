"""The columns of the tables of slides and cases, and which of them a task means."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

# Before the sheet's other columns, which cannot have these names.
SLIDE_COLUMNS = (
    *("slide_id", "case_id", "path", "mpp", "site", "mask", "coordinates"),
    *("chunk", "identity"),
)
CASE_COLUMNS = ("case_id", "site", "n_slides", "n_usable_slides", "complete")


def spelled_out(task: Any, columns: Iterable[str]) -> Any:
    """The task with its targets by name, where the config names some by a pattern.

    Args:
        task: the task; of a regression a target such as `GENE_*` stands for the columns that it
            matches (`*`, `?`, `[…]`, as in a shell).
        columns: of the sheet or of the case table, whose own columns no pattern matches.

    Returns:
        the task; targets come in the order of the columns. One that matches none stays, for the
        check of the labels to name it.
    """
    if task.type != "regression":
        return task
    known = dict.fromkeys(c for c in columns if c not in CASE_COLUMNS)
    found: dict[str, None] = {}
    for target in task.targets:
        matched = [] if target in known else [c for c in known if fnmatchcase(c, target)]
        found |= dict.fromkeys(matched or [target])
    return task.model_copy(update={"targets": list(found)})
