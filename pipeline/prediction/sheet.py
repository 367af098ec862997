"""Which slides to predict from: files, or a small sheet that says which belong together."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from pipeline.contracts.values import number
from pipeline.errors import UserError
from pipeline.prediction.slides import SlideGiven

COLUMNS = ("path", "slide_id", "case_id", "mpp")


def read_slides(files: Sequence[Path], sheet: Path | None) -> list[SlideGiven]:
    """The slides.

    Args:
        files: slide files, each a case of its own.
        sheet: a CSV or TSV instead; relative paths start from its folder.

    Raises:
        UserError: there are none, or both, or the sheet cannot be read.
    """
    if files and sheet is not None:
        raise UserError("give slide files or --sheet, not both")
    if sheet is not None:
        return _read(sheet)
    if not files:
        raise UserError("no slides: name slide files, or a sheet with --sheet; see --help")
    return [SlideGiven(_name(path), _name(path), path) for path in files]


def _name(path: Path) -> str:
    """The file's name without its endings: `a.ome.tif` is `a`."""
    stem = path.name
    for ending in (path.suffix, ".ome"):
        stem = stem.removesuffix(ending) if ending else stem
    return stem or path.name


def _read(sheet: Path) -> list[SlideGiven]:
    try:
        text = sheet.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--sheet {sheet}: cannot be read ({error})") from None
    head = text.partition("\n")[0]
    rows = csv.DictReader(text.splitlines(), delimiter="\t" if "\t" in head else ",")
    names = list(rows.fieldnames or ())
    if "path" not in names:
        raise UserError(
            f"--sheet {sheet}: has no column `path` (it has {', '.join(names) or 'none'}); the "
            f"columns are {', '.join(COLUMNS)}"
        )
    found = []
    for line, row in enumerate(rows, start=2):
        path = (row["path"] or "").strip()
        if not path:
            raise UserError(f"--sheet {sheet}: line {line} has no path")
        scale = (row.get("mpp") or "").strip()
        value = number(scale) if scale else None
        if scale and (value is None or value <= 0):
            raise UserError(f"--sheet {sheet}: line {line}: `{scale}` is no µm per pixel")
        place = sheet.parent / Path(path).expanduser()
        slide_id = (row.get("slide_id") or "").strip() or _name(place)
        case_id = (row.get("case_id") or "").strip() or slide_id
        found.append(SlideGiven(slide_id, case_id, place, value))
    if not found:
        raise UserError(f"--sheet {sheet}: has no rows")
    return found
