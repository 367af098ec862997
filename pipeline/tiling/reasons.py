"""Why a slide has no tiles, in words that name the key which decides it."""

from __future__ import annotations

from pipeline.config.tiling import TilingConfig
from pipeline.tiling.choose import LIMITS
from pipeline.tiling.examine import Findings

LOOK = "look at its picture in tiles/qc"


def why_empty(found: Findings, cfg: TilingConfig) -> tuple[str, str]:
    """The kind and the reason of a slide without tiles.

    Returns:
        the kind (`no_tissue`, `small_pieces`, `masked`, `too_small`, `no_tiles`), and a line with
        what was found, what ruled it out, and what to change.
    """
    facts = found.facts
    removed = [name for name in LIMITS if name in found.masked]
    if not facts.found_mm2:
        if facts.small_pieces:
            return "small_pieces", (
                f"no piece of tissue is large enough: {facts.small_pieces} pieces with "
                f"{facts.small_pieces_mm2:g} mm2 in all are each below "
                f"tiling.tissue.min_area_um2 = {cfg.tissue.min_area_um2:g}; lower it, or {LOOK}"
            )
        return "no_tissue", (
            f"no tissue was found: nothing stands out from the glass for tiling.tissue.method: "
            f"{cfg.tissue.method}; {LOOK}; for pale tissue try method: entropy, or give a mask"
        )
    lost = {name: count for name, count in facts.tiles_left_out.items() if count}
    if lost or not facts.tissue_mm2:
        shares = ", ".join(f"{name} on {found.covered[name]:.0%}" for name in removed)
        switches = ", ".join(f"tiling.tissue.remove_{name}: false" for name in removed)
        return "masked", (
            f"all of the tissue ({facts.found_mm2:g} mm2) is masked or lies in tiles with too "
            f"much of what is masked: {shares} of it; {LOOK}. If that is no artefact, set "
            f"{switches}, or raise tiling.{LIMITS[next(iter(lost), removed[0])]}"
        )
    tile_um = cfg.tile_px * cfg.target_mpp
    size = facts.size_um
    best = f"a tile of {tile_um:g} um has {found.tiles.best:.0%} tissue at most"
    if min(size) < tile_um:
        return "too_small", (
            f"the slide is {size[0]:.0f} x {size[1]:.0f} um, and {best}; "
            f"use a smaller tiling.tile_px, or lower tiling.min_tissue_fraction = "
            f"{cfg.min_tissue_fraction:g}"
        )
    return "no_tiles", (
        f"tissue of {facts.tissue_mm2:g} mm2, but {best}; lower tiling.min_tissue_fraction = "
        f"{cfg.min_tissue_fraction:g}, or use a smaller tiling.tile_px"
    )
