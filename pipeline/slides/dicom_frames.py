"""The frames of one DICOM instance: where each lies in the file, and how it is decoded."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import parse_basic_offsets, parse_fragments
from pydicom.filebase import DicomFileLike

from pipeline.slides.pixels import Image
from pipeline.slides.tiff_blocks import Layout

_JPEG = {f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70)}
_PLAIN = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"}
_DECODERS = {
    **dict.fromkeys(
        ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"), imagecodecs.jpegls_decode
    ),
    **dict.fromkeys(
        (
            *("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),
            *(f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203)),
        ),
        imagecodecs.jpeg2k_decode,
    ),
    **dict.fromkeys(
        (f"1.2.840.10008.1.2.4.{number}" for number in (110, 111, 112)), imagecodecs.jpegxl_decode
    ),
}
KEPT_BYTES = 2**26
_RGB, _YCBCR = 2, 3  # libjpeg's names of colour spaces


@dataclasses.dataclass(frozen=True)
class Level:
    """One pyramid level: an instance of the series.

    Attributes:
        path: the file.
        header: its data set without the pixels.
        layout: how the level is cut into frames.
        frames: number of the frame at each place of the layout; -1 where there is none.
        spans: (offset, bytes) of each frame in the file.
    """

    path: Path
    header: Any
    layout: Layout
    frames: np.ndarray
    spans: list[tuple[int, int]]


def read_header(path: Path) -> tuple[Any, int]:
    """An instance's data set without its pixels, and where the element with them starts."""
    with path.open("rb") as file:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        return header, file.tell()


def open_level(path: Path, header: Any, start: int) -> Level:
    """Where the frames of an instance lie.

    Args:
        path: the file.
        header: its data set.
        start: offset of the pixel data's element.

    Raises:
        ValueError: the frames cannot be told apart, or are coded in an unknown way.
    """
    syntax = str(header.file_meta.TransferSyntaxUID)
    if syntax not in _JPEG | _PLAIN and syntax not in _DECODERS:
        raise ValueError(f"unknown transfer syntax {syntax}")
    size = int(header.TotalPixelMatrixColumns), int(header.TotalPixelMatrixRows)
    block = int(header.Columns), int(header.Rows)
    layout = Layout(size, block, -(-size[0] // block[0]), -(-size[1] // block[1]))
    count = int(header.get("NumberOfFrames", 1))
    spans = _spans(path, start, count, block, syntax)
    return Level(path, header, layout, _places(header, layout, count), spans)


def _spans(
    path: Path, start: int, count: int, block: tuple[int, int], syntax: str
) -> list[tuple[int, int]]:
    explicit = syntax != "1.2.840.10008.1.2"
    with path.open("rb") as file:
        file.seek(start)
        head = file.read(12 if explicit else 8)
        if syntax in _PLAIN:
            length = block[0] * block[1] * 3
            return [(start + len(head) + i * length, length) for i in range(count)]
        pixels = DicomFileLike(file)
        pixels.is_little_endian, pixels.is_implicit_VR = True, False
        offsets = parse_basic_offsets(pixels)
        first = file.tell()
        _, fragments = parse_fragments(pixels)
        end = file.seek(0, os.SEEK_END)
        lengths = []
        for offset in fragments:
            file.seek(offset + 4)
            lengths.append(int.from_bytes(file.read(4), "little"))
    pieces = [(offset + 8, length) for offset, length in zip(fragments, lengths, strict=True)]
    if len(pieces) == count:
        return pieces
    if len(offsets) != count:
        raise ValueError(f"{len(pieces)} fragments for {count} frames, and no table of offsets")
    stops = [*(first + offset for offset in offsets[1:]), end]
    starts = [first + offset for offset in offsets]
    grouped = [
        [piece for piece in pieces if low < piece[0] <= high]
        for low, high in zip(starts, stops, strict=True)
    ]
    if any(len(group) != 1 for group in grouped):
        raise ValueError("frames in several fragments")
    return [group[0] for group in grouped]


def _places(header: Any, layout: Layout, count: int) -> np.ndarray:
    """The frame at each place: in rows, or where each says that it lies."""
    places = np.full(layout.columns * layout.rows, -1, np.int64)
    if header.get("DimensionOrganizationType") == "TILED_SPARSE" or (
        "PerFrameFunctionalGroupsSequence" in header
        and "PlanePositionSlideSequence" in header.PerFrameFunctionalGroupsSequence[0]
    ):
        for number, frame in enumerate(header.PerFrameFunctionalGroupsSequence):
            position = frame.PlanePositionSlideSequence[0]
            column = int(position.ColumnPositionInTotalImagePixelMatrix) - 1
            row = int(position.RowPositionInTotalImagePixelMatrix) - 1
            if column % layout.block[0] or row % layout.block[1]:
                raise ValueError("frames that overlap")
            place = row // layout.block[1] * layout.columns + column // layout.block[0]
            if places[place] < 0:  # of several focal planes or optical paths the first
                places[place] = number
        return places
    known = min(count, len(places))
    places[:known] = np.arange(known)
    return places


class Frames:
    """Decoded frames of one level; safe to be read from several threads."""

    def __init__(self, level: Level) -> None:
        self._level = level
        self._descriptor = os.open(level.path, os.O_RDONLY)
        self._lock = threading.Lock()
        self._kept: dict[int, Image] = {}

    def read(self, left: int, top: int, w: int, h: int) -> Image:
        """uint8 (h, w, 3) from (left, top), in pixels of the level; white outside it.

        Args:
            left: leftmost pixel.
            top: uppermost pixel.
            w: width in pixels.
            h: height in pixels.
        """
        layout = self._level.layout
        result = np.full((h, w, 3), 255, np.uint8)
        for place in layout.touched(left, top, w, h):
            number = int(self._level.frames[place])
            if number >= 0:
                rows, columns, block_rows, block_columns = layout.place(place, left, top, w, h)
                result[rows, columns] = self._frame(number)[block_rows, block_columns]
        return result

    def close(self) -> None:
        """Release the file."""
        os.close(self._descriptor)

    def _frame(self, number: int) -> Image:
        with self._lock:
            if number in self._kept:
                return self._kept[number]
        image = self._decode(number)
        with self._lock:
            self._kept[number] = image
            while len(self._kept) * image.nbytes > KEPT_BYTES and len(self._kept) > 1:
                self._kept.pop(next(iter(self._kept)))
        return image

    def _decode(self, number: int) -> Image:
        offset, length = self._level.spans[number]
        data = os.pread(self._descriptor, length, offset)
        if len(data) < length:
            raise ValueError(f"the file ends inside frame {number}")
        header = self._level.header
        syntax = str(header.file_meta.TransferSyntaxUID)
        colours = str(header.PhotometricInterpretation)
        block = self._level.layout.block
        if syntax in _JPEG:
            space = _RGB if colours == "RGB" and not is_jfif(data) else _YCBCR
            return np.asarray(imagecodecs.jpeg8_decode(data, colorspace=space, outcolorspace=_RGB))
        if syntax in _PLAIN:
            image = np.frombuffer(data, np.uint8)
            if int(header.get("PlanarConfiguration", 0)):
                image = image.reshape(3, block[1], block[0]).transpose(1, 2, 0)
            image = image.reshape(block[1], block[0], 3)
        else:
            image = np.asarray(_DECODERS[syntax](data), np.uint8)
        if colours == "YBR_FULL":
            return cv2.cvtColor(image[..., (0, 2, 1)], cv2.COLOR_YCrCb2RGB)
        return np.ascontiguousarray(image)


def is_jfif(data: bytes) -> bool:
    """JFIF knows no RGB: what calls itself so is YCbCr whatever the header says."""
    return data.startswith(b"\xff\xd8") and data[6:10] == b"JFIF"
