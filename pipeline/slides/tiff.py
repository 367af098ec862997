"""The directories of a TIFF file, read without decoding anything.

Enough of TIFF 6.0 and BigTIFF to answer, in about a millisecond, what a damaged or hostile file
would otherwise answer by a crash, by a white tile or by filling the memory: is it whole, is it an
RGB image, how large does it say it is, and can a file of this length hold that?
"""

from __future__ import annotations

import dataclasses
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.errors import SlideError

# A segment (tile or strip) is decoded whole, so that its size bounds the memory of any read.
MAX_SEGMENT_PIXELS = 2**28
# A tile of 512 x 512 pixels costs at least 8 bytes of table, 32,768 pixels per byte, even if empty.
MAX_PIXELS_PER_BYTE = 40_000
MAX_DIRECTORIES = 10_000
MAX_DESCRIPTION = 1 << 20

_NUMPY = {
    1: "u1",
    2: "u1",
    3: "u2",
    4: "u4",
    6: "i1",
    8: "i2",
    9: "i4",
    13: "u4",
    16: "u8",
    18: "u8",
}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_SIZES |= {13: 4, 16: 8, 17: 8, 18: 8}
_NDPI_FORMAT = 65420


@dataclasses.dataclass(frozen=True)
class Page:
    """One image file directory.

    Attributes:
        width, height: pixels.
        segment: (width, height) of a tile, or of a strip.
        segments: how many tiles or strips it lists.
        lost: how many of them end behind the end of the file.
        samples, bits, photometric, compression: as in the tags.
        description: the ImageDescription, or an empty text.
    """

    width: int
    height: int
    segment: tuple[int, int]
    segments: int
    lost: int
    samples: int
    bits: int
    photometric: int
    compression: int
    description: str
    tiled: bool


def is_tiff(path: Path) -> bool:
    """Whether the file starts like a classic TIFF or a BigTIFF."""
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_pages(path: Path) -> list[Page]:
    """All directories of a TIFF file, sub-directories (OME pyramids) included.

    Raises:
        SlideError: `truncated`, a directory lies behind the end of the file; `unopenable`, the
            directories are damaged.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return _walk(file, size)
        except (struct.error, KeyError, ValueError, OverflowError, IndexError) as error:
            raise SlideError(
                f"{path.name}: damaged TIFF directory ({error}); copy the file again", "unopenable"
            ) from None


def check_whole(path: Path, pages: list[Page]) -> None:
    """Refuse a TIFF whose pixel data ends before its tables say.

    Raises:
        SlideError: `truncated`, with how much is lost.
    """
    for number, page in enumerate(pages):
        if page.lost:
            raise SlideError(
                f"{path.name}: the file ends before {page.lost} of the {page.segments} blocks of "
                f"image {number} ({page.width} x {page.height}); copy it again from its source",
                "truncated",
            )


def check_size(path: Path, pages: list[Page]) -> None:
    """Refuse a TIFF that declares more pixels than its bytes can hold, or unbounded blocks.

    Raises:
        SlideError: `too_large`.
    """
    size = path.stat().st_size
    for page in pages:
        pixels = page.width * page.height
        block = page.segment[0] * page.segment[1]
        if pixels > MAX_SEGMENT_PIXELS and pixels > size * MAX_PIXELS_PER_BYTE:
            raise SlideError(
                f"{path.name}: declares {page.width} x {page.height} pixels in {size} bytes, which "
                "no scanner writes; the file is damaged or made to exhaust memory",
                "too_large",
            )
        if block > MAX_SEGMENT_PIXELS:
            raise SlideError(
                f"{path.name}: its blocks of {page.segment[0]} x {page.segment[1]} pixels must be "
                "decoded whole; convert it to a tiled pyramid (e.g. `vips tiffsave --tile "
                "--pyramid`)",
                "too_large",
            )


def _walk(file: BinaryIO, size: int) -> list[Page]:
    header = file.read(16)
    order = "<" if header[:2] == b"II" else ">"
    big = struct.unpack(order + "H", header[2:4])[0] == 43
    todo = [struct.unpack(order + ("Q" if big else "I"), header[8:16] if big else header[4:8])[0]]
    pages: list[Page] = []
    seen: set[int] = set()
    while todo:
        offset = todo.pop(0)
        if offset == 0 or offset in seen:
            continue
        if len(seen) >= MAX_DIRECTORIES:
            raise ValueError("endless chain of directories")
        seen.add(offset)
        if offset + 2 > size:
            raise SlideError(
                f"{Path(file.name).name}: the file ends at byte {size}, before its directory at "
                f"byte {offset}; copy it again from its source",
                "truncated",
            )
        tags, following = _directory(file, offset, order, big, size)
        todo += [*tags.pop(330, ()), following]
        page = _page(tags, size)
        if page is not None:
            pages.append(page)
    return pages


def _directory(
    file: BinaryIO, offset: int, order: str, big: bool, size: int
) -> tuple[dict[int, Any], int]:
    """The tags of interest of one directory, and where the next directory stands."""
    file.seek(offset)
    count = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))[0]
    width = 20 if big else 12
    if count * width > size:
        raise ValueError(f"{count} tags in one directory")
    table = file.read(count * width)
    after = file.read(8 if big else 4)
    following = struct.unpack(order + ("Q" if big else "I"), after)[0] if any(after) else 0
    tags: dict[int, Any] = {}
    for start in range(0, len(table) - width + 1, width):
        tag, kind = struct.unpack(order + "HH", table[start : start + 4])
        if tag in _WANTED and kind in _SIZES:
            value = table[start + 4 : start + width]
            tags[tag] = _value(file, tag, kind, value, order, big, size)
    return tags, following


_WANTED = {256, 257, 258, 259, 262, 270, 273, 277, 278, 279, 322, 323, 324, 325, 330, _NDPI_FORMAT}


def _value(
    file: BinaryIO, tag: int, kind: int, raw: bytes, order: str, big: bool, size: int
) -> Any:
    half = 8 if big else 4
    code = "Q" if big else "I"
    count = struct.unpack(order + code, raw[:half])[0]
    length = count * _SIZES[kind]
    if length > half:
        start = struct.unpack(order + code, raw[half:])[0]
        if start + length > size:
            raise SlideError(
                f"{Path(file.name).name}: the file ends at byte {size}, before its table of tag "
                f"{tag} at byte {start}; copy it again from its source",
                "truncated",
            )
        file.seek(start)
        data = file.read(min(length, MAX_DESCRIPTION) if tag == 270 else length)
    else:
        data = raw[half : half + length]
    if tag == 270:
        return data.split(b"\0", 1)[0].decode("utf-8", "replace")
    return np.frombuffer(data, np.dtype(order + _NUMPY[kind])).astype(np.int64)


def _page(tags: dict[int, Any], size: int) -> Page | None:
    if 256 not in tags or 257 not in tags:
        return None

    def first(tag: int, otherwise: int) -> int:
        value = tags.get(tag)
        return int(value[0]) if value is not None and len(value) else otherwise

    width, height = first(256, 0), first(257, 0)
    tiled = 324 in tags or 322 in tags
    offsets, counts = (tags.get(324), tags.get(325)) if tiled else (tags.get(273), tags.get(279))
    segment = (
        (first(322, width), first(323, height))
        if tiled
        else (width, min(first(278, height), height))
    )
    lost = segments = 0
    if offsets is not None and counts is not None and len(offsets) == len(counts):
        segments = len(offsets)
        # Hamamatsu writes the low 32 bits only; behind 4 GiB the sums mean nothing.
        if not (_NDPI_FORMAT in tags and size >= 2**32):
            lost = int(np.count_nonzero((counts > 0) & (offsets + counts > size)))
    return Page(
        width=width,
        height=height,
        segment=segment,
        segments=segments,
        lost=lost,
        samples=first(277, 1),
        bits=first(258, 1),
        photometric=first(262, -1),
        compression=first(259, 1),
        description=tags.get(270, ""),
        tiled=tiled,
    )
