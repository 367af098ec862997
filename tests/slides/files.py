"""Slides for tests, drawn and written on the fly: H&E-like pictures in the formats of scanners."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import tifffile

Image = npt.NDArray[np.uint8]
GLASS = (243, 241, 244)
INKS = {"red": (215, 20, 30), "green": (20, 130, 60), "blue": (25, 60, 190), "black": (25, 25, 28)}


def tissue_image(height: int, width: int, seed: int = 0, margin: float = 0.15) -> Image:
    """An ellipse of pink stroma with purple nuclei on glass; pixels of about 0.5 µm."""
    rng = np.random.default_rng(seed)
    image = np.empty((height, width, 3), np.float32)
    image[:] = GLASS
    inside = np.zeros((height, width), np.uint8)
    axes = (int(width * (0.5 - margin)), int(height * (0.5 - margin)))
    cv2.ellipse(inside, (width // 2, height // 2), axes, 0, 0, 360, 1, -1)
    texture = cv2.GaussianBlur(rng.standard_normal((height, width), np.float32), (0, 0), 3)
    for channel, (level, depth) in enumerate(((226, 45), (160, 90), (195, 63))):
        stroma = level + depth * texture
        image[..., channel] = np.where(inside > 0, stroma, image[..., channel])
    count = height * width // 900
    for x, y in rng.integers(0, (width, height), (count, 2)):
        if inside[y, x]:
            angle, size = int(rng.integers(180)), (int(rng.integers(5, 9)), int(rng.integers(4, 7)))
            cv2.ellipse(
                image, (int(x), int(y)), size, angle, 0, 360, (92, 62, 140), -1, cv2.LINE_AA
            )
    image += 1.2 * rng.standard_normal(image.shape, np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def draw_pen(image: Image, colour: str, start: tuple[int, int], end: tuple[int, int]) -> Image:
    """The picture with a pen stroke of 60 µm (at 0.5 µm/px) on it."""
    marked = image.copy()
    cv2.line(marked, start, end, INKS[colour], 120, cv2.LINE_AA)
    return marked


def halves(image: Image, steps: int, factor: int = 4) -> list[Image]:
    """The picture and `steps` smaller ones."""
    levels = [image]
    for _ in range(steps):
        height, width = levels[-1].shape[0] // factor, levels[-1].shape[1] // factor
        levels.append(cv2.resize(levels[-1], (width, height), interpolation=cv2.INTER_AREA))
    return levels


def write_aperio(
    path: Path,
    image: Image,
    mpp: float | None = 0.5,
    power: float | None = 20,
    levels: int = 1,
    factor: int = 4,
) -> Path:
    """A tiled JPEG pyramid that OpenSlide opens as Aperio's."""
    height, width = image.shape[:2]
    tail = f"|AppMag = {power:g}" if power else ""
    tail += f"|MPP = {mpp:g}" if mpp else ""
    with tifffile.TiffWriter(path) as file:
        for level in halves(image, levels, factor):
            file.write(
                level,
                tile=(256, 256),
                photometric="rgb",  # of what is given; the file holds YCbCr
                subsampling=(2, 2),
                compression="jpeg",
                compressionargs={"level": 90},
                description=f"Aperio Image Library v11.2.1 \n{width}x{height} (256x256){tail}",
                metadata=None,
                software=False,
            )
    return path


def write_ome(
    path: Path,
    image: Image,
    mpp: float = 0.5,
    levels: int = 1,
    unit: str = "µm",
    compression: str | None = None,
) -> Path:
    """An OME-TIFF, RGB, its pyramid in sub-directories."""
    pyramid = halves(image, levels, 2)
    metadata = {
        "axes": "YXS",
        "PhysicalSizeX": mpp,
        "PhysicalSizeXUnit": unit,
        "PhysicalSizeY": mpp,
        "PhysicalSizeYUnit": unit,
    }
    options = {"tile": (256, 256), "photometric": "rgb", "compression": compression}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(pyramid[0], subifds=levels, metadata=metadata, **options)
        for level in pyramid[1:]:
            file.write(level, subfiletype=1, **options)
    return path


def write_strips(path: Path, image: Image, mpp: float | None = 0.5, **options: object) -> Path:
    """A plain TIFF in strips, which OpenSlide refuses."""
    scale = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "centimeter"} if mpp else {}
    tifffile.imwrite(
        path, image, photometric="rgb", rowsperstrip=32, metadata=None, **scale, **options
    )
    return path


def write_bomb(path: Path, side: int = 1_000_000) -> Path:
    """A few hundred bytes that claim to be side x side pixels, in one deflated tile."""
    entries = [
        (256, 4, 1, side),
        (257, 4, 1, side),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 2),
        (277, 3, 1, 3),
        (322, 4, 1, side),
        (323, 4, 1, side),
        (324, 4, 1, 200),
        (325, 4, 1, 20),
    ]
    data = b"II*\0" + struct.pack("<IH", 8, len(entries))
    data += b"".join(struct.pack("<HHII", *entry) for entry in entries) + struct.pack("<I", 0)
    path.write_bytes(data.ljust(300, b"\0"))
    return path


def write_ndpi(path: Path, image: Image, mpp: float = 0.5, power: float = 20.0) -> Path:
    """A Hamamatsu slide of two levels: JPEG strips, 64-bit directory chain, vendor tags."""
    pages = [*halves(image, 1, 4)]
    body = bytearray(b"II*\0" + struct.pack("<I", 0) + bytes(8))
    pointer = 4
    for number, page in enumerate(pages):
        done, jpeg = cv2.imencode(".jpg", page[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        assert done
        jpeg_at = len(body)
        body += jpeg.tobytes()
        body += bytes(-len(body) % 8)
        texts_at = len(body)
        body += b"Hamamatsu\0\0\0\0\0\0\0" + struct.pack("<HHH", 8, 8, 8) + b"\0\0"
        body += struct.pack("<II", round(1e7 / mpp / 4**number), 1000)
        height, width = page.shape[:2]
        entries = [
            (256, 4, 1, width),
            (257, 4, 1, height),
            (258, 3, 3, texts_at + 16),
            (259, 3, 1, 7),
            (262, 3, 1, 6),
            (271, 2, 10, texts_at),
            (273, 4, 1, jpeg_at),
            (277, 3, 1, 3),
            (278, 4, 1, height),
            (279, 4, 1, len(jpeg)),
            (282, 5, 1, texts_at + 24),
            (283, 5, 1, texts_at + 24),
            (296, 3, 1, 3),
            (65420, 3, 1, 1),
            (65421, 11, 1, struct.unpack("<I", struct.pack("<f", power / 4**number))[0]),
            (65424, 9, 1, 0),
        ]
        body[pointer : pointer + 4] = struct.pack("<I", len(body))
        body += struct.pack("<H", len(entries))
        body += b"".join(struct.pack("<HHII", *entry) for entry in entries)
        pointer = len(body)
        body += bytes(8) + bytes(4 * len(entries))  # next directory, high halves of the values
    path.write_bytes(bytes(body))
    return path
