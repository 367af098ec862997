"""The cohort at a glance: one table and one picture of all slides, the failed ones included."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.contracts.ledger import Record, read_manifests
from pipeline.contracts.slide_facts import SlideFacts, slide_facts
from pipeline.files.artifacts import atomic_path, sweep, write_text
from pipeline.slides.pixels import Image
from pipeline.slides.qc import CAPTION_PX, encode_jpeg, write_words
from pipeline.tiling.choose import LIMITS

# Raised when the table or the contact sheet changes. 1: the first.
VERSION = 1

SHEET_PX = 4800  # longest width of the contact sheet; cells shrink for large cohorts
CELL_PX = (64, 240)
REDUCED = 4  # the pictures are decoded at a quarter of their size
STATUS_COLOURS = {
    "ok": (27, 130, 60),
    "empty": (110, 110, 110),
    "failed": (200, 30, 30),
    "excluded": (180, 110, 0),
}


def run(*, root: Path, manifests: Iterable[Path]) -> None:
    """Write `tiles/overview.csv` and `tiles/contact_sheet.jpg`.

    Args:
        root: results folder of the cohort.
        manifests: the tiling manifests of all its chunks.

    Raises:
        ArtifactError: a manifest is missing or damaged.
    """
    sweep(root / "tiles")
    records = read_manifests(manifests)
    write_text(root / "tiles" / "overview.csv", table(records))
    with atomic_path(root / "tiles" / "contact_sheet.jpg") as temporary:
        temporary.write_bytes(encode_jpeg(contact_sheet(records, root / "tiles" / "qc")))


def _fact(name: str) -> Callable[[SlideFacts], Any]:
    return lambda facts: getattr(facts, name)


def _rgb(channel: int) -> Callable[[SlideFacts], Any]:
    return lambda facts: facts.stain.rgb[channel] if facts.stain.rgb else None


def _left_out(name: str) -> Callable[[SlideFacts], Any]:
    return lambda facts: facts.tiles_left_out.get(name)


COLUMNS: dict[str, Callable[[SlideFacts], Any]] = {
    **{
        name: _fact(name)
        for name in (
            "tissue_mm2",
            "n_tiles",
            "n_candidates",
            "mpp",
            "mpp_source",
            "magnification",
            "width",
            "height",
            "levels",
            "read_level",
            "tile_um",
            "backend",
            "tissue_source",
            "pen_fraction",
        )
    },
    "pen_colours": lambda facts: "; ".join(facts.pen_colours),
    "blur_fraction": _fact("blur_fraction"),
    "fold_fraction": _fact("fold_fraction"),
    **{f"tiles_lost_to_{name}": _left_out(name) for name in LIMITS},
    "small_pieces": _fact("small_pieces"),
    "small_pieces_mm2": _fact("small_pieces_mm2"),
    "mean_red": _rgb(0),
    "mean_green": _rgb(1),
    "mean_blue": _rgb(2),
    "haematoxylin": lambda facts: facts.stain.haematoxylin,
    "eosin": lambda facts: facts.stain.eosin,
    "warnings": lambda facts: "; ".join(w.text for w in facts.warnings),
}


def table(records: list[Record]) -> str:
    """All slides as CSV text: status and reason, then `COLUMNS`; empty where nothing is known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["slide_id", "status", "kind", "reason", *COLUMNS])
    for record in records:
        facts = slide_facts(record)
        values = [None if facts is None else read(facts) for read in COLUMNS.values()]
        writer.writerow(
            [
                record.slide_id,
                record.status,
                record.kind,
                record.reason,
                *("" if value is None else value for value in values),
            ]
        )
    return text.getvalue()


def contact_sheet(records: list[Record], pictures: Path) -> Image:
    """The quality pictures of all slides side by side, in the order of the records.

    Args:
        records: one per slide.
        pictures: folder with `<slide_id>.jpg`.

    Returns:
        uint8 (H, W, 3) RGB; a slide without a picture shows the kind of its failure instead.
    """
    columns = max(1, math.ceil(math.sqrt(max(1, len(records)) * 1.5)))
    side = int(np.clip(SHEET_PX // columns, *CELL_PX))
    rows = max(1, math.ceil(len(records) / columns))
    sheet = np.full((rows * side, columns * side, 3), 255, np.uint8)
    for number, record in enumerate(records):
        y, x = divmod(number, columns)
        cell = sheet[y * side : (y + 1) * side, x * side : (x + 1) * side]
        _fill(cell, record, pictures / f"{record.slide_id}.jpg")
    return sheet


def _fill(cell: Image, record: Record, picture: Path) -> None:
    side = cell.shape[0]
    line = max(9, side // 14)
    room = side - 2 * line - 4
    image = cv2.imread(str(picture), cv2.IMREAD_REDUCED_COLOR_4) if picture.is_file() else None
    if image is not None and record.status in ("ok", "empty"):
        image = image[: -(CAPTION_PX // REDUCED)]
        scale = min(room / image.shape[0], (side - 4) / image.shape[1])
        size = (max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale)))
        small = cv2.cvtColor(
            cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB
        )
        left = (side - size[0]) // 2
        cell[2 : 2 + size[1], left : left + size[0]] = small
    else:
        cell[2 : 2 + room, 2:-2] = 235
    found = f"{record.n_tiles} tiles" if record.status == "ok" else record.kind
    for row, words in enumerate((record.slide_id, f"{record.status}: {found}")):
        at = (3, side - line * (1 - row) - 4)
        colour = STATUS_COLOURS[record.status] if row else (0, 0, 0)
        write_words(cell, words, at, colour, line / 30, side - 6)
