"""What other stains, focus, compression and scale do to one teacher's view of the same tiles.

The tiles are encoded here, clean and under each shift. How alike both embeddings are needs no
labels; where tiles have classes, a probe that has learned from clean tiles of other cases is asked
for the shifted ones, too. Writes `probing/robustness/<teacher>.json` (Snakemake output), and its
rows as `<teacher>.csv`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.bags.sampling import spread
from pipeline.config.probing import ProbingConfig, RobustnessConfig, RobustnessJob
from pipeline.contracts.robustness import FOLDER, Robustness, ShiftRow, write_robustness
from pipeline.contracts.teacher_check import read_teacher_check
from pipeline.encoders.build import Encoder, build, encode
from pipeline.encoders.transforms import Transform, resized
from pipeline.errors import SlideError, UserError
from pipeline.extraction.check import pinned
from pipeline.extraction.devices import choose_devices
from pipeline.files.artifacts import write_text
from pipeline.files.names import as_on_disk
from pipeline.probing.gather import Tiles
from pipeline.probing.labels import read_labels
from pipeline.probing.measure import confusion, difference, scores
from pipeline.probing.probes import logistic
from pipeline.probing.rounds import folds_of, said
from pipeline.probing.shifts import shifted
from pipeline.probing.stage import csv_text, reason
from pipeline.runtime import progress
from pipeline.runtime.cpu_budget import cpu_budget
from pipeline.tile_reading.single import SingleTiles
from pipeline.tile_training.sampling import seed_of
from pipeline.tile_training.slides import TiledSlide, tiled_slides

# Raised when the numbers change. 1: the first.
VERSION = 1

BATCH = 32


@dataclasses.dataclass(frozen=True)
class Seen:
    """The tiles that are encoded.

    Attributes:
        pixels: uint8 (N, S, S, 3).
        names: object (N,), their classes; '' where there is none.
        slides: object (N,), their slides.
        cases: object (N,), their cases.
        unreadable: tiles that were chosen and cannot be read.
    """

    pixels: Tensor
    names: np.ndarray
    slides: np.ndarray
    cases: np.ndarray
    unreadable: int


def run(
    *, job: RobustnessJob, root: Path, teacher: str, base: Path, workers: int, device: str
) -> None:
    """Measure one teacher.

    Args:
        job: the shifts, and what the teacher is.
        root: the results folder.
        teacher: its name.
        base: folder that the config's relative paths start from.
        workers: processor cores to use.
        device: auto, cpu, cuda or cuda:<n>.

    Raises:
        UserError: no tile can be read, or an annotation cannot.
        ArtifactError: tiles or weights are missing or damaged.
    """
    cfg, shifts = job.probing, job.probing.robustness
    assert shifts is not None
    check = read_teacher_check(root, teacher)
    (place, *_) = choose_devices(device)
    torch.set_num_threads(cpu_budget(workers))
    encoder = build(
        teacher,
        pinned(job.settings, check),
        levels=(cfg.level,),
        precision=job.precision,
        weights_dir=job.weights_dir,
        identity=None if check is None else check.identity,
        device=place,
    )
    seen = read_tiles(cfg, tiled_slides(root, job.tiles), root / job.tiles, base)
    clean = embed(encoder, seen.pixels, cfg.level)
    views = {
        (kind, strength): embed(
            encoder,
            shifted(seen.pixels, kind, strength, seed_of(cfg.seed, kind, strength) % 2**32),
            cfg.level,
        )
        for kind, strength in progress.counted(shifts.shifts(), "shifts")
    }
    found = measured(cfg, teacher, seen, clean, views)
    write_text(root / FOLDER / f"{teacher}.csv", csv_text(found.rows, ShiftRow))
    write_robustness(root, found)


def read_tiles(cfg: ProbingConfig, slides: Sequence[TiledSlide], folder: Path, base: Path) -> Seen:
    """Some tiles of all slides: those with a class where there are classes, else any.

    Args:
        cfg: the probing section.
        slides: all that have tiles.
        folder: of the tiles.
        base: folder that `cfg.annotations` starts from.

    Raises:
        UserError: none can be read, or an annotation cannot.
    """
    assert cfg.robustness is not None
    labels = []
    for slide in slides:
        annotation = None
        if cfg.annotations is not None:
            annotation = as_on_disk(base / cfg.annotations.format(slide_id=slide.slide_id))
        found = read_labels(folder / f"{slide.slide_id}.h5", annotation, cfg.min_cover)
        blank = np.full(len(slide.grid.coords), "", dtype=object)
        labels.append(blank if found is None else found.names)
    labelled = any((names != "").any() for names in labels)
    chosen = _chosen(cfg.robustness, labels, labelled)
    pixels: list[np.ndarray] = []
    kept: list[tuple[int, int]] = []
    for number in progress.counted(sorted({n for n, _ in chosen}), "slides"):
        slide = slides[number]
        try:
            source = SingleTiles(slide.path, slide.grid)
        except SlideError:
            continue
        for place in [p for n, p in chosen if n == number]:
            try:
                tile = source.read(place)
            except SlideError:
                continue
            kept.append((number, place))
            pixels.append(_sized(tile, int(slide.grid.attributes["tile_px"])))
        source.close()
    if not pixels:
        raise UserError(f"none of {len(chosen)} tiles can be read; see the ledger")
    return Seen(
        torch.from_numpy(np.stack(pixels)),
        np.array([labels[n][p] for n, p in kept], dtype=object),
        np.array([slides[n].slide_id for n, _ in kept], dtype=object),
        np.array([slides[n].case_id for n, _ in kept], dtype=object),
        len(chosen) - len(kept),
    )


def _chosen(
    cfg: RobustnessConfig, labels: Sequence[np.ndarray], labelled: bool
) -> list[tuple[int, int]]:
    """Slide and place of each tile: as many of each slide as there are, all in all `cfg.tiles`."""
    each = max(1, -(-cfg.tiles // max(1, len(labels))))
    found: list[tuple[int, int]] = []
    for number, names in enumerate(labels):
        able = np.flatnonzero(names != "") if labelled else np.arange(len(names))
        found += [(number, int(able[i])) for i in spread(len(able), each)]
    return [found[i] for i in spread(len(found), cfg.tiles)]


def _sized(tile: np.ndarray, px: int) -> np.ndarray:
    if tile.shape[0] == px:
        return tile
    to = Transform(px, px, "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return resized(torch.from_numpy(tile)[None], to)[0].numpy()


def embed(encoder: Encoder, tiles: Tensor, level: str) -> np.ndarray:
    """Embeddings: float32 (N, D).

    Args:
        encoder: the teacher.
        tiles: uint8 (N, S, S, 3).
        level: which one.
    """
    parts = [encode(encoder, part.to(encoder.device))[level] for part in tiles.split(BATCH)]
    return torch.cat(parts).float().cpu().numpy()


def measured(
    cfg: ProbingConfig,
    teacher: str,
    seen: Seen,
    clean: np.ndarray,
    views: dict[tuple[str, float], np.ndarray],
) -> Robustness:
    """How alike clean and shifted embeddings are, and what a probe makes of them.

    Args:
        cfg: the probing section.
        teacher: its name.
        seen: the tiles.
        clean: float (N, D), their embeddings.
        views: kind and strength -> float (N, D).
    """
    counts, why = _asked(cfg, seen, [clean, *views.values()])
    score = None
    if counts:
        score = _score(cfg, counts[0])
    rows = []
    for number, ((kind, strength), view) in enumerate(views.items(), 1):
        row = ShiftRow(kind, strength, *likeness(clean, view))
        if counts:
            rng = np.random.default_rng(cfg.seed)  # the same resamples for every shift and teacher
            lost = difference(counts[0], counts[number], cfg.bootstraps, cfg.confidence, rng)
            row = dataclasses.replace(
                row,
                score=_score(cfg, counts[number]),
                loss=lost["difference"],
                low=lost["low"],
                high=lost["high"],
            )
        rows.append(row)
    return Robustness(
        teacher=teacher,
        level=cfg.level,
        n_tiles=len(clean),
        n_slides=len(set(seen.slides)),
        n_cases=len(set(seen.cases)),
        unreadable=seen.unreadable,
        reason=why,
        clean=score,
        rows=rows,
    )


def likeness(clean: np.ndarray, view: np.ndarray) -> tuple[float, float, float]:
    """Mean cosine, mean cosine about the clean mean, and share of tiles found again.

    Args:
        clean: float (N, D).
        view: (N, D), of the same tiles.
    """
    mean = clean.mean(0)
    alike = _unit(view - mean) @ _unit(clean - mean).T
    plain = (_unit(view) * _unit(clean)).sum(1)
    found = alike.argmax(1) == np.arange(len(clean))
    return float(plain.mean()), float(np.diagonal(alike).mean()), float(found.mean())


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _asked(
    cfg: ProbingConfig, seen: Seen, views: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], str]:
    """Counts (case, true, predicted) of each view, the clean one first; or why there are none.

    Each fold's probe learns from clean tiles alone, and answers for all views of its test cases.
    """
    known = np.flatnonzero(seen.names != "")
    names, y = np.unique(seen.names[known].astype(str), return_inverse=True)
    cases, groups = np.unique(seen.cases[known].astype(str), return_inverse=True)
    n = len(known)
    tiles = Tiles(
        x=np.concatenate([view[known] for view in views]) if n else np.zeros((0, 1)),
        y=y.astype(np.int64),
        classes=tuple(names),
        groups=groups,
        n_slides=len(set(seen.slides[known])),
        n_cases=len(cases),
    )
    if why := reason(tiles if n else None):
        return [], why
    answers = np.zeros(n * len(views), dtype=np.int64)
    for train, test in folds_of(cfg, dataclasses.replace(tiles, x=tiles.x[:n])):
        every = np.concatenate([test + v * n for v in range(len(views))])
        answers[every] = said(logistic, tiles, train, every).argmax(1)
    parts = answers.reshape(len(views), n)
    return [confusion(tiles.y, part, groups, len(names)) for part in parts], ""


def _score(cfg: ProbingConfig, counts: np.ndarray) -> float:
    rng = np.random.default_rng(0)
    return scores(counts, 1, cfg.confidence, rng)["balanced_accuracy"].value
