"""The embedded cohort: planned without drawing, drawn once, and grown without drawing again."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import cv2
import openslide
import pandas as pd
import pytest

from pipeline.cohort import sheet
from pipeline.cohort.synthetic import embedded, painting
from pipeline.config.cohort import CohortConfig, SyntheticConfig
from pipeline.errors import UserError
from pipeline.slides.masks import read_regions
from pipeline.slides.scanned import Frame, inside
from pipeline.slides.slide import open_slide

SMALL = SyntheticConfig(
    cases=12, two_slide_fraction=0.25, pen_fraction=0.25, slide_px=(300, 340), seed=5
)


def config(**changes: object) -> CohortConfig:
    return CohortConfig(name="tiny", synthetic=SMALL.model_copy(update=changes))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a drawn cohort, where the workflow keeps it; tests leave it as it is."""
    path = embedded.sheet_path(config(), tmp_path_factory.mktemp("base"))
    embedded.generate(cfg=config(), sheet=path, workers=1)
    return path.parent


def test_the_plan_of_the_default_cohort() -> None:
    slides = embedded.slides(SyntheticConfig())
    assert Counter(s.role for s in slides) == {"good": 117, "truncated": 1, "blank": 1, "no_mpp": 1}
    assert len({s.slide_id for s in slides}) == len(slides) == 120
    assert sum(s.facts["mpp"] == 0.25 for s in slides) == 20
    assert sum(bool(s.facts["pen"]) for s in slides) == 8
    good = {s.case_id for s in slides if s.role == "good"}
    assert len(good) == 100, "every case keeps a good slide"
    sides = [s.facts[k] for s in slides for k in ("width", "height")]
    assert min(sides) >= 2000 and max(sides) <= 5200


def test_a_larger_cohort_keeps_its_slides() -> None:
    few = embedded.slides(SyntheticConfig(cases=12))
    many = embedded.slides(SyntheticConfig(cases=300))
    assert many[: len(few)] == few
    few_ids, many_ids = (
        embedded.identities(CohortConfig(synthetic=SyntheticConfig(cases=n))) for n in (12, 300)
    )
    assert few_ids.items() <= many_ids.items()


def test_broken_slides_can_be_left_out_and_take_first_slides_where_there_are_no_second() -> None:
    roles = [s.role for s in embedded.slides(config(broken_slides=False).synthetic)]
    assert set(roles) == {"good"}
    alone = embedded.slides(config(two_slide_fraction=0.0).synthetic)
    assert [s.role for s in alone[:4]] == ["truncated", "blank", "no_mpp", "good"]


def test_an_unusable_size_is_refused() -> None:
    for sizes in ((3000, 2000), (10, 20)):
        with pytest.raises(ValueError, match="slide_px"):
            SyntheticConfig(slide_px=sizes)


def test_the_sheet_says_what_the_plan_says(drawn: Path) -> None:
    planned = embedded.plan(config(), drawn.parent.parent)
    own = CohortConfig(name="mine", source="sheet", sheet=str(drawn / "slides.csv"))
    assert sheet.read_sheet(own, Path()) == planned
    assert all(Path(row.path).is_file() for row in planned)


def test_the_truth_is_written(drawn: Path) -> None:
    truth = pd.read_csv(drawn / "truth.csv")
    assert len(truth) == 12
    assert {"tumour_fraction", "pleomorphism", "lymphocytes", "growth", "log_hazard"} <= set(truth)
    table = pd.read_csv(drawn / "slides.csv").drop_duplicates("case_id")
    assert table["time"].tolist() == truth["time"].tolist()


def test_each_slide_is_what_it_was_planned_to_be(drawn: Path) -> None:
    for slide in embedded.slides(config().synthetic):
        path = embedded.slide_path(drawn, slide.slide_id)
        if slide.role == "truncated":
            with pytest.raises(openslide.OpenSlideError):
                openslide.OpenSlide(path).read_region((0, 0), 0, (340, 340))
            continue
        opened = openslide.OpenSlide(path)
        assert opened.properties["openslide.vendor"] == "aperio"
        assert opened.dimensions == (slide.facts["width"], slide.facts["height"])
        mpp = opened.properties.get("openslide.mpp-x")
        assert mpp == (None if slide.role == "no_mpp" else str(slide.facts["mpp"]))
        spread = opened.read_region((0, 0), 0, opened.dimensions).convert("HSV").split()[1]
        assert (spread.getextrema()[1] < 60) == (slide.role == "blank")


def test_only_what_is_new_is_drawn(drawn: Path, tmp_path: Path, monkeypatch) -> None:
    asked: list[int] = []

    def count(picture: painting.Picture, begun: painting.Sketch) -> painting.Image:
        asked.append(picture.seed)
        return paint(picture, begun)

    paint = painting.paint
    monkeypatch.setattr(painting, "paint", count)
    folder = tmp_path / "copy"
    (folder / "slides").mkdir(parents=True)
    for path in (drawn / "slides").iterdir():
        (folder / "slides" / path.name).write_bytes(path.read_bytes())
    target = folder / "slides.csv"
    embedded.generate(cfg=config(), sheet=target, workers=1)
    assert asked == []
    assert target.read_bytes() == (drawn / "slides.csv").read_bytes()
    embedded.generate(cfg=config(cases=14), sheet=target, workers=1)
    assert len(asked) == 2
    (folder / "slides" / "SYN-0003-A.svs").write_bytes(b"damaged")
    embedded.generate(cfg=config(cases=14), sheet=target, workers=1)
    assert len(asked) == 3
    embedded.generate(cfg=config(seed=6), sheet=target, workers=1)
    assert len(asked) == 3 + len(embedded.slides(SMALL))


def test_a_killed_run_leaves_no_half_slide(drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    for path in (drawn / "slides").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    left = f".SYN-0001-A.svs.{socket.gethostname()}-4194999-0123abcd.tmp.svs"
    (folder / left).write_bytes(b"half")
    embedded.generate(cfg=config(), sheet=tmp_path / "slides.csv", workers=1)
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        p.name for p in (drawn / "slides").iterdir()
    )


def test_several_workers_draw_the_same(drawn: Path, tmp_path: Path) -> None:
    embedded.generate(cfg=config(), sheet=tmp_path / "slides.csv", workers=2)
    for path in (drawn / "slides").iterdir():
        assert (tmp_path / "slides" / path.name).read_bytes() == path.read_bytes()


def test_a_fault_while_drawing_is_not_swallowed(tmp_path: Path, monkeypatch) -> None:
    def fail(picture: painting.Picture, begun: painting.Sketch) -> painting.Image:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(painting, "paint", fail)
    with pytest.raises(OSError, match="No space left"):
        embedded.generate(cfg=config(), sheet=tmp_path / "slides.csv", workers=1)
    assert not (tmp_path / "slides.csv").exists()
    assert not issubclass(OSError, UserError)


def test_a_slides_annotation_lies_where_its_tissue_lies(drawn: Path) -> None:
    good = [s for s in embedded.slides(config().synthetic) if s.role == "good"]
    for slide in good[:3]:
        path = drawn / "annotations" / f"{slide.slide_id}.png"
        width, height = slide.facts["width"], slide.facts["height"]
        shape = (round(height * slide.facts["mpp"] / 8), round(width * slide.facts["mpp"] / 8))
        window = (0, 0, width, height)
        seen = inside(window, shape, 8 / slide.facts["mpp"])
        frame = Frame((0, 0), window, (width, height), seen)
        regions = read_regions(path, frame, 8 / slide.facts["mpp"])
        assert regions.names == ["tumour", "stroma", "fat"]
        with open_slide(drawn / "slides" / f"{slide.slide_id}.svs") as opened:
            picture = opened.thumbnail(max(shape))
        grey = cv2.resize(picture, shape[::-1]).min(axis=2)
        assert grey[regions.classes == 0].mean() > grey[regions.classes == 1].mean() + 40
