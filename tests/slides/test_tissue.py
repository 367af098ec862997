"""Segmentation and artefacts on pictures whose truth is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.config.tiling import TissueConfig
from pipeline.slides import artefacts
from pipeline.slides.overview_scan import Survey, survey
from pipeline.slides.slide import open_slide
from pipeline.slides.tissue import clean, segment, two_pass_otsu, white_balance
from tests.slides import files

MPP = 8.0


def reduced(image: np.ndarray, factor: int = 16) -> np.ndarray:
    size = (image.shape[1] // factor, image.shape[0] // factor)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def truth(shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    height, width = shape
    cv2.ellipse(
        mask,
        (width // 2, height // 2),
        (round(width * 0.35), round(height * 0.35)),
        0,
        0,
        360,
        1,
        -1,
    )
    return mask


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def find(image, method="otsu", **keys):
    none = np.zeros(image.shape[:2], np.uint8)
    return segment(image, MPP, 0.5, TissueConfig(method=method, **keys), none).tissue


@pytest.fixture(scope="module")
def full():
    return files.tissue_image(2400, 3200)


@pytest.fixture(scope="module")
def small(full):
    return reduced(full)


@pytest.mark.parametrize(
    ("method", "keys"),
    [("otsu", {}), ("entropy", {}), ("clam", {"clam_preset": "bwh_biopsy"})],
)
def test_methods_find_the_tissue(small, method, keys):
    assert dice(find(small, method, **keys), truth(small.shape[:2])) > 0.95


@pytest.mark.parametrize("tint", [(1.0, 1.0, 1.0), (0.97, 0.95, 0.88), (0.9, 0.97, 0.97)])
def test_a_tinted_scan_segments_like_a_clean_one(small, tint):
    tinted = (small * np.array(tint)).astype(np.uint8)
    assert dice(find(tinted), truth(small.shape[:2])) > 0.95


def test_glass_alone_is_no_tissue():
    rng = np.random.default_rng(0)
    glass = np.clip(rng.normal(241, 1.5, (150, 200, 3)), 0, 255).astype(np.uint8)
    for method in ("otsu", "entropy", "clam"):
        assert not find(glass, method).any(), method
    assert not find(np.full((40, 40, 3), 255, np.uint8)).any()


def test_a_field_full_of_tissue_is_all_tissue(full):
    inner = reduced(np.ascontiguousarray(full[900:1500, 1100:2100]), 8)
    assert find(inner).mean() == 1


def test_pale_tissue(full):
    pale = reduced((255 - (255 - full.astype(int)) * 0.35).astype(np.uint8))
    assert dice(find(pale), truth(pale.shape[:2])) > 0.95
    grey = cv2.cvtColor(cv2.cvtColor(pale, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    assert not find(grey).any()  # no colour left for saturation
    sharp = grey.copy()
    assert dice(find(sharp, "entropy"), truth(pale.shape[:2])) > 0.8


def test_two_pass_otsu_separates_weak_stain_from_glass():
    histogram = np.zeros(256, int)
    histogram[2:6], histogram[35:50], histogram[120:160] = 1000, 20, 100
    assert 5 <= two_pass_otsu(histogram) < 35


def test_white_balance_leaves_padding_and_full_fields_alone(small):
    assert white_balance(small)[0, 0].min() >= 250
    dark = np.full((20, 20, 3), (150, 90, 140), np.uint8)
    assert np.array_equal(white_balance(dark), dark)


def test_clean_is_in_pixels_of_area():
    mask = np.zeros((60, 60), np.uint8)
    mask[5:45, 5:45] = 1
    mask[10:14, 10:14] = 0  # a hole of 16
    mask[20:30, 20:30] = 0  # a hole of 100
    mask[50:53, 50:53] = 1  # a speck of 9
    done = clean(mask, min_area=10, min_hole=20)
    assert done[12, 12] == 1 and done[25, 25] == 0 and done[51, 51] == 0
    assert clean(mask, 0, 20, max_holes=0)[25, 25] == 1
    assert clean(mask, 9, 0)[51, 51] == 1


@pytest.mark.parametrize("colour", sorted(files.INKS))
def test_each_ink_is_found_and_named(full, colour):
    image = reduced(files.draw_pen(full, colour, (300, 200), (1500, 2200)))
    stroke = reduced(files.draw_pen(np.zeros_like(full), "red", (300, 200), (1500, 2200)))
    found = artefacts.find_pen(image, MPP)
    assert list(found) == [colour]
    wanted = stroke[..., 0] > 100
    assert found[colour][wanted].mean() > 0.99
    assert found[colour].sum() < 3.5 * wanted.sum()


def test_no_ink_on_a_clean_slide(small):
    assert artefacts.find_pen(small, MPP) == {}


def look(tmp_path, image) -> Survey:
    with open_slide(files.write_ome(tmp_path / "a.ome.tif", image, levels=0)) as slide:
        return survey(slide, 0.5, MPP, focus=True)


def test_blur_is_found_where_it_is(tmp_path, full):
    image = full.copy()
    image[800:1600, 1000:1800] = cv2.GaussianBlur(image[800:1600, 1000:1800], (0, 0), 12)
    view = look(tmp_path, image)
    tissue = find(view.image)
    blur = artefacts.find_blur(view, tissue)
    inside = np.zeros_like(blur)
    inside[50:100, 63:112] = 1
    assert blur[inside > 0].mean() > 0.7
    assert blur[(inside == 0) & (tissue > 0)].mean() < 0.02


def test_a_sharp_slide_has_no_blur_whatever_its_contrast(tmp_path, full):
    pale = (255 - (255 - full.astype(int)) * 0.4).astype(np.uint8)
    for image in (full, pale):
        view = look(tmp_path, image)
        assert not artefacts.find_blur(view, find(view.image)).any()


def test_folds_are_darker_and_more_saturated_than_their_slide(small):
    image = small.copy()
    cv2.line(image, (90, 60), (120, 95), (120, 30, 110), 4)
    tissue = find(image)
    folds = artefacts.find_folds(image, MPP, tissue)
    assert folds[78, 105] == 1
    assert 50 < folds.sum() < 400
    assert artefacts.find_folds(small, MPP, tissue).sum() < 50


def test_the_survey_has_the_scale_it_says(tmp_path, full):
    with open_slide(files.write_aperio(tmp_path / "a.svs", full, mpp=0.46, levels=1)) as slide:
        view = survey(slide, 0.46, MPP, focus=True)
    assert view.mpp == pytest.approx(view.downsample * 0.46)
    assert view.mpp == pytest.approx(MPP, rel=0.3)
    assert view.image.shape[1] == pytest.approx(3200 / view.downsample, abs=1)
    assert max(view.thumbnail.shape) == 1024
    _, columns = view.sharpness.shape
    assert columns * view.block >= view.image.shape[1] > (columns - 1) * view.block - 1


def test_a_coarse_slide_has_no_focus_to_judge(tmp_path, full):
    with open_slide(files.write_ome(tmp_path / "a.ome.tif", full, mpp=6.0)) as slide:
        view = survey(slide, 6.0, MPP, focus=True)
    assert view.sharpness is None
    assert not artefacts.find_blur(view, np.ones(view.image.shape[:2], np.uint8)).any()
