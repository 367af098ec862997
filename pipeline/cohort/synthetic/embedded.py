"""The embedded cohort: H&E-like slides drawn from a hidden state per case.

`plan` says which slides there are and what their labels are, without drawing (the workflow asks at
every parse: no numpy here). `generate` draws them. A slide depends on the seed and on its own row
of the plan alone: a larger cohort keeps the slides it has and draws the new ones.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import random
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.cohort.synthetic.hidden_states import TUMOUR_RANGE, HiddenCase, hidden_cases
from pipeline.contracts.ledger import chunk_of
from pipeline.contracts.slide_row import SlideRow
from pipeline.contracts.versions import version_of
from pipeline.files.artifacts import atomic_path, sweep, write_text
from pipeline.files.digests import digest
from pipeline.runtime import progress
from pipeline.runtime.child_processes import stay_with_parent
from pipeline.runtime.cpu_budget import cpu_budget

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.config.cohort import CohortConfig, SyntheticConfig

RESOURCES = "resources"
ANNOTATIONS = "annotations"
LABELS = ("time", "event", "subtype", "score", "age", "sex", "stage")
COARSE_MPP, FINE_MPP = 0.5, 0.25
# The second hospital: its patients' ids, its stains, its scanner, and how far its seeds are away.
SECOND, SECOND_SITE, SECOND_SCALE, SECOND_SEEDS = "EXT", "harbour", 0.92, 10_007
PENS = ("blue", "green", "black", "red")
FINGERPRINT = "Drawn from"
HEADER_BYTES = 4096

Role = Literal["good", "truncated", "blank", "no_mpp"]
BROKEN: tuple[Role, ...] = ("truncated", "blank", "no_mpp")


@dataclasses.dataclass(frozen=True)
class PlannedSlide:
    """One slide to draw.

    Attributes:
        slide_id: the case's with `-A` or `-B`.
        case_id: the case.
        role: `good`, or what is wrong with it.
        facts: the arguments of `painting.Picture`.
    """

    slide_id: str
    case_id: str
    role: Role
    facts: dict[str, Any]

    def fingerprint(self) -> str:
        """Changes when the slide must be drawn again: another state, or another painter."""
        painting = version_of("pipeline.cohort.synthetic.painting")
        return digest(dataclasses.asdict(self), painting)


def sheet_path(cfg: CohortConfig, base: Path) -> Path:
    """Where the workflow keeps the embedded cohort's sheet; slides and truth lie there too."""
    return base / RESOURCES / cfg.name / "slides.csv"


def plan(cfg: CohortConfig, base: Path = Path()) -> list[SlideRow]:
    """The embedded cohort's rows, as its sheet will say; no file is needed.

    Args:
        cfg: the cohort section.
        base: folder that the workflow works in.
    """
    folder = sheet_path(cfg, base).parent.absolute()
    truth = {case.case_id: case for case in cases(cfg.synthetic)}
    return [
        SlideRow(
            slide_id=slide.slide_id,
            case_id=slide.case_id,
            path=str(slide_path(folder, slide.slide_id)),
            mpp=None,
            site=truth[slide.case_id].site,
            mask="",
            coordinates="",
            labels=_labels(truth[slide.case_id]),
            row=row,
        )
        for row, slide in enumerate(slides(cfg.synthetic), 2)
    ]


def identities(cfg: CohortConfig) -> dict[str, str]:
    """Slide id -> fingerprint; the same before and after the slides are drawn."""
    return {slide.slide_id: slide.fingerprint() for slide in slides(cfg.synthetic)}


def cases(cfg: SyntheticConfig) -> tuple[HiddenCase, ...]:
    """The cases with their hidden states; those of the second hospital are other patients."""
    if cfg.hospital == "first":
        return hidden_cases(cfg.cases, cfg.censoring, cfg.seed)
    found = hidden_cases(cfg.cases, cfg.censoring, cfg.seed + SECOND_SEEDS)
    return tuple(
        dataclasses.replace(case, case_id=f"{SECOND}{case.case_id[3:]}", site=SECOND_SITE)
        for case in found
    )


@lru_cache(maxsize=4)
def slides(cfg: SyntheticConfig) -> tuple[PlannedSlide, ...]:
    """Every slide, in order of cases."""
    planned = []
    for n, case in enumerate(cases(cfg)):
        pen = PENS[_so_far(cfg.pen_fraction, n) % len(PENS)] if _every(cfg.pen_fraction, n) else ""
        for letter in "AB" if _every(cfg.two_slide_fraction, n) else "A":
            role = _role(cfg, n, letter)
            marked = pen if letter == "A" and role == "good" else ""
            planned.append(_slide(cfg, case, letter, role, marked))
    return tuple(planned)


def _so_far(share: float, n: int) -> int:
    """How many of the cases up to the n-th an even spread of this share takes."""
    return math.floor((n + 1) * share)


def _every(share: float, n: int) -> bool:
    """Whether the n-th case is one of an even spread of this share; the next case changes none."""
    return _so_far(share, n) > _so_far(share, n - 1)


def _role(cfg: SyntheticConfig, n: int, letter: str) -> Role:
    """The first second slides are the broken ones, so that their cases keep a good slide.

    Without second slides, the first cases lose theirs.
    """
    alone = cfg.two_slide_fraction == 0
    turn = n if alone else _so_far(cfg.two_slide_fraction, n) - 1
    meant = letter == ("A" if alone else "B")
    return BROKEN[turn] if cfg.broken_slides and meant and turn < len(BROKEN) else "good"


def _slide(
    cfg: SyntheticConfig, case: HiddenCase, letter: str, role: Role, pen: str
) -> PlannedSlide:
    slide_id = f"{case.case_id}-{letter}"
    rng = random.Random(f"{cfg.seed}/slide/{slide_id}")
    low, high = cfg.slide_px
    # A second slide is scanned at twice the resolution; a smaller piece keeps the file small.
    largest = high if letter == "A" else (low + high) / 2
    mpp = COARSE_MPP if letter == "A" else FINE_MPP
    scale = SECOND_SCALE if cfg.hospital == "second" else 1.0
    sides = [round(rng.uniform(low, largest) * COARSE_MPP / mpp) for _ in range(2)]
    # Two slides of one tumour differ a little.
    share = case.tumour_fraction + rng.gauss(0, 0.03)
    return PlannedSlide(
        slide_id=slide_id,
        case_id=case.case_id,
        role=role,
        facts={
            "width": sides[0],
            "height": sides[1],
            "mpp": mpp * scale,
            "site": case.site,
            "tumour_fraction": min(max(share, TUMOUR_RANGE[0] / 2), 0.9),
            "pleomorphism": case.pleomorphism,
            "lymphocytes": case.lymphocytes,
            "growth": case.growth,
            "tissue": role != "blank",
            "pen": pen,
            "seed": rng.getrandbits(63),
        },
    )


def _labels(case: HiddenCase) -> dict[str, str]:
    values = (
        *(f"{case.time:.1f}", str(case.event), case.subtype, f"{case.score:.2f}"),
        *(f"{case.age:.1f}", case.sex, case.stage),
    )
    return dict(zip(LABELS, values, strict=True))


# --- drawing --------------------------------------------------------------------------------------


def generate(*, cfg: CohortConfig, sheet: Path, workers: int, chunk: int | None = None) -> None:
    """Draw the slides, then write `truth.csv` and last the sheet.

    A slide that stands there already and was drawn from the same plan is left as it is.

    Args:
        cfg: the cohort section.
        sheet: the CSV to write; slides go to `slides/` next to it.
        workers: processes that draw at once.
        chunk: draw the slides of this hash bucket only, and write no tables.
    """
    folder = sheet.parent
    (folder / "slides").mkdir(parents=True, exist_ok=True)
    sweep(folder / "slides")
    wanted = [
        s
        for s in slides(cfg.synthetic)
        if chunk is None or chunk_of(s.slide_id, cfg.chunks) == chunk
    ]
    todo = [s for s in wanted if not is_drawn(folder, s)]
    with progress.part("slides drawn", len(todo)) as part:
        workers = cpu_budget(max(1, workers))
        if workers <= 1 or len(todo) <= 1:
            for slide in todo:
                draw(folder, slide)
                part.step()
        else:
            # Large slides first, so that no process works alone at the end.
            todo.sort(key=lambda s: -s.facts["width"] * s.facts["height"])
            with ProcessPoolExecutor(
                min(workers, len(todo)), get_context("spawn"), stay_with_parent
            ) as pool:
                for _ in pool.map(draw, [folder] * len(todo), todo):
                    part.step()
    if chunk is None:
        write_tables(cfg, sheet)


def case_number(case_id: str) -> int:
    """Number of a case, from 1: cases are drawn in this order whatever their total."""
    return int(case_id.rpartition("-")[2])


def write_tables(cfg: CohortConfig, sheet: Path) -> None:
    """Write `truth.csv` and the sheet, as a user would have them."""
    sweep(sheet.parent)
    write_text(sheet.parent / "truth.csv", _truth_csv(cfg.synthetic))
    write_text(sheet, _sheet_csv(cfg))


def slide_path(folder: Path, slide_id: str) -> Path:
    """The file of a slide in the folder of the sheet."""
    return folder / "slides" / f"{slide_id}.svs"


def is_drawn(folder: Path, slide: PlannedSlide) -> bool:
    """Whether the slide's file says in its header that it was drawn from this plan."""
    try:
        with slide_path(folder, slide.slide_id).open("rb") as file:
            head = file.read(HEADER_BYTES)
    except FileNotFoundError:
        return False
    return f"{FINGERPRINT} = {slide.fingerprint()}".encode() in head


def draw(folder: Path, slide: PlannedSlide) -> None:
    """Draw one slide into its file, whole or not at all."""
    import cv2

    from pipeline.cohort.synthetic import aperio, painting, tissue

    cv2.setNumThreads(1)
    picture = painting.Picture(**slide.facts)
    begun = painting.sketch(picture)
    if begun.layout is not None:
        _annotate(folder, slide.slide_id, tissue.classes(begun.layout))
    image = painting.paint(picture, begun)
    target = slide_path(folder, slide.slide_id)
    mpp = None if slide.role == "no_mpp" else slide.facts["mpp"]
    with atomic_path(target) as temporary:
        facts = {"Filename": slide.slide_id, FINGERPRINT: slide.fingerprint()}
        aperio.write(temporary, image, mpp, facts)
        if slide.role == "truncated":  # within the full picture, which comes first
            with temporary.open("r+b") as file:
                file.truncate(temporary.stat().st_size * 2 // 5)


def annotation_pattern(cfg: CohortConfig) -> str:
    """Where the drawn tissue classes of each slide lie, from the folder the workflow works in."""
    return f"{RESOURCES}/{cfg.name}/{ANNOTATIONS}/{{slide_id}}.png"


def _annotate(folder: Path, slide_id: str, classes: NDArray[np.uint8]) -> None:
    """Write the tissue classes as a small image with its legend, as `slides.masks` reads them."""
    import cv2

    from pipeline.cohort.synthetic.tissue import CLASSES

    path = folder / ANNOTATIONS / f"{slide_id}.png"
    legend = {k: name for k, name in enumerate(CLASSES, 1)}
    write_text(path.with_suffix(".json"), json.dumps(legend))
    with atomic_path(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", classes)[1].tobytes())


def _sheet_csv(cfg: CohortConfig) -> str:
    rows = [
        {
            "slide_id": row.slide_id,
            "case_id": row.case_id,
            "path": f"slides/{row.slide_id}.svs",
            "site": row.site,
            **row.labels,
        }
        for row in plan(cfg)
    ]
    return _csv(rows)


def _truth_csv(cfg: SyntheticConfig) -> str:
    rows = []
    for case in cases(cfg):
        facts = dataclasses.asdict(case)
        facts["subtype_probabilities"] = " ".join(f"{p:.4f}" for p in case.subtype_probabilities)
        rows.append({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in facts.items()})
    return _csv(rows)


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
