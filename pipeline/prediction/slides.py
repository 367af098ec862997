"""From a raw slide to the feature files that a model reads: tissue, tiles, encoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from pipeline.bags.sampling import spread
from pipeline.config.tiling import TilingConfig
from pipeline.contracts.ledger import Record
from pipeline.contracts.model_card import EncoderCard
from pipeline.encoders.build import Encoder
from pipeline.extraction.devices import choose_batch_size, decodes_on_gpu
from pipeline.extraction.engine.messages import Settings, SlideToRead
from pipeline.extraction.engine.run import extract
from pipeline.prediction.model_file import ModelFile
from pipeline.tile_reading.grid import Grid, read_grid
from pipeline.tiling import stage as tiling

FEATURES = ".features"


@dataclasses.dataclass(frozen=True)
class SlideGiven:
    """A slide to predict from.

    Attributes:
        slide_id: its name in all that is written.
        case_id: the patient; the slides of a case make one prediction.
        path: the file.
        mpp: µm per pixel of level 0, in place of the file's own.
    """

    slide_id: str
    case_id: str
    path: Path
    mpp: float | None = None


@dataclasses.dataclass(frozen=True)
class Machine:
    """What encodes.

    Attributes:
        encoders: one for each teacher, on the device.
        device: where they are.
        workers: threads that may work at once.
    """

    encoders: tuple[Encoder, ...]
    device: torch.device
    workers: int


def tile(
    file: ModelFile, slide: SlideGiven, out: Path, mpp: float | None = None
) -> dict[str, Record]:
    """Tile a slide as the training cohort's slides were.

    Args:
        file: the model.
        slide: the slide.
        out: the folder that gets `tiles/`, and `tiles_<scale>/` for tiles of other scales.
        mpp: µm per pixel of level 0 where neither the slide's file nor the user states it.

    Returns:
        folder of tiles -> what became of the slide there; ends at the first that is not ok.
    """
    found: dict[str, Record] = {}
    for one in _scales(file.card.encoders):
        cfg = TilingConfig.model_validate(one.tiling)
        if mpp is not None:
            cfg = cfg.model_copy(update={"mpp_policy": "default", "default_mpp": mpp})
        found[one.tiles] = tiling.run_slide(
            cfg=cfg,
            versions=str(tiling.VERSION),
            slide=slide.path,
            out_dir=out / one.tiles,
            mpp=slide.mpp,
            slide_id=slide.slide_id,
        )
        if found[one.tiles].status != "ok":
            break
    return found


def _scales(encoders: Sequence[EncoderCard]) -> list[EncoderCard]:
    """The first encoder of each scale."""
    return list({one.tiles: one for one in reversed(encoders)}.values())[::-1]


def encode(
    file: ModelFile,
    machine: Machine,
    slides: Sequence[SlideGiven],
    out: Path,
    all_tiles: bool,
) -> dict[str, Record]:
    """Make the feature files of a case's slides, one slide after another, in bounded memory.

    Only the tiles that the models read are encoded: of a large case those that are spread evenly
    over it, as in its training.

    Args:
        file: the model.
        machine: what encodes.
        slides: tiled slides of one case.
        out: the folder that has the tiles.
        all_tiles: encode every tile, for a map without gaps.

    Returns:
        slide -> its record; failed where a tile or an encoder did.
    """
    limit = None if all_tiles else file.card.max_tiles
    folder_of = {one.name: one.tiles for one in file.card.encoders}
    found: dict[str, Record] = {}
    for place in dict.fromkeys(folder_of.values()):
        encoders = [e for e in machine.encoders if folder_of[e.name] == place]
        grids = {s.slide_id: read_grid(out / place / f"{s.slide_id}.h5") for s in slides}
        jobs = [
            SlideToRead(
                slide.slide_id,
                slide.path,
                grid,
                {e.name: feature_path(out, e.name, slide.slide_id) for e in encoders},
                {e.name: grid.fingerprint for e in encoders},
            )
            for slide, grid in zip(slides, thinned(list(grids.values()), limit), strict=True)
            if len(grid.coords)
        ]
        for (slide_id, _), record in _run(file, machine, encoders, jobs).items():
            if found.get(slide_id, record).status == "ok":
                found[slide_id] = record
    return found


def feature_path(out: Path, teacher: str, slide_id: str) -> Path:
    """Where a slide's features stand meanwhile.

    Args:
        out: the folder of the predictions.
        teacher: the encoder's name.
        slide_id: the slide.
    """
    return out / FEATURES / teacher / f"{slide_id}.h5"


def thinned(grids: Sequence[Grid], limit: int | None) -> list[Grid]:
    """The tiles of a case's slides that its models read: `limit` of all, spread evenly."""
    sizes = [len(grid.coords) for grid in grids]
    kept = spread(sum(sizes), limit)
    found, start = [], 0
    for grid, size in zip(grids, sizes, strict=True):
        rows = kept[(kept >= start) & (kept < start + size)] - start
        found.append(dataclasses.replace(grid, coords=grid.coords[rows]))
        start += size
    return found


def _run(
    file: ModelFile, machine: Machine, encoders: Sequence[Encoder], jobs: Sequence[SlideToRead]
) -> Mapping[tuple[str, str], Record]:
    if not jobs:
        return {}
    device = machine.device
    side = max(job.grid.side for job in jobs)
    settings = Settings(
        batch_size=choose_batch_size("auto", encoders, side, device),
        workers=machine.workers,
        on_bad_tile=file.card.on_bad_tile,
        decode_on_gpu=decodes_on_gpu("auto", encoders, side, machine.workers, device),
    )
    if device.type == "cpu":
        torch.set_num_threads(1)  # the engine's threads share each batch, one part each
    return extract(jobs, {device: list(encoders)}, settings)
