"""Microns per pixel: where it comes from, whether it can be believed, what to do if not.

Every source that a file offers is listed, in order of trust, and the first believable one is used.
Nothing doubtful is used in silence: what was passed over becomes a warning, and a slide without a
believable scale goes by the cohort's policy. A physical tile is only as right as this number, and
it is wrong in practice: 10-fold unit errors, 1000 µm/px, tags that are missing after a conversion.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping

from pipeline.config.tiling import TilingConfig
from pipeline.contracts.slide_warnings import SlideWarning
from pipeline.errors import SlideError

SQUARE_TOLERANCE = 0.05  # x and y may differ by this much, relative
AGREEMENT = 0.10  # two believable sources may differ by this much before it is said
LARGEST_GLASS_MM = 210.0  # the largest histology glass is 8 x 6 inches
MAGNIFICATION_MPP = 10.0  # 40x is 0.25 µm/px, 20x is 0.5 µm/px

_UNITS_UM = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "mm": 1e3, "cm": 1e4}
_TIFF_UNITS_UM = {"inch": 25_400.0, "centimeter": 10_000.0}


@dataclasses.dataclass(frozen=True)
class Scale:
    """The scale of a slide.

    Attributes:
        mpp: µm per pixel of level 0.
        source: where it was found: `sheet`, a property's name, or `default`.
        magnification: the objective's power as the file states it, or None.
        warnings: what was doubtful.
    """

    mpp: float
    source: str
    magnification: float | None
    warnings: tuple[SlideWarning, ...]


def find_scale(
    properties: Mapping[str, str],
    dimensions: tuple[int, int],
    override: float | None,
    cfg: TilingConfig,
) -> Scale:
    """Decide a slide's microns per pixel.

    Args:
        properties: the slide's properties.
        dimensions: (width, height) of level 0, to see how large the glass would be.
        override: the value of the sheet's column, which comes before all others.
        cfg: range, magnification factor, policy and default.

    Raises:
        SlideError: `no_mpp` or `implausible_mpp`, with the remedy, unless the policy is `default`.
    """
    power = _number(properties.get("openslide.objective-power"))
    if override is not None:
        doubt = _doubt(override, override, dimensions, None, cfg)
        if doubt:
            raise SlideError(
                f"the sheet's mpp of {override:g} µm/px is not believable: {doubt}; mend the sheet",
                "implausible_mpp",
            )
        doubt = _doubt(override, override, dimensions, power, cfg)
        told = f"the sheet's {override:g} µm/px {doubt}"
        unusual = SlideWarning("scale_sources_disagree", told)
        return Scale(override, "sheet", power, (unusual,) if doubt else ())

    believed: list[tuple[str, float]] = []
    warnings: list[SlideWarning] = []
    seen: set[tuple[float, float]] = set()
    for source, read in _SOURCES.items():
        found = read(properties)
        if found is None or found in seen:  # the same tag under another name says nothing new
            continue
        seen.add(found)
        doubt = _doubt(*found, dimensions, power, cfg)
        if doubt:
            told = f"{source} of {found[0]:g} µm/px passed over: {doubt}"
            warnings.append(SlideWarning("scale_passed_over", told))
        else:
            believed.append((source, math.sqrt(found[0] * found[1])))
    if believed:
        source, value = believed[0]
        for other, second in believed[1:]:
            if abs(second / value - 1) > AGREEMENT:
                told = f"{source} says {value:g} µm/px, {other} says {second:g}"
                warnings.append(SlideWarning("scale_sources_disagree", told))
        return Scale(value, source, power, tuple(warnings))
    if cfg.mpp_policy == "default" and cfg.default_mpp is not None:
        told = f"default_mpp of {cfg.default_mpp:g} µm/px used: the file's is unknown"
        warnings.append(SlideWarning("scale_assumed", told))
        return Scale(cfg.default_mpp, "default", power, tuple(warnings))
    remedy = "give it in the sheet's `mpp` column, or set tiling.mpp_policy: default"
    if warnings:
        tried = "; ".join(warning.text for warning in warnings)
        raise SlideError(f"no believable mpp ({tried}); {remedy}", "implausible_mpp")
    raise SlideError(f"the file states no microns per pixel; {remedy}", "no_mpp")


def _doubt(
    x: float, y: float, dimensions: tuple[int, int], power: float | None, cfg: TilingConfig
) -> str:
    """Why a scale cannot be believed, or an empty text."""
    low, high = cfg.mpp_range
    if not (low <= x <= high and low <= y <= high):
        return f"outside tiling.mpp_range {low:g} to {high:g}"
    if abs(x / y - 1) > SQUARE_TOLERANCE:
        return f"pixels are not square ({x:g} by {y:g})"
    if power:
        factor = x * power / MAGNIFICATION_MPP
        if not 1 / cfg.mpp_magnification_factor <= factor <= cfg.mpp_magnification_factor:
            return f"does not go with the objective of {power:g}x"
    side = max(dimensions) * x / 1000
    if side > LARGEST_GLASS_MM:
        return f"the slide would be {side:.0f} mm long"
    return ""


def _number(text: str | None) -> float | None:
    """The number at the start of a text; commas as decimal points are understood."""
    match = re.match(r"\s*([0-9]+(?:[.,][0-9]+)?(?:[eE][-+]?[0-9]+)?)", text or "")
    if not match:
        return None
    value = float(match[1].replace(",", "."))
    return value if math.isfinite(value) and value > 0 else None


def _pair(x: float | None, y: float | None) -> tuple[float, float] | None:
    return (x, y if y is not None else x) if x is not None else None


def _vendor(properties: Mapping[str, str]) -> tuple[float, float] | None:
    # OpenSlide derives a generic TIFF's mpp from its resolution tags: that is another source.
    if properties.get("openslide.vendor") == "generic-tiff":
        return None
    return _pair(
        _number(properties.get("openslide.mpp-x")), _number(properties.get("openslide.mpp-y"))
    )


def _aperio(properties: Mapping[str, str]) -> tuple[float, float] | None:
    return _pair(_number(properties.get("aperio.MPP")), None)


def _ome(properties: Mapping[str, str]) -> tuple[float, float] | None:
    def side(axis: str) -> float | None:
        value = _number(properties.get(f"ome.PhysicalSize{axis}"))
        unit = properties.get(f"ome.PhysicalSize{axis}Unit", "µm")
        return value * _UNITS_UM[unit] if value is not None and unit in _UNITS_UM else None

    return _pair(side("X"), side("Y"))


def _comment(properties: Mapping[str, str]) -> tuple[float, float] | None:
    text = properties.get("openslide.comment", "")
    match = re.search(r"<PixelSizeMicrons>([^<]+)<", text) or re.search(r"\bMPP\s*=\s*(\S+)", text)
    return _pair(_number(match[1]) if match else None, None)


def _resolution(properties: Mapping[str, str]) -> tuple[float, float] | None:
    unit = _TIFF_UNITS_UM.get(properties.get("tiff.ResolutionUnit", ""))
    across = _number(properties.get("tiff.XResolution"))
    down = _number(properties.get("tiff.YResolution"))
    if unit is None or across is None:
        return None
    return unit / across, unit / (down or across)


_SOURCES: dict[str, Callable[[Mapping[str, str]], tuple[float, float] | None]] = {
    "aperio.MPP": _aperio,
    "openslide.mpp-x": _vendor,
    "ome.PhysicalSizeX": _ome,
    "comment": _comment,
    "tiff.XResolution": _resolution,
}
