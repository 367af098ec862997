"""The encoder distillation stage: a small tile encoder that answers as its teachers do.

Writes `teachers/<name>/`:

- `model.safetensors` and `row.json`: the encoder's weights and its row of the registry. With them
  the folder is a teacher: here, and with `source: folder` in any other config.
- `curve.csv`: losses, rate and held-out explained variance of each teacher, by step.
- `facts.json`: what it learned from, how far it came, how alike it and its teachers are; last.

While it learns, `training.pt` there holds all that is needed to go on after a kill.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save
from torch import nn

from pipeline.config.encoder_distillation import EncoderDistillationJob, EncoderStudent
from pipeline.contracts.distilled import Cases, DistilledFacts, LeftOut, Slides, write_distilled
from pipeline.contracts.made_encoder import CURVE, FACTS
from pipeline.contracts.teacher_check import read_teacher_check
from pipeline.encoder_distillation import student
from pipeline.encoder_distillation.gigapath import SlideDistillation
from pipeline.encoder_distillation.held_out import HeldOut, agreements
from pipeline.encoder_distillation.learner import VALIDATED, Distillation
from pipeline.encoder_distillation.live import Live, build_live, fitted, tokens_of
from pipeline.encoder_distillation.slide_view import make_view, off_grid
from pipeline.encoder_distillation.standardise import Standard, fit_standard
from pipeline.encoder_distillation.targets import Answers, with_answers
from pipeline.encoders.registry import HUB_FILES, ROW, Model
from pipeline.encoders.taps import find_taps
from pipeline.files.artifacts import atomic_path, sweep, write_json, write_text
from pipeline.files.digests import digest
from pipeline.runtime import progress
from pipeline.runtime.cpu_budget import cpu_budget
from pipeline.tile_training.loader import Share, Tiles, batches
from pipeline.tile_training.pools import pooled
from pipeline.tile_training.processes import Processes, processes
from pipeline.tile_training.sampling import Sampler
from pipeline.tile_training.slides import TiledSlide, hold_out, tiled_slides
from pipeline.tile_training.state import forget_state
from pipeline.tile_training.trainer import Fitted, fit

# Raised when another encoder comes out. 1: the first. 2: batch norms keep the statistics that they
# start with; what it starts as is its first candidate.
VERSION = 2

REGRESSED = 2048  # tiles that the heads' start is found from


@dataclasses.dataclass(frozen=True)
class Work:
    """What the steps of one job share.

    Attributes:
        name: of the encoder.
        key: of the student in the config.
        cfg: the student's config, with its teachers named.
        job: what the job is told.
        root: the results folder.
        folder: where the encoder goes.
    """

    name: str
    key: str
    cfg: EncoderStudent
    job: EncoderDistillationJob
    root: Path
    folder: Path


def run(
    *, job: EncoderDistillationJob, root: Path, teacher: str, workers: int, device: str
) -> None:
    """Make one encoder.

    Args:
        job: the config, and what the encoder learns from.
        root: the results folder.
        teacher: the encoder's name.
        workers: processor cores to use.
        device: auto, cpu, cuda or cuda:<n>; under `torchrun` each process takes a GPU of its own.

    Raises:
        UserError: there is nothing to learn from, or the encoder cannot be made so.
        ArtifactError: an input is missing or damaged.
    """
    ((key, cfg),) = job.encoder_distillation.students.items()
    cfg = cfg.model_copy(update={"teachers": cfg.teachers or tuple(job.teachers)})
    work = Work(teacher, key, cfg, job, root, root / "teachers" / teacher)
    sweep(work.folder)
    cores = cpu_budget(workers)
    with processes(device) as here:
        torch.set_num_threads(max(1, cores - 1))
        if job.control:
            _control(work)
        else:
            _student(work, here, cores)


def _control(work: Work) -> None:
    """The student as it starts."""
    module, plan = student.start(work.key, work.cfg, work.job.weights_dir, control=True)
    slides = tiled_slides(work.root)
    row = _row(work, module, plan, slides, taught=False)
    _write(work, module, row, None, DistilledFacts(**_shared(work, row, control=True), pool=""))


def _student(work: Work, here: Processes, cores: int) -> None:
    cfg, course = work.cfg, work.cfg.course
    teachers = {name: work.job.teachers[name] for name in cfg.teachers}
    seen, left_out = _on_grid(work, pool(work))
    slides, answers = with_answers(seen, work.root, teachers)
    learned, held = _apart(slides, answers, hold_out(slides, course.held_out, course.seed))
    module, plan = student.start(work.key, cfg, work.job.weights_dir)
    started, _ = student.start(work.key, cfg, work.job.weights_dir, control=True)
    standards = {
        name: fit_standard(name, learned[1].parts(name), cfg.standardise)
        for name in progress.counted(cfg.teachers, "teachers standardised")
    }
    live = _live(work, here)
    whole = _whole(module, plan, cfg, answers.dims, live)
    # Teachers that run see the student's view, so that it has the size that the largest takes.
    px = max(plan.transform.crop, live.px if live else 0)
    shown = dataclasses.replace(plan.transform, resize=px, crop=px)
    whole = whole.to(here.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    readers = cores if here.device.type == "cuda" else min(1, cores - 1)
    counts = tuple(len(slide.grid.coords) for slide in learned[0])
    visits = course.batch_size // course.accumulate // course.tiles_per_visit
    # A slide that is judged as a whole gives no tile twice.
    sampler = Sampler(counts, course.tiles_per_visit, course.seed, cfg.slide is not None)
    share = Share(sampler, visits, here.rank, here.world)
    held_out = HeldOut(*held, shown, course.held_out_tiles, readers, here.device)
    _start_heads(whole, Tiles(learned[0], share, shown, learned[1]), plan, standards, here)
    given = (whole, cfg, plan.transform, standards, held_out, live)
    learner = Distillation(*given)
    if (told := work.job.slide) is not None:
        check = read_teacher_check(work.root, told.name) if told.settings else None
        identity = check.identity if check else None
        dim, weights_dir = answers.dims[told.reads], work.job.weights_dir
        see = make_view(told, dim, weights_dir, here.device, identity=identity, seed=course.seed)
        parts = learned[0], held[0]
        learner = SlideDistillation(*given, reads=told.reads, see=see, slides=parts)
    fitted = fit(
        learner,
        Tiles(learned[0], share, shown, learned[1]),
        course,
        work.folder,
        fingerprint=_fingerprint(work, learned, held, here),
        here=here,
        workers=readers,
        from_start=True,
    )
    if not here.first:
        return
    spent, waited = round(fitted.seconds), round(fitted.waited)
    progress.say(f"{spent} s of steps, in {waited} s of which no tiles were ready")
    whole.load_state_dict(fitted.module)
    whole.eval()
    alike = agreements(whole, started.to(here.device), plan, standards, held_out)
    row = _row(work, whole.encoder, plan, slides, taught=True)
    facts = DistilledFacts(
        **_shared(work, row, control=False),
        pool=cfg.pool,
        tiles=sum(counts),
        steps=fitted.steps,
        best_step=fitted.best_step,
        seconds=round(fitted.seconds, 1),
        waited=round(fitted.waited, 1),
        device=here.device.type,
        teachers=list(cfg.teachers),
        slides=Slides(len(learned[0]), len(held[0])),
        cases=Cases(*(sorted({slide.case_id for slide in of}) for of in (learned[0], held[0]))),
        unreadable=[
            LeftOut(learned[0][slide].slide_id, reason, place)
            for slide, place, reason in fitted.unreadable
        ],
        left_out=left_out,
        agreement=alike,
    )
    _write(work, whole.encoder, row, fitted, facts)


def pool(work: Work) -> list[TiledSlide]:
    """The slides that a student may learn from.

    Raises:
        UserError: there are none.
    """
    job, key = work.job, f"encoder_distillation.students.{work.key}.pool"
    return pooled(
        work.root, work.cfg.pool, key=key, labels=job.labels, task=job.task, fold=job.fold
    )


def _on_grid(work: Work, slides: list[TiledSlide]) -> tuple[list[TiledSlide], list[LeftOut]]:
    """The slides that can be seen as a whole where that counts, and why others cannot."""
    if (told := work.job.slide) is None:
        return slides, []
    reasons = {slide.slide_id: off_grid(told, slide) for slide in slides}
    left_out = [LeftOut(name, why) for name, why in reasons.items() if why]
    for one in left_out:
        progress.say(f"left out, as {told.name} cannot see it: {one.slide} ({one.reason})")
    return [slide for slide in slides if not reasons[slide.slide_id]], left_out


def _apart(
    slides: list[TiledSlide],
    answers: Answers,
    parts: tuple[list[TiledSlide], list[TiledSlide]],
) -> tuple[tuple[list[TiledSlide], Answers], tuple[list[TiledSlide], Answers]]:
    """Slides to learn from and held-out ones, each with their answers."""
    place = {slide.slide_id: i for i, slide in enumerate(slides)}
    found = []
    for part in parts:
        chosen = [place[slide.slide_id] for slide in part]
        files = tuple(answers.files[i] for i in chosen)
        found.append((part, Answers(files, tuple(answers.rows[i] for i in chosen))))
    return found[0], found[1]


def _live(work: Work, here: Processes) -> Live | None:
    """The teachers whose patch tokens are learned; None where nobody's are."""
    patches = work.cfg.patches
    if patches is None:
        return None
    weights_dir = work.job.weights_dir
    return build_live(work.job.live, work.root, weights_dir, here.device, patches.weight)


def _whole(
    module: nn.Module,
    plan: student.Plan,
    cfg: EncoderStudent,
    dims: dict[str, int],
    live: Live | None,
) -> student.Student:
    widths: dict[str, int] = {}
    for one in live.encoders if live else ():
        blank = torch.zeros(1, 3, one.transform.crop, one.transform.crop, device=one.device)
        widths[one.name] = tokens_of(one, blank).shape[1]
    tokens = cfg.tokens == "per_teacher"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.course.seed)
        return student.Student(
            module.requires_grad_(True).eval(),
            find_taps(module, plan.pooling),
            {name: dims[name] for name in cfg.teachers},
            tokens,
            cfg.nested,
            cfg.head_width,
            plan.transform.crop,
            keep_norms=cfg.keep_norms and cfg.encoder.weights != "random",
            live=widths,
        )


@torch.no_grad()
def _start_heads(
    whole: student.Student,
    tiles: Tiles,
    plan: student.Plan,
    standards: dict[str, Standard],
    here: Processes,
) -> None:
    """From the first tiles that training will see, as they are."""
    views: list[list[torch.Tensor]] = []
    targets: dict[str, list[torch.Tensor]] = {name: [] for name in standards}
    seen = 0
    for batch in batches(tiles, itertools.count(), 0, here.device):
        for start in range(0, len(batch), VALIDATED):
            some = batch.part(start, start + VALIDATED)
            images = fitted(some.tiles.permute(0, 3, 1, 2).float(), plan.transform)
            _, read = whole.eval().embed(images.contiguous(memory_format=torch.channels_last))
            views.append(read)
            for name, standard in standards.items():
                targets[name].append(standard(some.answers[name]))
        seen += len(batch)
        if seen >= REGRESSED:
            break
    columns = [torch.cat(list(of)) for of in zip(*views, strict=True)]
    student.start_heads(whole, columns, {name: torch.cat(of) for name, of in targets.items()})
    # Every process has regressed on tiles of its own.
    here.average([parameter for parameter in whole.heads.parameters()])


def _row(
    work: Work, module: nn.Module, plan: student.Plan, slides: list[TiledSlide], *, taught: bool
) -> Model:
    """The encoder's registry row; its licence is every teacher's and that of what it started as."""
    attributes = slides[0].grid.attributes
    side = float(attributes["tile_px"]) * float(attributes["target_mpp"])
    known = work.job.facts
    named = list(work.cfg.teachers) if taught else []
    sources = [work.job.start, *(known[name] for name in named)]
    licences = list(dict.fromkeys(str(facts.get("licence", "")) for facts in sources))
    of = ", ".join(str(known[name]["title"]) for name in named)
    return student.row_of(
        work.name,
        module,
        plan,
        title=f"{work.key}, a student of {of}" if taught else f"{work.key} before it learned",
        licence="; ".join(filter(None, licences)),
        restricted=any(bool(facts.get("restricted")) for facts in sources),
        mpp=side / plan.transform.crop,
    )


def _shared(work: Work, row: Model, *, control: bool) -> dict[str, Any]:
    return {
        "teacher": work.name,
        "control": control,
        "title": row.title,
        "licence": row.licence,
        "parameters": row.params,
    }


def _write(
    work: Work, module: nn.Module, row: Model, fitted: Fitted | None, facts: DistilledFacts
) -> None:
    folder = work.folder
    (folder / FACTS).unlink(missing_ok=True)
    state = {name: v.detach().cpu().contiguous() for name, v in module.state_dict().items()}
    with atomic_path(folder / HUB_FILES[0]) as temporary:
        temporary.write_bytes(save(state))
    write_json(folder / ROW, dataclasses.asdict(row))
    if fitted is not None:
        text = io.StringIO()
        pd.DataFrame(fitted.rows).to_csv(text, index=False, float_format="%.6g")
        write_text(folder / CURVE, text.getvalue())
    write_distilled(folder, facts)
    forget_state(folder)


def _fingerprint(
    work: Work,
    learned: tuple[list[TiledSlide], Answers],
    held: tuple[list[TiledSlide], Answers],
    here: Processes,
) -> str:
    """Of all that decides the course of the training."""
    slides = [
        [s.slide_id, s.grid.fingerprint, s.grid.slide, len(s.grid.coords)]
        for s in (*learned[0], *held[0])
    ]
    features = [
        [str(f.path), f.path.stat().st_mtime_ns, f.path.stat().st_size]
        for part in (learned, held)
        for files in part[1].files
        for f in files.values()
    ]
    view = work.job.slide.canonical() if work.job.slide else ""
    view += "".join(f"{name}{cfg.canonical()}" for name, cfg in work.job.live.items())
    where = here.world, here.device.type
    return digest(VERSION, work.name, work.cfg.canonical(), view, slides, features, where)
