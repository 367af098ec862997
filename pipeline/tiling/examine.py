"""What tiling finds out about one open slide. Reads pixels, writes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from pipeline.config.tiling import TilingConfig
from pipeline.contracts.slide_facts import SlideFacts, Stain
from pipeline.contracts.slide_warnings import SlideWarning
from pipeline.errors import SlideError
from pipeline.slides import artefacts, colours, grid, masks
from pipeline.slides.base import Slide
from pipeline.slides.mpp import Scale
from pipeline.slides.overview_scan import Survey, survey
from pipeline.slides.polygons import TISSUE, Polygon, from_mask
from pipeline.slides.scanned import Frame, frame_of
from pipeline.slides.tile_coverage import Coords, Mask, cover_at
from pipeline.slides.tissue import count_pieces, drop_small, segment, white_balance
from pipeline.tiling.choose import LIMITS, Tiles, choose, measure
from pipeline.tiling.given import read_given

OUTLINE_TOLERANCE = 0.75  # pixels of the segmentation
DARK, LIT_FRACTION = 100, 0.02
SMALL_SHARE = 0.1  # of the tissue in pieces that are too small: more is worth a warning
COLOURS_UNUSUAL = "colours_unusual"
STAIN_SAMPLE = 200_000  # pixels of the segmentation image
# Optical density of pure haematoxylin and eosin in R, G, B (Ruifrok and Johnston 2001).
STAINS = np.array([(0.650, 0.704, 0.286), (0.072, 0.990, 0.105)])


@dataclasses.dataclass(frozen=True)
class Findings:
    """One slide, tiled.

    Attributes:
        survey: the slide from afar.
        tissue: uint8 (H, W) like `survey.image`.
        masked: why something is no tissue -> uint8 (H, W): pen, blur, folds, where switched on,
            and `small`, the pieces below the smallest area.
        frame: which part of the glass was scanned, and where GeoJSON counts from.
        polygons: the tissue's outlines, with the user's classes where there are some.
        geometry: how tiles are read.
        covered: the same names -> the share of all tissue that it covers.
        tiles: where they are, and how much of each is tissue, pen, blur and folds.
        labels: the class of each tile where the user's mask has classes, else None.
        facts: for the ledger's record and the tables.
    """

    survey: Survey
    tissue: Mask
    masked: dict[str, Mask]
    polygons: list[Polygon]
    frame: Frame
    geometry: grid.Geometry
    covered: dict[str, float]
    tiles: Tiles
    labels: list[str] | None
    facts: SlideFacts


def examine(
    slide: Slide,
    scale: Scale,
    cfg: TilingConfig,
    mask: Path | None,
    coordinates: Path | None,
    name: str,
) -> Findings:
    """Segment and tile an open slide.

    Args:
        slide: the slide.
        scale: its µm per pixel.
        cfg: the tiling section.
        mask: the user's own tissue, which is taken at its word: no pen, blur or fold is cut out.
        coordinates: tiles of TRIDENT or CLAM, taken at their word: no minimal share of tissue.
        name: the slide's id, for the seed of `max_tiles`.

    Raises:
        SlideError: unreadable, too coarse, not brightfield, a bad mask, bad coordinates, or
            colours that cannot be right where those are refused.
    """
    geometry = grid.plan(scale.mpp, slide.level_downsamples, slide.level_dimensions, cfg)
    given = (
        read_given(coordinates, slide.dimensions, scale.mpp, geometry, cfg) if coordinates else None
    )
    if given:
        geometry = given.geometry
    view = survey(slide, scale.mpp, cfg.tissue.segmentation_mpp, cfg.tissue.remove_blur)
    _check_lit(slide, view)
    shape = (view.image.shape[0], view.image.shape[1])
    frame = frame_of(slide, cfg.geojson_origin, shape, view.downsample, mask is not None)
    regions = masks.read_regions(mask, frame, view.downsample) if mask else None
    pens = artefacts.find_pen(view.image, view.mpp)
    pen, inked, found, small = _segment(view, scale, cfg, regions, pens)
    seen = colours.judge(view.image, found & (1 - pen))
    if seen.doubts:
        if cfg.unusual_colours == "refuse":
            raise SlideError(f"{slide.path.name}: {'; '.join(seen.doubts)}", COLOURS_UNUSUAL)
        # A hue is not what the inks' bounds were chosen for: tissue would pass for pen.
        pens = {}
        if seen.hues_hold:
            uncast = colours.without_cast(view.image, seen.glass)
            pens = artefacts.find_pen(uncast, view.mpp)
        pen, inked, found, small = _segment(view, scale, cfg, regions, pens)
    judged = {"pen": pen, "folds": artefacts.find_folds(view.image, view.mpp, found & (1 - inked))}
    if cfg.tissue.remove_blur:
        judged["blur"] = artefacts.find_blur(view, found & (1 - inked))
    removed = tuple(n for n in LIMITS if getattr(cfg.tissue, f"remove_{n}") and regions is None)
    tissue = found
    if any(judged[name].any() for name in removed):
        for name in removed:
            tissue = tissue & (1 - judged[name])
        tissue = drop_small(tissue, cfg.tissue.min_area_um2 / view.mpp**2)

    if given:
        tiles = measure(view, tissue, judged, given.coords, geometry.size0)
    else:
        tiles = choose(view, found, tissue, judged, removed, geometry, cfg)
    labels = _labels(view, regions, tiles.coords, geometry) if regions else None
    candidates = len(tiles.coords)
    if cfg.max_tiles is not None:
        chosen = grid.spread(tiles.coords, cfg.max_tiles, cfg.seed, name)
        tiles = tiles.pick(chosen)
        labels = [labels[i] for i in chosen] if labels is not None else None
    area = {key: float(np.count_nonzero(part)) for key, part in judged.items()}
    area["small"] = float(np.count_nonzero(small))
    total = max(1.0, float(np.count_nonzero(found)))
    facts = SlideFacts(
        n_tiles=len(tiles.coords),
        n_candidates=candidates,
        width=slide.dimensions[0],
        height=slide.dimensions[1],
        mpp=round(scale.mpp, 6),
        mpp_source=scale.source,
        magnification=scale.magnification,
        backend=slide.backend,
        format=slide.properties.get("openslide.vendor", slide.backend),
        scene=slide.scene,
        levels=len(slide.level_dimensions),
        read_level=geometry.level,
        tile_um=round(geometry.size0 * scale.mpp, 3),
        found_mm2=round(float(np.count_nonzero(found)) * view.mpp**2 / 1e6, 4),
        tissue_mm2=round(float(np.count_nonzero(tissue)) * view.mpp**2 / 1e6, 4),
        tissue_source="mask" if regions else cfg.tissue.method,
        pen_fraction=round(area.get("pen", 0.0) / pen.size, 5),
        pen_colours=sorted(pens),
        blur_fraction=round(area.get("blur", 0.0) / total, 5),
        fold_fraction=round(area.get("folds", 0.0) / total, 5),
        tiles_left_out={name: len(tiles.left_out.get(name, ())) for name in removed},
        small_pieces=count_pieces(small),
        small_pieces_mm2=round(area["small"] * view.mpp**2 / 1e6, 4),
        grid_origin=list(tiles.origin),
        stain=_stain(view, tissue),
        colours=seen.facts(),
        tiles_source=given.source if given else "grid",
        warnings=[
            *slide.warnings,
            *scale.warnings,
            *(given.warnings if given else []),
            *_warnings(view, cfg, area, total),
            *(_unusual(seen) if cfg.unusual_colours == "warn" else []),
            *(_kept_all_the_same(tiles, cfg) if given or regions else []),
        ],
    )
    return Findings(
        view,
        tissue,
        {name: judged[name] for name in removed} | {"small": small},
        _outlines(tissue, regions, view.downsample),
        frame,
        geometry,
        {name: float(np.count_nonzero(judged[name] & found)) / total for name in removed},
        tiles,
        labels,
        facts,
    )


def _segment(
    view: Survey,
    scale: Scale,
    cfg: TilingConfig,
    regions: masks.Regions | None,
    pens: dict[str, Mask],
) -> tuple[Mask, Mask, Mask, Mask]:
    """All pen; the pen that is cut out; all tissue; the pieces of it that are too small."""
    pen = np.zeros(view.image.shape[:2], np.uint8)
    for part in pens.values():
        pen |= part
    inked = pen if cfg.tissue.remove_pen else np.zeros_like(pen)
    if regions:
        found = (regions.classes > 0).astype(np.uint8)
        return pen, inked, found, np.zeros_like(found)
    segmented = segment(view.image, view.mpp, scale.mpp, cfg.tissue, inked)
    return pen, inked, segmented.tissue, segmented.small


def _unusual(seen: colours.Colours) -> list[SlideWarning]:
    if not seen.doubts:
        return []
    left = "" if seen.hues_hold else "; pen was not looked for, since it is known by its hue"
    return [SlideWarning(COLOURS_UNUSUAL, "; ".join(seen.doubts) + left)]


def _labels(
    view: Survey, regions: masks.Regions, coords: Coords, geometry: grid.Geometry
) -> list[str] | None:
    """The class that covers most of each tile, where the user's mask has classes."""
    if not regions.labelled:
        return None
    each = [
        cover_at(
            (regions.classes == k + 1).astype(np.uint8), view.downsample, coords, geometry.size0
        )
        for k in range(len(regions.names))
    ]
    best = np.argmax(np.stack(each), axis=0)
    return [regions.names[k] for k in best]


def _outlines(tissue: Mask, regions: masks.Regions | None, downsample: float) -> list[Polygon]:
    if regions is None or not regions.labelled:
        return from_mask(tissue, downsample, TISSUE, OUTLINE_TOLERANCE)
    return [
        polygon
        for k, name in enumerate(regions.names)
        for polygon in from_mask(
            (regions.classes == k + 1).astype(np.uint8), downsample, name, OUTLINE_TOLERANCE
        )
    ]


def _check_lit(slide: Slide, view: Survey) -> None:
    """Refuse a slide that is dark all over: fluorescence that was saved as RGB."""
    whole = view.image[: max(1, view.image.shape[0] - 1), : max(1, view.image.shape[1] - 1)]
    grey = cv2.cvtColor(np.ascontiguousarray(whole), cv2.COLOR_RGB2GRAY)  # without filled-up edges
    if np.count_nonzero(grey > DARK) < LIT_FRACTION * grey.size:
        raise SlideError(
            f"{slide.path.name}: dark all over, like fluorescence; encoders trained on brightfield "
            "stains cannot use it",
            "not_brightfield",
        )


def _stain(view: Survey, tissue: Mask) -> Stain:
    """Mean colour of the tissue, and how much haematoxylin and eosin explain it."""
    step = max(1, round(np.sqrt(tissue.size / STAIN_SAMPLE)))
    pixels = white_balance(np.ascontiguousarray(view.image[::step, ::step]))[
        tissue[::step, ::step] > 0
    ]
    if len(pixels) == 0:
        return Stain()
    density = -np.log10((pixels.astype(np.float32).clip(1, 255)) / 255).mean(axis=0)
    h_and_e = np.linalg.lstsq(STAINS.T, density, rcond=None)[0]
    return Stain(
        rgb=[round(float(v), 1) for v in pixels.mean(axis=0)],
        haematoxylin=round(float(h_and_e[0]), 4),
        eosin=round(float(h_and_e[1]), 4),
    )


def _warnings(
    view: Survey, cfg: TilingConfig, area: dict[str, float], total: float
) -> list[SlideWarning]:
    found = []
    if cfg.tissue.remove_blur and view.sharpness is None:
        found.append(SlideWarning("focus_not_judged", "scanned too coarsely to judge the focus"))
    if area.get("blur", 0.0) > 0.3 * total:
        told = f"{area['blur'] / total:.0%} of the tissue is out of focus"
        found.append(SlideWarning("out_of_focus", told))
    if area["small"] > SMALL_SHARE * (area["small"] + total):
        told = (
            f"{area['small'] / (area['small'] + total):.0%} of the tissue lies in pieces below "
            f"tiling.tissue.min_area_um2 = {cfg.tissue.min_area_um2:g} and is left out"
        )
        found.append(SlideWarning("pieces_left_out", told))
    if area.get("pen", 0.0) > 0.2 * view.image.shape[0] * view.image.shape[1]:
        found.append(SlideWarning("pen", "pen on more than a fifth of the slide"))
    return found


def _kept_all_the_same(tiles: Tiles, cfg: TilingConfig) -> list[SlideWarning]:
    """Tiles that the limits would leave out, where the user's own tissue or tiles are believed."""
    return [
        SlideWarning(
            "kept_artefacts",
            f"{count} of {len(tiles.coords)} tiles have more {name} than tiling.{LIMITS[name]} = "
            f"{getattr(cfg, LIMITS[name]):g}; they are used, because the sheet names the tissue or "
            "the tiles itself",
        )
        for name, count in tiles.above(cfg).items()
    ]
