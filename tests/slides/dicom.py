"""A DICOM whole-slide image, written by hand: as much of the format as readers ask for."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.slides.files import Image

WSI_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
ROOT = "1.2.826.0.1.3680043.8.498"
TILE = 256
LONG = {"OB", "OW", "SQ", "UN", "UT"}


def element(group: int, number: int, kind: str, value: Any) -> bytes:
    """One data element in explicit little endian."""
    data = encode(kind, value)
    head = struct.pack("<HH", group, number) + kind.encode()
    if kind in LONG:
        return head + struct.pack("<HI", 0, len(data)) + data
    return head + struct.pack("<H", len(data)) + data


def encode(kind: str, value: Any) -> bytes:
    if kind == "SQ":
        return b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(v)) + v for v in value)
    if kind in ("US", "UL", "FL", "FD"):
        code = {"US": "H", "UL": "I", "FL": "f", "FD": "d"}[kind]
        return struct.pack(f"<{code}", value)
    data = value if isinstance(value, bytes) else str(value).encode()
    return data + (b"\0" if kind in ("UI", "OB") else b" ") * (len(data) % 2)


def jpeg(tile: Image) -> bytes:
    done, data = cv2.imencode(".jpg", tile[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert done
    return data.tobytes()


@dataclasses.dataclass(frozen=True)
class Coding:
    """How the tiles are coded, and what the header calls their colours."""

    syntax: str = JPEG_BASELINE
    encode: Callable[[Image], bytes] = jpeg
    colours: str = "YBR_FULL_422"


def write_dicom(folder: Path, image: Image, mpp: float = 0.5, coding: Coding = Coding()) -> Path:
    """A folder with one file per level (1 and 4), tiles of 256 pixels, TILED_FULL."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, factor in enumerate((1, 4)):
        size = (image.shape[1] // factor, image.shape[0] // factor)
        level = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        data = _level(
            level, mpp * factor, number, image.shape[1] * mpp, image.shape[0] * mpp, coding
        )
        (folder / f"level_{number}.dcm").write_bytes(data)
    return folder


def _level(
    image: Image, mpp: float, number: int, width_um: float, height_um: float, coding: Coding
) -> bytes:
    height, width = image.shape[:2]
    frames = _frames(image, coding)
    instance = f"{ROOT}.1.{number + 1}"
    meta = b"".join(
        (
            element(2, 1, "OB", b"\0\1"),
            element(2, 2, "UI", WSI_CLASS),
            element(2, 3, "UI", instance),
            element(2, 0x10, "UI", coding.syntax),
            element(2, 0x12, "UI", ROOT),
        )
    )
    spacing = element(0x28, 0x30, "DS", f"{mpp / 1000:.8f}\\{mpp / 1000:.8f}")
    measures = element(0x28, 0x9110, "SQ", [element(0x18, 0x50, "DS", "0.001") + spacing])
    flavour = "ORIGINAL\\PRIMARY\\VOLUME\\NONE"
    frame_type = element(0x40, 0x710, "SQ", [element(8, 0x9007, "CS", flavour)])
    body = [
        element(8, 8, "CS", flavour if number == 0 else "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED"),
        element(8, 0x16, "UI", WSI_CLASS),
        element(8, 0x18, "UI", instance),
        element(8, 0x60, "CS", "SM"),
        element(8, 0x70, "LO", "Tests"),
        element(0x20, 0xD, "UI", f"{ROOT}.2"),
        element(0x20, 0xE, "UI", f"{ROOT}.3"),
        element(0x20, 0x52, "UI", f"{ROOT}.4"),
        element(0x20, 0x9311, "CS", "TILED_FULL"),
        element(0x28, 2, "US", 3),
        element(0x28, 4, "CS", coding.colours),
        element(0x28, 6, "US", 0),
        element(0x28, 8, "IS", len(frames)),
        element(0x28, 0x10, "US", TILE),
        element(0x28, 0x11, "US", TILE),
        element(0x28, 0x100, "US", 8),
        element(0x28, 0x101, "US", 8),
        element(0x28, 0x102, "US", 7),
        element(0x28, 0x103, "US", 0),
        element(0x48, 1, "FL", width_um / 1000),
        element(0x48, 2, "FL", height_um / 1000),
        element(0x48, 6, "UL", width),
        element(0x48, 7, "UL", height),
        element(0x48, 0x105, "SQ", [element(0x48, 0x106, "SH", "1")]),
        element(0x48, 0x302, "UL", 1),
        element(0x5200, 0x9229, "SQ", [measures + frame_type]),
        _pixels(frames),
    ]
    length = element(2, 0, "UL", len(meta))
    return bytes(128) + b"DICM" + length + meta + b"".join(body)


def _frames(image: Image, coding: Coding) -> list[bytes]:
    frames = []
    for y in range(0, image.shape[0], TILE):
        for x in range(0, image.shape[1], TILE):
            tile = np.full((TILE, TILE, 3), 255, np.uint8)
            part = image[y : y + TILE, x : x + TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            data = coding.encode(tile)
            frames.append(data + b"\0" * (len(data) % 2))
    return frames


def _pixels(frames: list[bytes]) -> bytes:
    """Encapsulated frames behind a table of their offsets."""
    starts = np.cumsum([0, *(len(frame) + 8 for frame in frames[:-1])]).astype("<u4").tobytes()
    items = [starts, *frames]
    data = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    head = struct.pack("<HH", 0x7FE0, 0x10) + b"OB" + struct.pack("<HI", 0, 0xFFFFFFFF)
    return head + data + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
