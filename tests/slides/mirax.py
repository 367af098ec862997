"""A MIRAX slide written by hand: the door (`.mrxs`) and the folder that holds its pixels."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from tests.slides.files import Image

IMAGE = 256  # pixels a side of a camera image
SLIDE_ID = "0123456789abcdef0123456789abcdef"


def write_mirax(path: Path, image: Image, mpp: float = 0.5, power: int = 20) -> Path:
    """A slide of two levels (1 and 2); images that are all glass are left out, as scanners do."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True)
    path.write_bytes(b"\xff\xd8\xff\xd9")  # scanners put a small JPEG here
    across, down = -(-image.shape[1] // IMAGE), -(-image.shape[0] // IMAGE)
    across, down = across + across % 2, down + down % 2
    padded = np.full((down * IMAGE, across * IMAGE, 3), 255, np.uint8)
    padded[: image.shape[0], : image.shape[1]] = image
    data = bytearray()
    levels = []
    for zoom in range(2):
        step = 2**zoom
        entries = []
        for row in range(0, down, step):
            for column in range(0, across, step):
                part = padded[row * IMAGE : (row + step) * IMAGE, :]
                part = part[:, column * IMAGE : (column + step) * IMAGE]
                if part.min() > 225:
                    continue
                small = cv2.resize(part, (IMAGE, IMAGE), interpolation=cv2.INTER_AREA)
                done, jpeg = cv2.imencode(".jpg", small[..., ::-1])
                assert done
                entries.append((row * across + column, len(data), len(jpeg), 0))
                data += jpeg.tobytes()
        levels.append(entries)
    (folder / "Data0000.dat").write_bytes(data)
    (folder / "Index.dat").write_bytes(_index(levels))
    (folder / "Slidedat.ini").write_text(_ini(across, down, mpp, power), "utf-8-sig")
    return path


def _index(levels: list[list[tuple[int, int, int, int]]]) -> bytes:
    """Version, id, and for each level a list of (image number, offset, length, file)."""
    head = b"01.02" + SLIDE_ID.encode()
    roots = len(head)
    table = roots + 8
    body = bytearray(4 * len(levels))
    for number, entries in enumerate(levels):
        at = table + len(body)
        struct.pack_into("<i", body, 4 * number, at)
        body += struct.pack("<ii", 0, at + 8)  # an empty first page, then the page with the data
        body += struct.pack("<ii", len(entries), 0)
        body += b"".join(struct.pack("<iiii", *entry) for entry in entries)
    return head + struct.pack("<ii", table, table) + bytes(body)


def _ini(across: int, down: int, mpp: float, power: int) -> str:
    lines = [
        "[GENERAL]",
        f"SLIDE_ID = {SLIDE_ID}",
        f"IMAGENUMBER_X = {across}",
        f"IMAGENUMBER_Y = {down}",
        f"OBJECTIVE_MAGNIFICATION = {power}",
        "CameraImageDivisionsPerSide = 1",
        "[HIERARCHICAL]",
        "HIER_COUNT = 1",
        "NONHIER_COUNT = 0",
        "INDEXFILE = Index.dat",
        "HIER_0_NAME = Slide zoom level",
        "HIER_0_COUNT = 2",
        "HIER_0_VAL_0_SECTION = LEVEL_0",
        "HIER_0_VAL_1_SECTION = LEVEL_1",
        "[DATAFILE]",
        "FILE_COUNT = 1",
        "FILE_0 = Data0000.dat",
    ]
    for zoom in range(2):
        lines += [
            f"[LEVEL_{zoom}]",
            "OVERLAP_X = 0",
            "OVERLAP_Y = 0",
            f"MICROMETER_PER_PIXEL_X = {mpp * 2**zoom}",
            f"MICROMETER_PER_PIXEL_Y = {mpp * 2**zoom}",
            "IMAGE_FORMAT = JPEG",
            "IMAGE_FILL_COLOR_BGR = 16777215",
            f"DIGITIZER_WIDTH = {IMAGE}",
            f"DIGITIZER_HEIGHT = {IMAGE}",
            f"IMAGE_CONCAT_FACTOR = {zoom}",
        ]
    return "\r\n".join(lines) + "\r\n"
