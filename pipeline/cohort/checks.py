"""What can be wrong with a slide sheet. Standard library only.

Each check returns messages that name the row as a spreadsheet counts it (the header is 1), the
column and the remedy; `report` raises them all at once.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.contracts.columns import CASE_COLUMNS, SLIDE_COLUMNS
from pipeline.contracts.values import filled, number, visible
from pipeline.errors import SheetError

if TYPE_CHECKING:
    from pipeline.config.cohort import Accept, ColumnsConfig
    from pipeline.contracts.slide_row import SlideRow

MPP_RANGE = (0.05, 10.0)
MAX_ID_BYTES = 200
MAX_SHOWN = 20

# Columns that the tables of slides and cases add; the sheet cannot have others of these names.
RESERVED = (*SLIDE_COLUMNS, *CASE_COLUMNS)

# Ids become file names on every stage: no path parts, no shell or quoting surprises.
_SAFE_ID = re.compile(r"[\w(=+@,][\w ._+@=,()-]*")
_ALLOWED = "letters, digits, spaces and ._+@=,()- are allowed, not . - or a space at the start"


def report(source: str, problems: Sequence[str]) -> None:
    """Raise one error for all problems of a sheet; silent where there are none.

    Raises:
        SheetError: there is a problem.
    """
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise SheetError(f"{source}: {len(problems)} problem(s)\n{lines}")


def table_problems(
    header: list[str],
    records: list[tuple[int, list[str]]],
    columns: ColumnsConfig,
    accepted: Iterable[Accept] = (),
) -> list[str]:
    """What keeps the rows from being read: columns that are missing, double, reserved or passed
    over for their letter case.

    Args:
        header, records: the sheet's fields.
        columns: names of the columns.
        accepted: what the user has looked at and says is right.
    """
    spelled = [] if "role_columns" in accepted else _role_problems(header, columns)
    return [*_column_problems(header, columns), *spelled, *_width_problems(records, header)]


def row_problems(
    rows: list[SlideRow],
    header: list[str],
    records: list[tuple[int, list[str]]],
    columns: ColumnsConfig,
    files_must_exist: bool,
) -> list[str]:
    """What is wrong with the rows of a table that can be read.

    Args:
        rows: the slides.
        header, records: the sheet's fields, for what a slide no longer shows.
        columns: names of the columns.
        files_must_exist: whether a missing slide file is a problem or left to the ledger.
    """
    return [
        *_id_problems(rows, columns),
        *_mpp_problems(records, header, columns),
        *_limited(conflicts(rows, columns.site, {r.row: r.site for r in rows})),
        *(_missing_files(rows, columns) if files_must_exist else ()),
        *_limited(_path_problems(rows, columns)),
    ]


def _column_problems(header: list[str], columns: ColumnsConfig) -> list[str]:
    problems = []
    roles = columns.model_dump()
    defaults = type(columns)().model_dump()
    for role, name in roles.items():
        optional = role not in ("slide_id", "case_id") and name == defaults[role]
        if name not in header and not optional:
            problems.append(
                f"no column `{name}` (cohort.columns.{role}){suggestion(name, header)}; "
                f"rename it or set cohort.columns.{role}"
            )
    if header[0].startswith("#"):
        problems.append(
            "the first line starts with `#`, a comment; remove such lines above the header"
        )
    for name in sorted(n for n, times in Counter(header).items() if n and times > 1):
        problems.append(f"column `{name}` is twice in the header; rename or remove one")
    for name in header:
        if name in RESERVED and name not in roles.values():
            problems.append(
                f"column `{name}` has a name that the pipeline's own tables use; rename it"
            )
    return problems


def _role_problems(header: list[str], columns: ColumnsConfig) -> list[str]:
    """Columns that differ from an optional role's only in letter case, spaces or `_`."""
    roles = columns.model_dump()
    problems = []
    for role, name in roles.items():
        if name in header or role in ("slide_id", "case_id"):
            continue
        for other in header:
            if _plain(other) == _plain(name) and other not in roles.values():
                problems.append(
                    f"column `{other}` would be read as a label; did you mean `{name}` "
                    f"(cohort.columns.{role})? Rename it or set cohort.columns.{role}: {other}; "
                    f"or set cohort.accept: [role_columns] if it is a label"
                )
    return problems


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def suggestion(word: str, known: Iterable[str]) -> str:
    """` (did you mean …?)`, or what there is."""
    names = sorted({n for n in known if n})
    lower = {n.lower(): n for n in names}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.5)
    if close:
        return f"; did you mean `{lower[close[0]]}`?"
    return f"; known: {', '.join(names[:MAX_SHOWN])}"


def _width_problems(records: list[tuple[int, list[str]]], header: list[str]) -> list[str]:
    wrong = [(row, len(fields)) for row, fields in records if len(fields) != len(header)]
    return _limited(
        [
            f"row {row}: {width} fields where the header has {len(header)}; is a field with a "
            f"separator in it not quoted?"
            for row, width in wrong
        ]
    )


def _id_problems(rows: list[SlideRow], columns: ColumnsConfig) -> list[str]:
    problems = []
    first: dict[str, int] = {}
    unseen: dict[str, list[SlideRow]] = {}
    for row in rows:
        for column, text in ((columns.slide_id, row.slide_id), (columns.case_id, row.case_id)):
            if not text:
                problems.append(f"row {row.row}, column `{column}`: empty; every slide needs one")
            if _SAFE_ID.fullmatch(typed := visible(unicodedata.normalize("NFC", text))):
                if not _SAFE_ID.fullmatch(text):
                    unseen.setdefault(column, []).append(row)
                text = typed
            problems += _unsafe(row, column, text)
        problems += _unsafe(row, columns.site, row.site)
        if row.slide_id and first.setdefault(row.slide_id, row.row) != row.row:
            problems.append(
                f"row {row.row}, column `{columns.slide_id}`: `{row.slide_id}` is in row "
                f"{first[row.slide_id]} already; one row per slide"
            )
    return [*_unseen_problems(unseen), *_limited(problems)]


def _unseen_problems(unseen: dict[str, list[SlideRow]]) -> list[str]:
    return [
        f"column `{column}`: {len(rows)} id(s) hold characters that nobody sees, such as a "
        f"zero-width space, or accents as characters of their own (NFD, as macOS writes them): row "
        f"{', '.join(str(row.row) for row in rows[:3])}{' …' if len(rows) > 3 else ''}; write the "
        f"column again with plain characters (Unicode NFC)"
        for column, rows in unseen.items()
    ]


def _unsafe(row: SlideRow, column: str, text: str) -> list[str]:
    where = f"row {row.row}, column `{column}`"
    if len(text.encode()) > MAX_ID_BYTES:
        return [f"{where}: {len(text.encode())} bytes long; {MAX_ID_BYTES} at most, shorten it"]
    if not text or _SAFE_ID.fullmatch(text):
        return []
    return [f"{where}: {text!r} cannot be a file name ({_ALLOWED}); rename it"]


def _mpp_problems(
    records: list[tuple[int, list[str]]], header: list[str], columns: ColumnsConfig
) -> list[str]:
    if columns.mpp not in header:
        return []
    low, high = MPP_RANGE
    problems = []
    for row, fields in records:
        text = filled(fields[header.index(columns.mpp)])
        value = number(text)
        if not text or (value is not None and low <= value <= high):
            continue
        problems.append(
            f"row {row}, column `{columns.mpp}`: {text!r} is not a number of microns per pixel "
            f"between {low} and {high}; correct it, or leave it empty to take the file's"
        )
    return _limited(problems)


def conflicts(rows: Iterable[SlideRow], column: str, values: Mapping[int, str]) -> list[str]:
    """Cases whose slides disagree: a message per case.

    Args:
        rows: the cohort.
        column: name of the column, for the message.
        values: row number -> value; an empty value agrees with any.
    """
    by_case: dict[str, dict[str, list[int]]] = {}
    for row in rows:
        if values[row.row]:
            by_case.setdefault(row.case_id, {}).setdefault(values[row.row], []).append(row.row)
    return [
        f"case `{case}` has different values in column `{column}`: "
        + ", ".join(f"{v!r} (row {', '.join(map(str, at))})" for v, at in found.items())
        + "; a case has one"
        for case, found in by_case.items()
        if len(found) > 1
    ]


def _missing_files(rows: list[SlideRow], columns: ColumnsConfig) -> list[str]:
    advice = "correct the path, or set cohort.missing_files: ledger to go on without it"
    missing = [r for r in rows if r.path and not Path(r.path).exists()]
    empty = [r for r in rows if not r.path]
    if len(empty) == len(rows):  # all features are imported: nobody asks for slides
        return []
    return [
        *_limited([f"row {r.row}: no file {r.path}; {advice}" for r in missing]),
        *_limited([f"row {r.row}, column `{columns.path}`: empty; {advice}" for r in empty]),
    ]


def _path_problems(rows: list[SlideRow], columns: ColumnsConfig) -> list[str]:
    problems: list[str] = []
    first: dict[str, SlideRow] = {}
    for row in rows:
        problems += [
            f"row {row.row}: no {word} file {given}; correct column `{column}` or leave it empty"
            for word, given, column in (
                ("mask", row.mask, columns.mask),
                ("coordinates", row.coordinates, columns.coordinates),
            )
            if given and not Path(given).is_file()
        ]
        if not row.path:
            continue
        other = first.setdefault(row.path, row)
        if other is not row:
            problems.append(
                f"row {row.row}: the same file as row {other.row} ({row.path}); a file that stands "
                f"for two slides would leak between folds"
            )
        problems += _folder_problems(row)
    return problems


def _folder_problems(row: SlideRow) -> list[str]:
    path = Path(row.path)
    if path.is_dir():
        if any(f.suffix.lower() == ".dcm" for f in path.iterdir()):
            return []
        same_name = [f.name for f in path.parent.glob(f"{path.name}.*") if f.is_file()]
        remedy = (
            f"; name `{same_name[0]}` next to it" if same_name else "; name the slide file in it"
        )
        return [f"row {row.row}: {row.path} is a folder without DICOM files{remedy}"]
    if path.suffix.lower() == ".mrxs" and path.exists() and not path.with_suffix("").is_dir():
        return [
            f"row {row.row}: {row.path} lacks its folder `{path.stem}/`, where an MRXS slide keeps "
            f"its pixels; copy it into the same folder"
        ]
    return []


def _limited(problems: list[str]) -> list[str]:
    """The first problems of a kind, and how many more there are."""
    if len(problems) <= MAX_SHOWN:
        return problems
    return [*problems[:MAX_SHOWN], f"… and {len(problems) - MAX_SHOWN} more of this kind"]
