"""Where things lie on a drawn slide: tissue, tumour nests, lumens, fat, fibres.

All lengths are in µm, so that a slide looks the same at any microns per pixel. Areas are smooth
fields on a coarse grid (one value per GRID µm), positive inside; painting enlarges them to pixels,
where their zero line becomes a clean outline.
"""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

GRID = 4.0
CLASSES = ("tumour", "stroma", "fat")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The coarse map of a slide; all fields float32 of shape (rows, columns) of the grid.

    Attributes:
        tissue: positive inside the tissue; about µm from its edge near it.
        nests: positive inside tumour nests.
        lumens: positive inside gland lumens.
        fat: positive where the tissue is fat.
        membranes: µm from the nearest membrane between fat cells.
        infiltrate: where lymphocytes gather, unit normal.
        fibre_u, fibre_v: coordinates (µm) along and across the stroma's fibres.
        tint: slow change of staining over the slide, unit normal.
    """

    tissue: Field
    nests: Field
    lumens: Field
    fat: Field
    membranes: Field
    infiltrate: Field
    fibre_u: Field
    fibre_v: Field
    tint: Field


def lay_out(
    rng: np.random.Generator,
    width_um: float,
    height_um: float,
    tumour_fraction: float,
    growth: float,
) -> Layout:
    """Lay out a slide.

    Args:
        rng: of the slide.
        width_um, height_um: size of the slide.
        tumour_fraction: share of the tissue without fat that the nests take.
        growth: 0: glands with lumens; 0.5: solid nests; 1: thin winding cords.
    """
    shape = (math.ceil(height_um / GRID), math.ceil(width_um / GRID))
    tissue = _tissue(rng, shape)
    fat = _fat(rng, shape, tissue)
    nests, lumens = _tumour(rng, shape, (tissue > 0) & (fat < 0), tumour_fraction, growth)
    u, v = _fibres(rng, shape)
    return Layout(
        tissue=tissue,
        nests=nests,
        lumens=lumens,
        fat=fat,
        membranes=_foam(rng, shape),
        infiltrate=noise(rng, shape, 60.0),
        fibre_u=u,
        fibre_v=v,
        tint=noise(rng, shape, 250.0),
    )


def classes(layout: Layout) -> NDArray[np.uint8]:
    """What a pathologist would annotate, on the grid: 0 = glass, k = `CLASSES[k - 1]`."""
    found = np.where(layout.nests > 0, 1, 2)
    found = np.where(layout.fat > 0, 3, found)
    return np.where(layout.tissue > 0, found, 0).astype(np.uint8)


def noise(
    rng: np.random.Generator, shape: tuple[int, int], scale_um: float, grid: float = GRID
) -> Field:
    """Smooth noise, mean 0 and deviation 1, whose spots are about `scale_um` wide.

    Args:
        rng: draws it.
        shape: (height, width) in grid points.
        scale_um: width of a spot in µm.
        grid: µm between grid points.
    """
    sigma = max(scale_um / grid / 2.5, 0.6)
    margin = math.ceil(3 * sigma)
    white = rng.standard_normal((shape[0] + 2 * margin, shape[1] + 2 * margin), np.float32)
    smooth = cv2.GaussianBlur(white, (0, 0), sigma)[margin:-margin, margin:-margin]
    # The deviation of blurred white noise is known; the sample's own would hide large spots.
    return np.ascontiguousarray(smooth * np.float32(2 * sigma * math.sqrt(math.pi)))


def _tissue(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """One to three pieces of irregular outline, clear of the slide's edges."""
    rows, columns = shape
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    pieces = int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
    along_x = columns >= rows
    long, short = max(rows, columns), min(rows, columns)
    best = np.full(shape, -np.inf, np.float32)
    rough = 0.12 * noise(rng, shape, 320.0) + 0.045 * noise(rng, shape, 60.0)
    for piece in range(pieces):
        centre_long = (piece + 0.5 + rng.uniform(-0.05, 0.05)) / pieces * long
        centre_short = short * rng.uniform(0.46, 0.54)
        a = long / pieces * rng.uniform(0.34, 0.39)
        b = min(short * rng.uniform(0.31, 0.38), 2.2 * a)
        angle = rng.uniform(-0.25, 0.25)
        dx = (x if along_x else y) - centre_long
        dy = (y if along_x else x) - centre_short
        u = (dx * math.cos(angle) + dy * math.sin(angle)) / a
        v = (dy * math.cos(angle) - dx * math.sin(angle)) / b
        best = np.maximum(best, (1 + rough - np.sqrt(u * u + v * v)) * (min(a, b) * GRID))
    edge = np.minimum.reduce([x, y, columns - 1 - x, rows - 1 - y]) * GRID - 25.0
    return np.minimum(best, edge).astype(np.float32)


def _fat(rng: np.random.Generator, shape: tuple[int, int], tissue: Field) -> Field:
    """A share of 2 to 14 per cent of the tissue, rather towards its edge."""
    field = noise(rng, shape, 300.0) - 0.004 * tissue
    return field - _quantile(field, tissue > 0, 1 - rng.uniform(0.02, 0.14))


def _foam(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """µm from the nearest wall of a foam of cells about 45 µm wide (a jittered Voronoi diagram)."""
    points = jittered_grid(rng, shape[1] * GRID, shape[0] * GRID, 46.0, 0.28)
    seeds = np.ones(shape, np.uint8)
    column, row = (points / GRID).astype(np.intp).T
    seeds[row.clip(0, shape[0] - 1), column.clip(0, shape[1] - 1)] = 0
    _, cell = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    open_space = np.ones(shape, np.uint8)
    open_space[:, 1:][cell[:, 1:] != cell[:, :-1]] = 0
    open_space[1:][cell[1:] != cell[:-1]] = 0
    return cv2.GaussianBlur(cv2.distanceTransform(open_space, cv2.DIST_L2, 5) * GRID, (0, 0), 0.7)


def _tumour(
    rng: np.random.Generator,
    shape: tuple[int, int],
    inside: NDArray[np.bool_],
    fraction: float,
    growth: float,
) -> tuple[Field, Field]:
    """Nests and their lumens; the pattern changes gradually with `growth`."""
    cords = _smoothstep(0.45, 0.95, growth)
    glands = 1 - _smoothstep(0.08, 0.55, growth)
    blobs = noise(rng, shape, 95.0 - 25.0 * glands)
    # Bands around the zero line of noise wind through the stroma like cords of cells.
    bands = (0.6 - np.abs(noise(rng, shape, 62.0))) * 1.6
    clumps = noise(rng, shape, 420.0)
    field = (1 - cords) * blobs + cords * bands + (0.45 - 0.25 * cords) * clumps
    field += 0.05 * noise(rng, shape, 12.0)
    nests = np.where(inside, field - _quantile(field, inside, 1 - fraction), -1.0)
    nests = cv2.GaussianBlur(nests.astype(np.float32), (0, 0), 0.8)
    depth = cv2.distanceTransform((nests > 0).astype(np.uint8), cv2.DIST_L2, 5) * GRID
    holes = noise(rng, shape, 42.0)
    # A lumen keeps one layer of cells around it at least; without glands no nest is deep enough.
    deep = depth - 10.0 / max(glands, 0.02)
    lumens = np.minimum(deep / 10.0, holes + 0.15 * glands - 0.2)
    return nests, cv2.GaussianBlur(lumens.astype(np.float32), (0, 0), 0.7)


def _fibres(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Field, Field]:
    y, x = (np.mgrid[0 : shape[0], 0 : shape[1]] * GRID).astype(np.float32)
    angle = rng.uniform(0, math.pi)
    u = x * math.cos(angle) + y * math.sin(angle) + 40.0 * noise(rng, shape, 240.0)
    v = y * math.cos(angle) - x * math.sin(angle) + 55.0 * noise(rng, shape, 240.0)
    return u.astype(np.float32), v.astype(np.float32)


def fibre_angle(layout: Layout) -> Field:
    """Direction of the fibres in radians on the grid: along it, `fibre_v` does not change."""
    dy, dx = np.gradient(layout.fibre_v)
    return np.arctan2(-dx, dy).astype(np.float32)


def _quantile(field: Field, where: NDArray[np.bool_], share: float) -> np.float32:
    inside = field[where]
    return np.float32(np.quantile(inside, share)) if inside.size else np.float32(0)


def _smoothstep(low: float, high: float, value: float) -> float:
    t = min(max((value - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


def jittered_grid(
    rng: np.random.Generator, width_um: float, height_um: float, spacing: float, jitter: float
) -> NDArray[np.float32]:
    """Points (N, 2) as (x, y) in µm on a hexagonal grid, each moved by up to jitter x spacing.

    Args:
        rng: draws the moves.
        width_um: width of the area in µm.
        height_um: height of the area in µm.
        spacing: distance of neighbouring points in µm.
        jitter: largest move, as a share of the spacing.
    """
    rows = np.arange(0, height_um, spacing * math.sqrt(3) / 2, dtype=np.float32)
    columns = np.arange(0, width_um, spacing, dtype=np.float32)
    x, y = np.meshgrid(columns, rows)
    x[1::2] += spacing / 2
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    return points + rng.uniform(-jitter, jitter, points.shape).astype(np.float32) * spacing


def sample(field: Field, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The coarse field's values at points in µm (nearest grid value)."""
    index = np.clip((points / GRID).astype(np.intp), 0, np.array(field.shape)[::-1] - 1)
    return field[index[:, 1], index[:, 0]]


def enlarge(field: Field, shape: tuple[int, int], mpp: float, top: int = 0) -> Field:
    """A band of a coarse field at full size.

    Args:
        field: on the coarse grid.
        shape: rows and columns of the band.
        mpp: µm per pixel.
        top: first row of the band.
    """
    scale = mpp / GRID
    shift = 0.5 * (scale - 1)
    matrix = np.array([[scale, 0, shift], [0, scale, shift + top * scale]], np.float64)
    return cv2.warpAffine(
        field,
        matrix,
        (shape[1], shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
