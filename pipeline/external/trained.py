"""The training cohort of an external one: what is read of its results, and that the two are apart.

Standard library and the contracts alone: the workflow asks when it is parsed.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.contracts.patient import patient
from pipeline.contracts.slide_row import SlideRow
from pipeline.errors import ConfigError, SheetError

SHOWN = 5
NO_CONTENT = ("", "none", "missing", "forbidden")


def check_apart(rows: Sequence[SlideRow], identities: Mapping[str, str], trained: Path) -> None:
    """Refuse an external cohort that shares a patient or a slide with the training cohort.

    Args:
        rows: the external cohort.
        identities: slide id -> identity of its content.
        trained: results folder of the training cohort.

    Raises:
        ConfigError: the training cohort's slide table is not there.
        SheetError: they share some; names the first of them.
    """
    try:
        with (trained / "slides.csv").open(newline="") as file:
            known = list(csv.DictReader(file))
    except OSError:
        raise ConfigError(
            f"external.trained: no {trained / 'slides.csv'}; run the training cohort first"
        ) from None
    patients = {patient(row["case_id"]): row["case_id"] for row in known}
    contents = {row["identity"].partition("+")[0]: row["slide_id"] for row in known}
    shared = sorted({row.case_id for row in rows if patient(row.case_id) in patients})
    same = sorted(
        row.slide_id
        for row in rows
        if (content := identities[row.slide_id].partition("+")[0]) in contents
        and content not in NO_CONTENT
    )
    problems = []
    if shared:
        pairs = [f"{case} (there {patients[patient(case)]})" for case in shared[:SHOWN]]
        problems.append(f"{len(shared)} case(s) are in the training cohort: {_some(pairs, shared)}")
    if same:
        problems.append(
            f"{len(same)} slide(s) have the content of a slide of the training cohort: "
            f"{_some(same[:SHOWN], same)}"
        )
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise SheetError(
            "the external cohort is not apart from the one that the models were trained on "
            f"({trained}); take these out of its sheet:\n{lines}"
        )


def _some(shown: Sequence[str], of: Sequence[str]) -> str:
    more = f" and {len(of) - len(shown)} more" if len(of) > len(shown) else ""
    return f"{', '.join(shown)}{more}"
