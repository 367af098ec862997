"""Colours that are not those of H&E on clear glass, drawn and as stains are published."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from pipeline.slides import colours
from tests.slides import files

# Unit optical densities in R, G, B (Ruifrok and Johnston 2001; H&E as in QuPath).
HAEMATOXYLIN, EOSIN = (0.651, 0.701, 0.290), (0.216, 0.801, 0.558)
DAB, ANILINE_BLUE = (0.268, 0.570, 0.776), (0.853, 0.509, 0.113)
GLASS = np.array((243.0, 241.0, 244.0))


def stained(first: tuple[float, ...], second: tuple[float, ...], glass: bool = True) -> files.Image:
    """A picture of two stains in all mixtures, beside glass."""
    rng = np.random.default_rng(0)
    amounts = cv2.GaussianBlur(rng.standard_normal((128, 256, 2)), (0, 0), 2)
    amounts = np.clip(0.25 + 0.8 * amounts, 0.02, None)
    if glass:
        amounts[:, :96] = 0
    light = GLASS * 10.0 ** -(amounts @ np.array([first, second]))
    return np.clip(np.rint(light + rng.normal(0, 1, light.shape)), 0, 254).astype(np.uint8)


def judged(image: files.Image) -> colours.Colours:
    tissue = (image.min(axis=2) < 225).astype(np.uint8)
    return colours.judge(np.ascontiguousarray(image), tissue)


def ycbcr(image: files.Image) -> files.Image:
    return cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]


def cast(*share: float) -> Callable[[files.Image], files.Image]:
    return lambda image: (image * np.array(share)).astype(np.uint8)


@pytest.mark.parametrize("glass", [True, False])
def test_haematoxylin_and_eosin_are_nothing_unusual(glass: bool) -> None:
    found = judged(stained(HAEMATOXYLIN, EOSIN, glass))
    assert found.doubts == () and found.hues_hold
    assert found.stains is not None
    np.testing.assert_allclose(found.stains[0], EOSIN, atol=0.1)
    np.testing.assert_allclose(found.stains[1], HAEMATOXYLIN, atol=0.1)


@pytest.mark.parametrize(
    ("spoil", "said", "hues_hold"),
    [
        (lambda image: image[..., ::-1], "red and blue are exchanged", False),
        (ycbcr, "darken together", False),
        (lambda image: cv2.cvtColor(image, cv2.COLOR_YCrCb2RGB), "darken together", False),
        (cast(1, 1, 0.85), "the empty glass is not grey but R 243, G 241, B 207", True),
        (cast(0.8, 0.9, 1), "the empty glass is not grey", True),
        (cast(1, 0.8, 0.8), "the empty glass is not grey", True),
    ],
)
def test_spoilt_colours_are_doubted(
    spoil: Callable[[files.Image], files.Image], said: str, hues_hold: bool
) -> None:
    found = judged(spoil(stained(HAEMATOXYLIN, EOSIN)))
    assert len(found.doubts) == 1 and said in found.doubts[0]
    assert found.hues_hold == hues_hold


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_pale_and_strong_staining_are_nothing_unusual(scale: float) -> None:
    image = 255.0 * (stained(HAEMATOXYLIN, EOSIN) / 255.0) ** scale
    assert judged(image.astype(np.uint8)).doubts == ()


def test_another_stain_does_not_pass_for_haematoxylin_and_eosin() -> None:
    assert "brown" in judged(stained(HAEMATOXYLIN, DAB)).doubts[0]
    assert "pink like eosin" in judged(stained(HAEMATOXYLIN, ANILINE_BLUE)).doubts[0]


def test_tissue_all_over_is_not_taken_for_coloured_glass() -> None:
    field = files.tissue_image(3000, 3000)[828:2172, 828:2172]
    small = cv2.resize(field, None, fx=1 / 16, fy=1 / 16, interpolation=cv2.INTER_AREA)
    assert judged(small).doubts == ()


def test_an_empty_slide_is_not_judged() -> None:
    noise = np.random.default_rng(0).normal(243, 1.5, (200, 200, 3)).astype(np.uint8)
    assert judged(noise).doubts == ()
    assert judged(np.full((200, 200, 3), 255, np.uint8)).doubts == ()


def test_a_cast_is_taken_away_from_the_whole_picture() -> None:
    image = stained(HAEMATOXYLIN, EOSIN)
    spoilt = cast(1, 1, 0.7)(image)
    corrected = colours.without_cast(spoilt, judged(spoilt).glass)
    white = colours.without_cast(image, (243, 241, 244))
    assert np.abs(corrected.astype(int) - white).mean() < 1.5
