"""The slide sheet: one row a slide, read and checked as a whole before any work starts.

Imported at every parse of the workflow, hence standard library only. A sheet is CSV with commas,
semicolons or tabs. Which column holds what is configured (`cohort.columns`), so that the sheets of
other tools serve as they are; `examples` in `config/` shows some.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cohort.checks import report, row_problems, table_problems
from pipeline.cohort.same_patient import case_problems
from pipeline.contracts.ledger import chunk_of
from pipeline.contracts.slide_row import SlideRow
from pipeline.contracts.values import filled, label, number
from pipeline.errors import SheetError
from pipeline.files.digests import digest
from pipeline.files.identity import content_digest, file_identity
from pipeline.files.names import as_on_disk

if TYPE_CHECKING:
    from pipeline.config.cohort import CohortConfig, ColumnsConfig
    from pipeline.files.recall import Recall


def slide_rows(cfg: CohortConfig, base: Path) -> list[SlideRow]:
    """The slides of the cohort: of the sheet, or planned for the embedded cohort (no file needed).

    Args:
        cfg: the cohort section.
        base: folder that relative paths of the config start from.

    Raises:
        SheetError: the sheet cannot be used; all findings in one message.
    """
    if cfg.source == "sheet":
        return read_sheet(cfg, base)
    from pipeline.cohort.synthetic import embedded

    return embedded.plan(cfg, base)


def read_sheet(cfg: CohortConfig, base: Path) -> list[SlideRow]:
    """Read and check the sheet of a cohort with `source: sheet`.

    Raises:
        SheetError: the file is missing, unreadable or empty, or rows or columns are wrong; every
            problem found is listed with its row and column.
    """
    header, records, rows = _read(cfg, base)
    problems = table_problems(header, records, cfg.columns, cfg.accept)
    if not problems:
        must_exist = cfg.missing_files == "error"
        problems = row_problems(rows, header, records, cfg.columns, must_exist)
        problems += case_problems(rows, cfg.columns, cfg.accept)
    report(str(base / Path(cfg.sheet or "").expanduser()), problems)
    return rows


def chunk_rows(cfg: CohortConfig, base: Path, chunk: int) -> list[SlideRow]:
    """The slides of one chunk alone: no other row is checked, and no other file is looked at.

    Args:
        cfg: the cohort section.
        base: folder that relative paths of the config start from.
        chunk: the hash bucket.

    Raises:
        SheetError: the sheet is gone or unreadable, or a row of the chunk cannot be used.
    """
    if cfg.source == "synthetic":
        return [r for r in slide_rows(cfg, base) if chunk_of(r.slide_id, cfg.chunks) == chunk]
    header, records, rows = _read(cfg, base)
    own = [r for r in rows if chunk_of(r.slide_id, cfg.chunks) == chunk]
    lines = {r.row for r in own}
    mine = [record for record in records if record[0] in lines]
    must_exist = cfg.missing_files == "error"
    report(str(cfg.sheet), row_problems(own, header, mine, cfg.columns, must_exist))
    return own


def chunk_digest(
    rows: Iterable[SlideRow], identities: Mapping[str, str], chunk: int, chunks: int
) -> str:
    """What decides the tiles of one chunk: its slides, their contents and the user's overrides.

    Neither the place of the files nor the labels count: moving the slides, or another label, makes
    no tile stale.

    Args:
        rows: the whole cohort.
        identities: slide id -> `identity` of the slide.
        chunk: the hash bucket.
        chunks: how many buckets there are.
    """
    members = [r for r in rows if chunk_of(r.slide_id, chunks) == chunk]
    return digest(sorted([r.slide_id, identities[r.slide_id], r.mpp] for r in members))


def identities(
    cfg: CohortConfig, rows: Sequence[SlideRow], recall: Recall | None = None
) -> dict[str, str]:
    """Slide id -> what its content is, without reading whole files.

    Slides of the embedded cohort are known by what they are drawn from, so that the answer is the
    same before and after they are drawn. `recall` spares reading files that have not been touched.

    Args:
        cfg: the cohort section.
        rows: the slides.
        recall: what earlier parses found out about the files; None: nothing.
    """
    if cfg.source == "synthetic":
        from pipeline.cohort.synthetic import embedded

        return embedded.identities(cfg)
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = pool.map(lambda row: identity(row, recall), rows)
        return dict(zip((r.slide_id for r in rows), found, strict=True))


def identity(row: SlideRow, recall: Recall | None = None) -> str:
    """Cheap identity of a slide's content, and of the mask and coordinates that the sheet names.

    `none` where the row has no path, `missing` where the file is not there.
    """
    slide = file_identity(row.path, recall) if row.path else "none"
    named = (content_digest(path, recall) for path in (row.mask, row.coordinates) if path)
    return "+".join([slide, *named])


# --- reading --------------------------------------------------------------------------------------


def _read(
    cfg: CohortConfig, base: Path
) -> tuple[list[str], list[tuple[int, list[str]]], list[SlideRow]]:
    """Header, numbered records and slides of the sheet, unchecked."""
    sheet = as_on_disk(base / Path(cfg.sheet or "").expanduser())
    header, records = _parse(sheet, cfg.columns)
    root = base / Path(cfg.slide_root).expanduser() if cfg.slide_root else sheet.parent
    rows = [_row(line, fields, header, cfg.columns, root) for line, fields in records]
    return header, records, rows


def _parse(sheet: Path, columns: ColumnsConfig) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header names, and (row number, fields) of each row that is not blank."""
    if sheet.is_dir():
        raise SheetError(f"{sheet}: a folder; cohort.sheet must name the table file itself")
    if sheet.suffix.lower() in (".xlsx", ".xls", ".ods", ".numbers"):
        raise SheetError(
            f"{sheet}: a spreadsheet file; save the table as CSV (UTF-8) and name that"
        )
    try:
        text = sheet.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SheetError(
            f"{sheet}: no such file; cohort.sheet must name your slide table"
        ) from None
    except OSError as error:
        raise SheetError(f"{sheet}: cannot be read ({error.strerror}); check its rights") from None
    except UnicodeDecodeError as error:
        raise SheetError(
            f"{sheet}: not UTF-8 text (byte {error.start}); save it as `CSV UTF-8`"
        ) from None
    if "\0" in text:
        raise SheetError(f"{sheet}: not a text table; save it as CSV (UTF-8)")
    # A first line `sep=;` tells Excel the separator; it is no header.
    told = re.match(r"\s*\"?sep=(.)\"?[,;\t]*\r?\n", text, re.IGNORECASE)
    text = text[told.end() :] if told else text
    delimiter = told[1] if told else _delimiter(text, columns)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise SheetError(f"{sheet}: not a CSV table ({error}); look for an open quote") from None
    stripped = [(i, [v.strip() for v in line]) for i, line in enumerate(lines, 2 if told else 1)]
    filled = [(i, line) for i, line in stripped if any(line)]
    if not filled:
        raise SheetError(f"{sheet}: empty; it needs a header and one row per slide")
    if len(filled) == 1:
        raise SheetError(f"{sheet}: has a header but no row; add one row per slide")
    return filled[0][1], filled[1:]


def _delimiter(text: str, columns: ColumnsConfig) -> str:
    """The separator that finds the most known columns in the header, then the most columns."""
    first = text.lstrip("\r\n").split("\n", 1)[0].rstrip("\r")
    wanted = set(columns.model_dump().values())

    def found(delimiter: str) -> tuple[int, int]:
        try:
            names = [n.strip() for n in next(csv.reader([first], delimiter=delimiter), [])]
        except csv.Error:  # a header of many columns, read as one: too long for a field
            return 0, 0
        return len(wanted & set(names)), len(names)

    return max((",", ";", "\t"), key=found)


def _row(
    line: int, fields: list[str], header: list[str], columns: ColumnsConfig, root: Path
) -> SlideRow:
    value = dict(zip(header, fields, strict=False))
    used = set(columns.model_dump().values())

    def field(column: str) -> str:
        return filled(value.get(column, ""))

    def absolute(column: str) -> str:
        given = field(column)
        return str(as_on_disk((root / Path(given).expanduser()).absolute())) if given else ""

    def named(column: str) -> str:
        given = value.get(column, "")
        # One column for both (TRIDENT's `wsi`): the id is the file name without its ending.
        return Path(given).stem if column == columns.path else given

    return SlideRow(
        slide_id=named(columns.slide_id),
        case_id=named(columns.case_id),
        path=absolute(columns.path),
        mpp=number(field(columns.mpp)),
        site=label(value.get(columns.site, "")),
        mask=absolute(columns.mask),
        coordinates=absolute(columns.coordinates),
        labels={name: label(value.get(name, "")) for name in header if name and name not in used},
        row=line,
    )
