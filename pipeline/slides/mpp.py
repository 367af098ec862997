"""Microns per pixel: where it comes from, whether it can be believed, what to do if not.

Every source that a file offers is listed, in order of trust, and the first plausible one is used.
Nothing doubtful is used in silence: what was ignored becomes a warning, and a slide without a
plausible scale goes by the cohort's policy. A physical tile is only as right as this number, and
it is wrong in practice: 10-fold unit errors, 1000 µm/px, tags that are missing after a conversion.
"""

from __future__ import annotations

import dataclasses
import html
import math
import re
from collections.abc import Callable, Mapping

from pipeline.config.tiling import TilingConfig
from pipeline.contracts.slide_warnings import SlideWarning
from pipeline.errors import SlideError

SQUARE_TOLERANCE = 0.05  # x and y may differ by this much, relative
AGREEMENT = 0.05  # two plausible sources may differ by this much before it is said
LARGEST_GLASS_MM = 210.0  # the largest histology glass is 8 x 6 inches
RESOLUTION = "tiff.XResolution"
MAGNIFICATION_MPP = 10.0  # 40x is 0.25 µm/px, 20x is 0.5 µm/px

_UNITS_UM = {
    **dict.fromkeys(
        ("µm", "μm", "âµm", "um", "micron", "microns", "micrometer", "micrometre"), 1.0
    ),
    "pm": 1e-6,
    "å": 1e-4,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "in": 25_400.0,
}
_TIFF_UNITS_UM = {"inch": 25_400.0, "centimeter": 10_000.0}
# What scanners are commonly set to: a number that is one of these after a slip was meant so.
_CUSTOMARY_MPP = (0.25, 0.5, 1.0)
_UNIT_SLIPS = {
    2.54: "if its resolution is in pixels per inch, not per cm",
    1 / 2.54: "if its resolution is in pixels per cm, not per inch",
}
_SLIPS = {**_UNIT_SLIPS, 10.0: "if its unit is ten times off", 0.1: "if its unit is ten times off"}
_SLIP_TOLERANCE = 0.01


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
    believed, passed_over = _sources(properties, dimensions, power, cfg)
    if override is not None:
        warnings = _check_override(override, believed, dimensions, power, cfg)
        return Scale(override, "sheet", power, tuple(warnings))
    if believed:
        (source, value), *others = believed
        warnings = [*passed_over, *_disagreements(source, value, others)]
        meant = _slip(value, _UNIT_SLIPS) if source == RESOLUTION and not others else ""
        if meant:
            told = f"{source} says {value:.4g} µm/px, which would be {meant}"
            warnings.append(SlideWarning("scale_unusual", told))
        return Scale(value, source, power, tuple(warnings))
    if cfg.mpp_policy == "default" and cfg.default_mpp is not None:
        told = f"default_mpp of {cfg.default_mpp:g} µm/px used: the file's is unknown"
        assumed = SlideWarning("scale_assumed", told)
        return Scale(cfg.default_mpp, "default", power, (*passed_over, assumed))
    remedy = "give it in the sheet's `mpp` column, or set tiling.mpp_policy: default"
    if passed_over:
        tried = "; ".join(warning.text for warning in passed_over)
        raise SlideError(f"no plausible mpp ({tried}); {remedy}", "implausible_mpp")
    raise SlideError(f"the file states no microns per pixel; {remedy}", "no_mpp")


def _sources(
    properties: Mapping[str, str],
    dimensions: tuple[int, int],
    power: float | None,
    cfg: TilingConfig,
) -> tuple[list[tuple[str, float]], list[SlideWarning]]:
    """The plausible sources in order of trust, and what stands before the first of them.

    An implausible source that is trusted less than the one that is used says nothing: converters
    leave a printer's resolution in the tags.
    """
    believed: list[tuple[str, float]] = []
    passed_over: list[str] = []
    seen: set[tuple[float, float]] = set()
    for source, read in _SOURCES.items():
        found = read(properties)
        if found is None or found in seen:  # the same tag under another name says nothing new
            continue
        seen.add(found)
        doubt = _doubt(*found, dimensions, power, cfg)
        if not doubt:
            believed.append((source, math.sqrt(found[0] * found[1])))
        elif not believed:
            passed_over.append(f"{source} of {found[0]:g} µm/px ignored: {doubt}")
    unit = _unknown_unit(properties)
    if unit and (not believed or believed[0][0] in _AFTER_OME):
        passed_over.append(unit)
    return believed, [SlideWarning("scale_passed_over", text) for text in passed_over]


def _check_override(
    override: float,
    believed: list[tuple[str, float]],
    dimensions: tuple[int, int],
    power: float | None,
    cfg: TilingConfig,
) -> list[SlideWarning]:
    """What speaks against the sheet's scale; refuses one that cannot be right."""
    doubt = _doubt(override, override, dimensions, None, cfg)
    if doubt:
        raise SlideError(
            f"the sheet's mpp of {override:g} µm/px is not plausible: {doubt}; correct the sheet",
            "implausible_mpp",
        )
    warnings = _disagreements("the sheet", override, believed[:1])
    doubt = _doubt(override, override, dimensions, power, cfg)
    if doubt:
        told = f"the sheet's {override:g} µm/px {doubt}"
        warnings.append(SlideWarning("scale_sources_disagree", told))
    return warnings


def _disagreements(
    source: str, value: float, others: list[tuple[str, float]]
) -> list[SlideWarning]:
    return [
        SlideWarning(
            "scale_sources_disagree",
            f"{source} says {value:.4g} µm/px and is used, {other} says {second:.4g}",
        )
        for other, second in others
        if abs(second / value - 1) > AGREEMENT
    ]


def _slip(value: float, slips: Mapping[float, str]) -> str:
    """What a value would be after a common mistake with its unit, or an empty text."""
    for factor, words in slips.items():
        for customary in _CUSTOMARY_MPP:
            if abs(value * factor / customary - 1) < _SLIP_TOLERANCE:
                return f"{customary:g} {words}"
    return ""


def _doubt(
    x: float, y: float, dimensions: tuple[int, int], power: float | None, cfg: TilingConfig
) -> str:
    """Why a scale cannot be believed, or an empty text."""
    low, high = cfg.mpp_range
    if not (low <= x <= high and low <= y <= high):
        meant = _slip(math.sqrt(x * y), _SLIPS)
        return f"outside tiling.mpp_range {low:g} to {high:g}" + (
            f"; it would be {meant}" if meant else ""
        )
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
        unit = _ome_unit(properties, axis)
        return value * _UNITS_UM[unit] if value is not None and unit in _UNITS_UM else None

    return _pair(side("X"), side("Y"))


def _ome_unit(properties: Mapping[str, str], axis: str) -> str:
    # Some writers escape the micro sign twice.
    return html.unescape(properties.get(f"ome.PhysicalSize{axis}Unit", "µm")).strip().lower()


def _unknown_unit(properties: Mapping[str, str]) -> str:
    value, unit = properties.get("ome.PhysicalSizeX"), _ome_unit(properties, "X")
    if value is None or unit in _UNITS_UM:
        return ""
    return f"ome.PhysicalSizeX of {value} ignored: its unit `{unit}` is no known length"


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
    RESOLUTION: _resolution,
}
_AFTER_OME = ("comment", RESOLUTION)
