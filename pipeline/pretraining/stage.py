"""The pre-training stage: a tile encoder that learns from the cohort's own tiles, without labels.

Writes `teachers/<name>/`:

- `model.safetensors` and `row.json`: the encoder's weights and its row of the registry. With them
  the folder is a teacher: here, and with `source: folder` in any other config.
- `curve.csv`: losses, rate and signs of a collapse, by step; `checkpoints/`: encoders on the way.
- `clusters/<slide>.png` and `.geojson`: of a method with clusters, its clusters over some slides.
- `facts.json`: what it learned from, and how far it came; last.

While it learns, `training.pt` there holds all that is needed to go on after a kill.
"""

from __future__ import annotations

import dataclasses
import io
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save
from torch import nn

from pipeline.config.pretraining import PretrainedTeacher, PretrainingJob, methods
from pipeline.contracts.made_encoder import CURVE, FACTS
from pipeline.contracts.pretrained import MAPS, PretrainedFacts, Raised, write_pretrained
from pipeline.encoders.registry import HUB_FILES, ROW
from pipeline.encoders.transforms import Transform
from pipeline.errors import UserError
from pipeline.files.artifacts import atomic_path, sweep, write_json, write_text
from pipeline.files.digests import digest
from pipeline.files.hdf5 import read_hdf5
from pipeline.pretraining.backbone import Start, row_of, start
from pipeline.pretraining.learner import SelfSupervised, weights_of
from pipeline.pretraining.maps import clusters_of, write_maps
from pipeline.pretraining.methods.base import Method
from pipeline.runtime import progress
from pipeline.runtime.cpu_budget import cpu_budget
from pipeline.tile_training.loader import Batch, Even, Share, Tiles, batches
from pipeline.tile_training.pools import pooled
from pipeline.tile_training.processes import Processes, processes
from pipeline.tile_training.sampling import Sampler
from pipeline.tile_training.slides import TiledSlide, hold_out
from pipeline.tile_training.state import forget_state
from pipeline.tile_training.trainer import Fitted, fit

# Raised when another encoder comes out. 1: the first.
VERSION = 1

MEASURED = 2048  # tiles of which mean and deviation are taken


def run(*, job: PretrainingJob, root: Path, teacher: str, workers: int, device: str) -> None:
    """Make one encoder.

    Args:
        job: the config.
        root: the results folder.
        teacher: the encoder's name.
        workers: processor cores to use.
        device: auto, cpu, cuda or cuda:<n>; under `torchrun` each process takes a GPU of its own.

    Raises:
        UserError: there is nothing to learn from, the encoder cannot be made so, or the training
            collapsed.
        ArtifactError: an input is missing or damaged.
    """
    ((key, cfg),) = job.pretraining.teachers.items()
    folder = root / "teachers" / teacher
    sweep(folder)
    cores = cpu_budget(workers)
    slides = pooled(
        root, cfg.pool, key=f"pretraining.teachers.{key}.pool", labels=job.labels, task=job.task,
        fold=job.fold,
    )  # fmt: skip
    with processes(device) as here:
        torch.set_num_threads(max(1, cores - 1) if here.device.type == "cpu" else 1)
        _make(_Work(teacher, key, cfg, job, folder, root), slides, here, cores)


@dataclasses.dataclass(frozen=True)
class _Work:
    name: str
    key: str
    cfg: PretrainedTeacher
    job: PretrainingJob
    folder: Path
    root: Path


def _make(work: _Work, slides: list[TiledSlide], here: Processes, cores: int) -> None:
    cfg, course = work.cfg, work.cfg.course
    learned, held = hold_out(slides, course.held_out, course.seed)
    kind = methods()[cfg.method].load()
    several = cfg.arguments().get("small_crops", 0) > 0
    begun = start(work.key, cfg.encoder, work.job.weights_dir, tokens=kind.tokens, several=several)
    counts = tuple(len(slide.grid.coords) for slide in learned)
    sampler = Sampler(counts, course.tiles_per_visit, course.seed)
    readers = cores if here.device.type == "cuda" else min(1, cores - 1)
    if cfg.statistics == "own":
        begun = dataclasses.replace(begun, transform=measured(learned, sampler, begun.transform))
    if work.job.control:
        _write(work, begun, begun.module, slides, None, kind.pooling)
        return
    method = build_method(cfg, begun)
    method = method.to(here.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if here.world > 1 and here.device.type == "cuda":
        method = nn.SyncBatchNorm.convert_sync_batchnorm(method)
    visits = course.batch_size // course.accumulate // course.tiles_per_visit
    share = Share(sampler, visits, here.rank, here.world)
    held_out = _HeldOut(held, begun.transform, course.held_out_tiles, readers, here.device)
    learner = SelfSupervised(
        method, work.key, cfg, begun.transform, held_out, work.folder if here.first else None
    )
    print_ = _fingerprint(work, learned, held, here)
    fitted = fit(
        learner, Tiles(learned, share, begun.transform), course, work.folder,
        fingerprint=print_, here=here, workers=readers, ended=learner.ended,
    )  # fmt: skip
    if not here.first:
        return
    if not learner.sound and cfg.alarms.then != "go_on":
        raise UserError(
            f"pretraining.teachers.{work.key}: never sound: {learner.raised[-1]['text']}. Lower "
            "the learning rate, train longer, or set alarms.then: go_on to have it all the same"
        )
    method.load_state_dict(fitted.module)
    method.eval()
    facts = _facts(work, learner, fitted, learned, held, here)
    painted = _maps(work, method, begun.transform, [*held, *learned], here)
    _write(
        work, begun, method.backbone, slides, fitted, kind.pooling,
        dataclasses.replace(facts, maps=painted),
    )  # fmt: skip


def build_method(cfg: PretrainedTeacher, begun: Start) -> Method:
    """A method around an encoder; equal seeds give equal heads.

    Args:
        cfg: the teacher's config.
        begun: the encoder.
    """
    module = begun.module.requires_grad_(True)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        px = begun.transform.crop
        dim = int(module.eval()(torch.zeros(1, 3, px, px)).shape[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.course.seed)
        found: Method = methods()[cfg.method].load()(module, dim, **cfg.arguments())
    return found


def measured(slides: list[TiledSlide], sampler: Sampler, transform: Transform) -> Transform:
    """The transform with the mean and deviation of the slides' own tiles.

    Args:
        slides: that are learned from.
        sampler: of their tiles; the first visits are looked at.
        transform: of the network.
    """
    visits = max(1, MEASURED // sampler.per_visit)
    visits = min(visits, 4 * len(slides))
    total, squares, count = np.zeros(3), np.zeros(3), 0
    tiles = Tiles(slides, Share(sampler, 1), transform)
    for batch in progress.counted(range(visits), "visits measured"):
        pixels = tiles[batch].tiles.double().flatten(0, 2) / 255
        total += pixels.sum(0).numpy()
        squares += pixels.square().sum(0).numpy()
        count += len(pixels)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 1e-6))
    return dataclasses.replace(
        transform,
        mean=tuple(np.round(mean, 4).tolist()),
        std=tuple(np.round(deviation, 4).tolist()),
    )


class _HeldOut:
    """Held-out tiles, spread evenly over their slides; read once."""

    def __init__(
        self,
        slides: list[TiledSlide],
        transform: Transform,
        tiles: int,
        readers: int,
        device: torch.device,
    ) -> None:
        each = max(1, math.ceil(tiles / len(slides)))
        self._even = Even(tuple(len(slide.grid.coords) for slide in slides), each)
        self._tiles = Tiles(slides, self._even, transform)
        self._readers, self._device = readers, device

    def __call__(self) -> Iterator[Batch]:
        return batches(self._tiles, range(len(self._even)), self._readers, self._device)


def _maps(
    work: _Work,
    method: Method,
    transform: Transform,
    slides: list[TiledSlide],
    here: Processes,
) -> list[str]:
    """Maps of the clusters over some slides, held-out ones first; none of a method without."""
    folder = work.folder / MAPS
    shutil.rmtree(folder, ignore_errors=True)
    px = transform.crop
    with torch.no_grad():
        tried = method.assign(method.features(torch.zeros(1, 3, px, px, device=here.device)))
    some = slides[: work.cfg.maps]
    if tried is None or not some:
        return []
    painted = clusters_of(method, some, transform, here.device)
    found = list(progress.counted(painted, "maps", len(some)))
    origins = {slide.slide_id: _origin(work.root, slide.slide_id) for slide in some}
    return write_maps(folder, found, origins)


def _origin(root: Path, slide_id: str) -> tuple[int, int]:
    with read_hdf5(root / "tiles" / f"{slide_id}.h5") as file:
        x, y = (int(v) for v in file.attrs.get("geojson_origin", (0, 0)))
    return x, y


def _facts(
    work: _Work,
    learner: SelfSupervised,
    fitted: Fitted,
    learned: list[TiledSlide],
    held: list[TiledSlide],
    here: Processes,
) -> PretrainedFacts:
    course = work.cfg.course
    return PretrainedFacts(
        teacher=work.name,
        control=False,
        title="",
        method=work.cfg.method,
        pool=work.cfg.pool,
        licence="",
        parameters=0,
        slides=len(learned),
        cases=len({slide.case_id for slide in learned}),
        tiles=sum(len(slide.grid.coords) for slide in learned),
        held_out=len(held),
        steps=fitted.steps,
        best_step=fitted.best_step,
        images=fitted.steps * course.batch_size * here.world,
        seconds=round(fitted.seconds, 1),
        waited=round(fitted.waited, 1),
        device=here.device.type,
        alarms=[Raised(**alarm) for alarm in learner.raised],
        collapsed=learner.over,
        unreadable=len(fitted.unreadable),
    )


def _write(
    work: _Work,
    begun: Start,
    module: nn.Module,
    slides: list[TiledSlide],
    fitted: Fitted | None,
    pooling: str,
    facts: PretrainedFacts | None = None,
) -> None:
    attributes = slides[0].grid.attributes
    side = float(attributes["tile_px"]) * float(attributes["target_mpp"])
    control = facts is None
    what = f"{begun.arch}, {'as it starts' if control else f'trained here by {work.cfg.method}'}"
    row = row_of(
        work.name, module, begun,
        title=f"{work.key} ({what})", pooling=pooling, mpp=side / begun.transform.crop,
    )  # fmt: skip
    facts = facts or PretrainedFacts(
        teacher=work.name,
        control=True,
        title="",
        method=work.cfg.method,
        pool=work.cfg.pool,
        licence="",
        parameters=0,
    )
    folder = work.folder
    (folder / FACTS).unlink(missing_ok=True)
    with atomic_path(folder / HUB_FILES[0]) as temporary:
        temporary.write_bytes(save(weights_of(module)))
    write_json(folder / ROW, dataclasses.asdict(row))
    if fitted is not None:
        text = io.StringIO()
        pd.DataFrame(fitted.rows).to_csv(text, index=False, float_format="%.6g")
        write_text(folder / CURVE, text.getvalue())
    write_pretrained(
        folder,
        dataclasses.replace(
            facts, title=row.title, licence=row.licence or "", parameters=row.params
        ),
    )
    forget_state(folder)


def _fingerprint(
    work: _Work, learned: list[TiledSlide], held: list[TiledSlide], here: Processes
) -> str:
    """Of all that decides the course of the training."""
    slides = [
        [s.slide_id, s.grid.fingerprint, s.grid.slide, len(s.grid.coords)]
        for s in (*learned, *held)
    ]
    return digest(
        VERSION, work.name, work.cfg.canonical(), work.job.start, slides, here.world,
        here.device.type,
    )  # fmt: skip
