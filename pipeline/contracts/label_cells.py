"""What a column of labels says wrongly, in one message a cause. Standard library only.

A message has the count, the first examples with their rows, what is the likely cause, and the
remedy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

SHOWN = 3

Cell = tuple[str, str]  # case id, text

# What exports write where a number is wanted -> cause, and what to do.
_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?|[+-]?\d{1,3}(\.\d{3})+(,\d+)?",
        "a separator of thousands",
        "export the table with plain numbers, such as 1234.5",
    ),
    (
        r"[+-]?\d*,\d+([eE][+-]?\d+)?",
        "a decimal comma",
        "export the table with decimal points, such as 1.5",
    ),
    (r"(?i:true|false|t|f|yes|no|y|n)", "a yes or no in words", "write 1 for yes and 0 for no"),
    (
        r"\d\s*[:=]\s*\w.*",
        "a code with its meaning, as cBioPortal writes it (`1:DECEASED`)",
        "keep the number in front of it alone",
    ),
    (
        r"(?i:dead|deceased|died|alive|living|lost|censored|progress\w*|recur\w*|relaps\w*)(\W.*)?",
        "a status in words",
        "write 1 where the event was seen and 0 where not",
    ),
    (
        r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}( .*)?",
        "a date",
        "write the time from diagnosis or surgery as a number",
    ),
    (r"[<>≤≥~].*", "a limit of measurement", "write a number, or leave the cell empty"),
    (
        r"[+-]?\d+([.,]\d+)?\s*\D+",
        "a number with its unit",
        "write the number alone, in the unit that the config names",
    ),
)


def message(
    column: str, cells: Sequence[Cell], rows: Mapping[str, str], what: str, remedy: str
) -> str:
    """One message for all cells of a column that have the same fault.

    Args:
        column: its name.
        cells: (case, text) of the faulty ones, at least one.
        rows: case id -> its rows in the sheet, where they are known.
        what: what is wrong with them.
        remedy: what to do.
    """
    some = ", ".join(
        f"{text!r} ({f'row {rows[case]}, ' if case in rows else ''}case `{case}`)"
        if text
        else f"case `{case}`{f' (row {rows[case]})' if case in rows else ''}"
        for case, text in cells[:SHOWN]
    )
    more = f" and {len(cells) - SHOWN} more" if len(cells) > SHOWN else ""
    many = "1 case" if len(cells) == 1 else f"{len(cells)} cases"
    return f"column `{column}`: {many} {what}: {some}{more}; {remedy}"


def not_numbers(column: str, cells: Sequence[Cell], rows: Mapping[str, str]) -> list[str]:
    """A message for each cause that makes a column's cells no numbers.

    Args:
        column: name of the column.
        cells: its cells.
        rows: case → the sheet's rows, for the message.
    """
    of_cause: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        cause = next(
            (
                (cause, remedy)
                for pattern, cause, remedy in _CAUSES
                if re.fullmatch(pattern, cell[1].strip())
            ),
            ("", "write numbers, and leave the cell empty where the value is not known"),
        )
        of_cause.setdefault(cause, []).append(cell)
    return [
        message(
            column,
            found,
            rows,
            "without a number" + (f", it seems {cause}" if cause else ""),
            remedy,
        )
        for (cause, remedy), found in of_cause.items()
    ]


def where(cells: Sequence[Cell], wrong: Callable[[str], bool]) -> list[Cell]:
    """The cells that have a text, and a wrong one."""
    return [(case, text) for case, text in cells if text and wrong(text)]
