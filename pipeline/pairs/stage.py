"""The stage: a vision-language teacher that learns a lab's own words from captioned tiles.

Writes `teachers/<name>/`, which is a teacher for any config with `source: open_clip`,
`weights: local` and `weights_dir: results/<cohort>/teachers`:

- `model.safetensors` and `open_clip_config.json`: the whole model, as open_clip reads it;
- `captions.csv`: of the embedded cohort, the captions that were learned from and held out;
- `written.csv`: of a CoCa, captions that it wrote for held-out tiles, beside their own;
- `curve.csv`: losses and held-out recall by step;
- `facts.json` (last): what it learned from, and what of the held-out captions and tiles it finds,
  before and after.

While it learns, `training.pt` there holds all that is needed to go on after a kill.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save
from torch import nn

from pipeline.config.pairs import PairsJob
from pipeline.contracts.paired import (
    CURVE,
    FACTS,
    LEARNED,
    START,
    WRITTEN,
    PairedFacts,
    Unreadable,
    write_paired,
)
from pipeline.encoders import open_clip_models, text_towers, weights
from pipeline.encoders.text_towers import Tokeniser
from pipeline.encoders.transforms import Transform, normalise
from pipeline.errors import UserError
from pipeline.files.artifacts import atomic_path, sweep, write_text
from pipeline.files.digests import digest
from pipeline.files.parquet import write_csv
from pipeline.pairs import captions
from pipeline.pairs.captions import Pairs
from pipeline.pairs.learner import PairLearner, write_captions
from pipeline.runtime.cpu_budget import cpu_budget
from pipeline.tile_training import embedded_captions
from pipeline.tile_training.caption_files import read_captions
from pipeline.tile_training.loader import Batch, Even, Share, Tiles, batches
from pipeline.tile_training.processes import Processes, processes
from pipeline.tile_training.sampling import Sampler
from pipeline.tile_training.slides import TiledSlide, hold_out, tiled_slides
from pipeline.tile_training.state import forget_state
from pipeline.tile_training.trainer import Fitted, fit

# Raised when another model comes out, or another number of it. 1: the first. 2: recall of captions
# in both directions, before and after; captions that are as near as the own one count as nearer.
VERSION = 2


def run(
    *, job: PairsJob, root: Path, base: Path = Path(), workers: int = 1, device: str = "auto"
) -> None:
    """Tune a model on pairs.

    Args:
        job: what to learn from, and how.
        root: the results folder.
        base: folder that the config's relative paths start from.
        workers: processor cores to use.
        device: auto, cpu, cuda or cuda:<n>; under `torchrun` each process takes a GPU of its own.

    Raises:
        UserError: captions cannot be used, or there are too few cases to hold some out.
        ConfigError: the model cannot be built.
        ArtifactError: an input is missing or damaged.
    """
    cfg, course = job.pairs, job.pairs.course
    folder = root / "teachers" / cfg.name
    sweep(folder)
    cores = cpu_budget(workers)
    with processes(device) as here:
        torch.set_num_threads(max(1, cores - 1))
        model, config, transform = _start(job)
        tokeniser = text_towers.clip_tokeniser(int(model.text.context_length))
        slides = tiled_slides(root, job.tiles)
        table = _table(job, slides, base)
        captions.check_sides(sorted(set(table["caption"])), cfg.augmentation.flips)
        pairs = captions.join(slides, table, tokeniser)
        apart = hold_out(pairs.slides, course.held_out, course.seed)
        learned, held = (pairs.part(some) for some in apart)
        readers = cores if here.device.type == "cuda" else max(0, cores - 1)
        counts = tuple(len(slide.grid.coords) for slide in learned.slides)
        visits = course.batch_size // course.accumulate // course.tiles_per_visit
        share = Share(
            Sampler(counts, course.tiles_per_visit, course.seed), visits, here.rank, here.world
        )
        held_out = HeldOut(held.slides, transform, course.held_out_tiles, readers, here)
        model = model.to(here.device)
        learner = PairLearner(model, cfg, learned, held, held_out, transform, here)
        fitted = fit(
            learner,
            Tiles(learned.slides, share, transform),
            course,
            folder,
            fingerprint=digest(job.canonical(), VERSION, here.world, counts, len(pairs.texts)),
            here=here,
            workers=readers,
        )
        if not here.first:
            return
        model.load_state_dict(fitted.module)
        model.eval()
        start = _start(job)[0].to(here.device).eval()
        judged = {START: learner.judge(start), LEARNED: learner.judge(model)}
        _write(folder, job, model, config, transform, fitted)
        if job.embedded:
            write_csv(folder / "captions.csv", _held_apart(table, learned, held))
        if learner.captions and cfg.decoded:
            write_csv(folder / WRITTEN, _written(model, held, held_out, transform, tokeniser,
                                                       cfg.decoded))  # fmt: skip
        facts = PairedFacts(
            teacher=cfg.name,
            objective=cfg.objective,
            train=cfg.train,
            parameters=sum(p.numel() for p in model.parameters()),
            trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            learned_cases=sorted({s.case_id for s in learned.slides}),
            held_out_cases=sorted({s.case_id for s in held.slides}),
            learned_tiles=sum(counts),
            held_out_tiles=sum(map(len, held.of)),
            texts=len(pairs.texts),
            captions_cut=pairs.cut,
            captions_without_tiles=pairs.without_tiles,
            steps=fitted.steps,
            best_step=fitted.best_step,
            judged_tiles=judged[LEARNED].recall.tiles,
            judged_texts=judged[LEARNED].recall.texts,
            held_out={name: one.numbers() for name, one in judged.items()},
            chance=judged[LEARNED].chance(),
            unreadable=[
                Unreadable(learned.slides[slide].slide_id, place, reason)
                for slide, place, reason in fitted.unreadable
            ],
        )
        write_paired(folder, facts)
        forget_state(folder)


class HeldOut:
    """The held-out tiles, slide by slide, the same at each validation.

    Args:
        slides: with their captioned tiles.
        transform: of the image tower.
        tiles: at most so many of all slides.
        workers: processes that read ahead.
        here: this process.
    """

    def __init__(
        self,
        slides: list[TiledSlide],
        transform: Transform,
        tiles: int,
        workers: int,
        here: Processes,
    ) -> None:
        counts = tuple(len(slide.grid.coords) for slide in slides)
        self.even = Even(counts, max(1, tiles // len(slides)))
        self.tiles = Tiles(slides, self.even, transform)
        self.workers, self.here = workers, here

    def __call__(self) -> Iterator[Batch]:
        return batches(self.tiles, range(len(self.even)), self.workers, self.here.device)


def _start(job: PairsJob) -> tuple[Any, dict[str, Any], Transform]:
    """The model that the training starts from, its description, and how tiles are prepared."""
    cfg = job.pairs
    recipe = open_clip_models.find_recipe(cfg.name, cfg.start, job.weights_dir)
    model: nn.Module = open_clip_models.make(recipe.config, cfg.start.seed)
    if cfg.objective == "coca" and not hasattr(model, "text_decoder"):
        raise UserError(
            "pairs.objective: coca needs a model with a decoder (multimodal_cfg), such as "
            "coca_ViT-B-32"
        )
    if cfg.objective == "clip" and hasattr(model, "text_decoder"):
        raise UserError("pairs.objective: the model has a decoder; use coca, or a model without")
    model.pretrained_cfg = {"hf_hub_id": recipe.hf_id, "hf_hub_filename": recipe.file}  # type: ignore[assignment]
    source = weights.find(model, cfg.name, cfg.start, None, job.weights_dir)
    if source.path is not None:
        weights.fill(model, source.path, "open_clip_whole")
    return model, dict(recipe.config), open_clip_models.transform_of(recipe)


def _table(job: PairsJob, slides: list[TiledSlide], base: Path) -> pd.DataFrame:
    cfg = job.pairs
    if cfg.captions is None:
        return embedded_captions.captions(base / job.embedded, slides, cfg.course.seed)
    return read_captions(base / cfg.captions)


def _held_apart(table: pd.DataFrame, learned: Pairs, held: Pairs) -> pd.DataFrame:
    """The captions with the part that each slide was in."""
    part = {s.slide_id: "learned" for s in learned.slides}
    part |= {s.slide_id: "held_out" for s in held.slides}
    return table.assign(part=[part.get(slide, "") for slide in table["slide_id"]])


def _written(
    model: nn.Module,
    held: Pairs,
    held_out: HeldOut,
    transform: Transform,
    tokeniser: Tokeniser,
    wanted: int,
) -> pd.DataFrame:
    """Captions that the model writes for held-out tiles, beside their own."""
    words = text_towers.clip_words()
    each = max(1, -(-wanted // len(held.slides)))
    rows: list[dict[str, Any]] = []
    for batch in held_out():
        some = batch.part(0, each)
        images = normalise(some.tiles.permute(0, 3, 1, 2).float(), transform)
        said = write_captions(
            model, images, words.sot_token_id, words.eot_token_id, tokeniser.context
        )
        for slide, place, ids in zip(some.slides.tolist(), some.places.tolist(), said, strict=True):
            one = held.slides[slide]
            x, y = map(int, one.grid.coords[place])
            own = held.texts[held.of[slide][place][0]]
            text = words.decode(ids).strip()
            rows.append({"slide_id": one.slide_id, "x": x, "y": y, "caption": own, "written": text})
        if len(rows) >= wanted:
            break
    return pd.DataFrame(rows[:wanted])


def _write(
    folder: Path,
    job: PairsJob,
    model: nn.Module,
    config: dict[str, Any],
    transform: Transform,
    fitted: Fitted,
) -> None:
    (folder / FACTS).unlink(missing_ok=True)
    preprocess = {"mean": transform.mean, "std": transform.std, "interpolation": transform.interp}
    about = {"model_cfg": config, "preprocess_cfg": preprocess}
    write_text(folder / open_clip_models.CONFIG, json.dumps(about, indent=1) + "\n")
    state = {name: v.detach().cpu().contiguous() for name, v in model.state_dict().items()}
    with atomic_path(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(state))
    text = io.StringIO()
    pd.DataFrame(fitted.rows).to_csv(text, index=False, float_format="%.6g")
    write_text(folder / CURVE, text.getvalue())
