"""The pictures: what the hidden state says can be seen, and OpenSlide opens them as Aperio's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest

from pipeline.cohort.synthetic import aperio
from pipeline.cohort.synthetic.painting import Picture, paint

PLAIN = Picture(
    width=900,
    height=800,
    mpp=0.5,
    site="north",
    tumour_fraction=0.4,
    pleomorphism=0.4,
    lymphocytes=0.3,
    growth=0.5,
    tissue=True,
    pen="",
    seed=3,
)


def in_tissue(image: np.ndarray) -> np.ndarray:
    """Pixels (N, 3) of the tissue with what it encloses."""
    small = cv2.blur(image, (25, 25))
    stained = ((small.max(axis=2) - small.min(axis=2)) > 20).astype(np.uint8)
    closed = cv2.morphologyEx(stained, cv2.MORPH_CLOSE, np.ones((81, 81), np.uint8))
    return image[closed > 0].astype(float)


def blueness(pixels: np.ndarray) -> float:
    """Tumour is purple, stroma pink."""
    return float((pixels[:, 2] - pixels[:, 0]).mean())


def dark(pixels: np.ndarray) -> float:
    return float((pixels.mean(axis=1) < 85).mean())


def open_space(pixels: np.ndarray) -> float:
    return float((pixels.min(axis=1) > 225).mean())


@pytest.mark.parametrize(
    ("state", "low", "high", "seen"),
    [
        ("tumour_fraction", 0.15, 0.75, blueness),
        ("pleomorphism", 0.0, 1.0, blueness),
        ("lymphocytes", 0.05, 0.95, dark),
        ("growth", 0.95, 0.05, open_space),
    ],
)
def test_a_state_can_be_seen(
    state: str, low: float, high: float, seen: Callable[[np.ndarray], float]
) -> None:
    def mean(value: float) -> float:
        drawn = [dataclasses.replace(PLAIN, seed=s, **{state: value}) for s in range(2)]
        return float(np.mean([seen(in_tissue(paint(p))) for p in drawn]))

    assert mean(high) > mean(low) + 0.01


def test_a_picture_depends_on_its_plan_alone() -> None:
    first = paint(PLAIN)
    paint(dataclasses.replace(PLAIN, seed=4))
    assert np.array_equal(first, paint(PLAIN))
    assert not np.array_equal(first, paint(dataclasses.replace(PLAIN, seed=4)))


def test_twice_the_resolution_is_the_same_tissue() -> None:
    coarse = paint(PLAIN)
    fine = paint(dataclasses.replace(PLAIN, width=1800, height=1600, mpp=0.25))
    smaller = cv2.resize(fine, (900, 800), interpolation=cv2.INTER_AREA)
    assert in_tissue(smaller).mean(axis=0) == pytest.approx(in_tissue(coarse).mean(axis=0), abs=7)
    a, b = (cv2.blur(i, (41, 41)).mean(axis=2) < 225 for i in (coarse, smaller))
    assert (a & b).sum() / (a | b).sum() > 0.9


def test_a_blank_slide_is_glass() -> None:
    image = paint(dataclasses.replace(PLAIN, tissue=False))
    assert image.min(axis=2).mean() > 235
    assert len(in_tissue(image)) == 0


def test_glass_surrounds_the_tissue() -> None:
    image = paint(PLAIN)
    assert np.median(image[:8]) > 235
    assert 0.2 < len(in_tissue(image)) / (PLAIN.width * PLAIN.height) < 0.75


@pytest.mark.parametrize(("pen", "channel"), [("blue", 2), ("red", 0), ("green", 1)])
def test_a_pen_mark_has_its_colour(pen: str, channel: int) -> None:
    marked = paint(dataclasses.replace(PLAIN, pen=pen)).astype(int)
    plain = paint(PLAIN).astype(int)
    changed = marked[np.abs(marked - plain).max(axis=2) > 60]
    assert len(changed) > 0.01 * PLAIN.width * PLAIN.height
    assert changed.mean(axis=0).argmax() == channel


def test_small_pictures_can_be_drawn() -> None:
    image = paint(dataclasses.replace(PLAIN, width=256, height=300))
    assert image.shape == (300, 256, 3)


# --- files ----------------------------------------------------------------------------------------


def test_openslide_opens_it_as_aperio(tmp_path: Path) -> None:
    image = cv2.resize(paint(PLAIN), (4200, 1300))
    path = tmp_path / "s.svs"
    aperio.write(path, image, 0.25, {"Note": "drawn"})
    slide = openslide.OpenSlide(path)
    assert slide.properties["openslide.vendor"] == "aperio"
    assert float(slide.properties["openslide.mpp-x"]) == 0.25
    assert slide.properties["openslide.objective-power"] == "40"
    assert slide.properties["aperio.Note"] == "drawn"
    assert slide.level_dimensions == ((4200, 1300), (1050, 325), (262, 81))
    assert slide.associated_images["thumbnail"].size == (262, 81)
    for level, at in ((0, (1000, 500)), (1, (1000, 500)), (2, (0, 0))):
        drawn = np.asarray(slide.read_region(at, level, (80, 60)).convert("RGB"), float)
        shrunk = cv2.resize(image, slide.level_dimensions[level], interpolation=cv2.INTER_AREA)
        x, y = (round(v / slide.level_downsamples[level]) for v in at)
        assert np.abs(drawn - shrunk[y : y + 60, x : x + 80]).mean() < 5


def test_without_mpp_the_tags_are_absent(tmp_path: Path) -> None:
    aperio.write(tmp_path / "s.svs", paint(PLAIN), None)
    properties = openslide.OpenSlide(tmp_path / "s.svs").properties
    assert properties["openslide.vendor"] == "aperio"
    assert not {"openslide.mpp-x", "openslide.mpp-y", "openslide.objective-power"} & set(properties)


def test_the_same_picture_makes_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        aperio.write(tmp_path / name, paint(PLAIN), 0.5)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
