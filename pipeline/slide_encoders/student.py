"""A smaller slide encoder that says of a slide what a larger one does.

Learns from vectors that the larger one has given already, so that it is not in memory, and from the
same features of tiles. What comes out is a folder, and a slide encoder of any config with
`source: slide` and `path:`:

- `model.safetensors` and `row.json`: its weights and its row;
- `curve.csv`: loss and held-out explained variance by epoch;
- `facts.json`: what it learned from, and how alike it and its teacher are, before and after; last.

Source: the distillation of encoders of tiles (Ranzinger et al. 2024, AM-RADIO), for slides.
"""

from __future__ import annotations

import copy
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.aggregators.slide_grid import coords_of, step_of
from pipeline.bags.files import FeatureFile, open_features, read_level
from pipeline.contracts import ledger
from pipeline.contracts.folds import read_folds
from pipeline.distillation import agreement
from pipeline.encoders.registry import HUB_FILES, ROW
from pipeline.encoders.slide_level.longnet import LongNetViT
from pipeline.encoders.slide_level.positions import grid_cells
from pipeline.encoders.slide_level.registry import SlideModel, resolve
from pipeline.encoders.weights import count_parameters
from pipeline.errors import UserError
from pipeline.files.artifacts import atomic_path, sweep, write_json, write_text
from pipeline.files.hdf5 import read_hdf5
from pipeline.files.parquet import read_table
from pipeline.runtime import progress

# Raised when another encoder comes out. 1: the first.
VERSION = 1

FACTS, CURVE = "facts.json", "curve.csv"
FEWEST = 4  # slides to learn from, and cases altogether


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the student is and how it learns.

    Attributes:
        depth: blocks.
        width: of tokens and of its vector, a multiple of `heads` and of 4.
        heads: attention heads.
        epochs: passes over the slides; the one that explains held-out slides best is kept.
        learning_rate: of AdamW, half a cosine down to a tenth.
        batch: slides a step.
        held_out: share of the cases that it is measured on.
        task, fold: learn from the training cases of this fold alone; no task: from all cases.
        seed: of weights, order and held-out cases.
    """

    depth: int = 4
    width: int = 192
    heads: int = 8
    epochs: int = 30
    learning_rate: float = 5e-4
    batch: int = 8
    held_out: float = 0.2
    task: str = ""
    fold: int = 0
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Slide:
    """A slide to learn from: its tiles' file, and what the larger encoder said, float32 (D,)."""

    case: str
    tiles: FeatureFile
    said: np.ndarray


class Student(nn.Module):
    """The small encoder, and for each state that the larger one was read at a map to it.

    Args:
        encoder: the small one.
        layers: its states, each compared with one part of the larger one's vector.
        parts: widths of these parts.
    """

    def __init__(self, encoder: LongNetViT, layers: tuple[int, ...], parts: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.layers, self.parts = encoder, layers, list(parts)
        self.heads = nn.ModuleList(nn.Linear(encoder.width, part) for part in parts)

    def views(self, tiles: Tensor, cells: Tensor) -> Tensor:
        """The states that are compared, side by side: (layers · width,)."""
        found: Tensor = self.encoder(tiles[None], cells[None], layers=self.layers)[0]
        return found

    def forward(self, tiles: Tensor, cells: Tensor) -> Tensor:
        """One slide, (N, dim) and (N, 2): its answer (D,)."""
        views = self.views(tiles, cells).split(self.encoder.width)
        return torch.cat([head(view) for head, view in zip(self.heads, views, strict=True)])


def run(*, root: Path, teacher: str, reads: str, out: Path, plan: Plan, device: str) -> None:
    """Distil one student from a slide encoder of a run.

    Args:
        root: the run's results folder.
        teacher: the slide encoder, with one vector for each slide.
        reads: the tile teacher whose features both read; empty: the larger one's own.
        out: the folder to write, named as the student will be.
        plan: what it is and how it learns.
        device: auto, cpu or cuda:<n>.

    Raises:
        UserError: there are too few slides, or the vectors are those of regions.
        ArtifactError: an input is missing or damaged.
    """
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    place = torch.device(chosen)
    facts = _facts(root, teacher)
    big = resolve(facts["model_id"])
    reads = reads or big.input
    slides = _slides(root, teacher, reads, plan)
    learned, held = _apart(slides, plan)
    mean = np.mean([slide.said for slide in learned], axis=0)
    spread = max(float(np.std([slide.said - mean for slide in learned])), 1e-6)
    standard = torch.from_numpy(np.append(mean, spread)).float().to(place)
    taken = [int(n) for n in facts["layers"].split(",") if n.strip()]
    layers = tuple(max(1, round(n * plan.depth / max(1, big.depth))) for n in taken)
    dim = slides[0].tiles.dims["high"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        encoder = LongNetViT(dim, plan.width, plan.depth, plan.heads, dropout=0.0, drop_path=0.0)
        width = len(mean) // max(1, len(layers))
        student = Student(encoder, layers or (plan.depth,), [width] * max(1, len(layers)))
    student = student.to(place)
    _start_heads(student, learned, standard, place)
    before = _views(student, held, standard, place)
    rows = _fit(student, learned, held, standard, plan, place)
    after = _views(student, held, standard, place)
    row = _row(out.name, big, reads, dim, encoder, plan)
    learned_cases, held_cases = (sorted({s.case for s in part}) for part in (learned, held))
    facts_of = {
        "teacher": teacher,
        "title": row.title,
        "task": plan.task,
        "fold": plan.fold if plan.task else None,
        "transductive": not plan.task,
        "cases": {"learned": learned_cases, "held_out": held_cases},
        "slides": {"learned": len(learned), "held_out": len(held)},
        "layers": {"teacher": taken or [big.depth], "student": list(student.layers)},
        "agreement": {"before": before, "after": after},
        "parameters": {"student": row.params, "teacher": big.params},
        "licence": row.licence,
    }
    _write(out, encoder, row, rows, facts_of)
    told = ", ".join(f"{k} {before[k]:.3f} -> {v:.3f}" for k, v in after.items())
    progress.say(f"{out.name}: {row.params:,} of {big.params:,} parameters; held out: {told}")


def _facts(root: Path, teacher: str) -> dict[str, str]:
    """Attributes of the larger encoder's files."""
    for record in _records(root, teacher).values():
        with read_hdf5(root / record.path) as file:
            found = {key: str(file.attrs.get(key, "")) for key in ("model_id", "layers")}
            if "region_tiles" in file:
                raise UserError(
                    f"--teacher {teacher}: it gives vectors of regions; take one with a vector for "
                    "each slide (`pooling: mean`)"
                )
        return found
    raise UserError(f"--teacher {teacher}: {root / 'features' / teacher} has no slide's vector")


def _records(root: Path, teacher: str) -> dict[str, ledger.Record]:
    """Slide -> what the run says of it, of those that have features."""
    manifests = sorted((root / "features").glob("*/manifest/*.json"))
    found = {}
    for path in manifests:
        if teacher in path.parent.parent.name.split("+"):
            for record in ledger.read_manifest(path):
                if record.status == "ok" and record.stage == f"extraction/{teacher}":
                    found[record.slide_id] = record
    return found


def _slides(root: Path, teacher: str, reads: str, plan: Plan) -> list[Slide]:
    said, seen = _records(root, teacher), _records(root, reads)
    if not seen:
        raise UserError(f"--input {reads}: the run has no features of such a teacher of tiles")
    table = read_table(root / "slides.parquet")
    case_of = dict(zip(table["slide_id"].astype(str), table["case_id"].astype(str), strict=True))
    wanted = set(case_of.values())
    if plan.task:
        folds = {fold.index: fold for fold in read_folds(root, plan.task)}
        if plan.fold not in folds:
            raise UserError(f"--fold {plan.fold}: task `{plan.task}` has folds {sorted(folds)}")
        wanted = set(folds[plan.fold].train)
    found = []
    for slide in sorted(said.keys() & seen.keys()):
        if case_of.get(slide) in wanted:
            vector = read_level(open_features(root / said[slide].path)).astype(np.float32)
            tiles = open_features(root / seen[slide].path)
            found.append(Slide(case_of[slide], tiles, vector[0]))
    if len({slide.case for slide in found}) < FEWEST:
        raise UserError(
            f"slide-student: {len(found)} slides have vectors of `{teacher}` and features of "
            f"`{reads}`; that is too few cases to learn from and to be measured on"
        )
    return found


def _apart(slides: Sequence[Slide], plan: Plan) -> tuple[list[Slide], list[Slide]]:
    """Slides to learn from and held-out ones, of different cases."""
    cases = sorted({slide.case for slide in slides})
    order = np.random.default_rng(plan.seed).permutation(len(cases))
    held = {cases[i] for i in order[: max(1, round(plan.held_out * len(cases)))]}
    return [s for s in slides if s.case not in held], [s for s in slides if s.case in held]


@torch.no_grad()
def _start_heads(
    student: Student, learned: Sequence[Slide], standard: Tensor, place: torch.device
) -> None:
    """A ridge regression of the larger encoder's vectors on what the student sees as it starts."""
    student.eval()
    views = torch.stack([student.views(*_input(slide, place)) for slide in learned])
    targets = torch.stack([_target(slide, standard) for slide in learned])
    parts = targets.split(student.parts, 1)
    for head, view, target in zip(
        student.heads, views.split(student.encoder.width, 1), parts, strict=True
    ):
        assert isinstance(head, nn.Linear)
        centre = view.mean(0)
        seen = (view - centre).double()
        kernel = seen @ seen.T
        kernel.diagonal().add_(kernel.trace() / len(kernel) + 1e-6)
        weight = (seen.T @ torch.linalg.solve(kernel, target.double())).T.float()
        head.weight.copy_(weight)
        head.bias.copy_(target.mean(0) - weight @ centre)


def _fit(
    student: Student,
    learned: Sequence[Slide],
    held: Sequence[Slide],
    standard: Tensor,
    plan: Plan,
    place: torch.device,
) -> list[dict[str, float]]:
    """Train; the student holds the weights of its best epoch afterwards."""
    optimiser = torch.optim.AdamW(student.parameters(), plan.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, plan.epochs, plan.learning_rate / 10
    )
    dice = np.random.default_rng(plan.seed)
    best, kept, rows = -np.inf, copy.deepcopy(student.state_dict()), []
    for epoch in progress.counted(range(1, plan.epochs + 1), "epochs"):
        student.train()
        order, total = dice.permutation(len(learned)), 0.0
        for start in range(0, len(order), plan.batch):
            chosen = order[start : start + plan.batch]
            optimiser.zero_grad()
            for number in chosen:  # a slide at a time: its tokens alone are in memory
                loss = _loss(student(*_input(learned[number], place)),
                             _target(learned[number], standard))  # fmt: skip
                (loss / len(chosen)).backward()
                total += float(loss.detach()) / len(order)
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimiser.step()
        schedule.step()
        explained = _views(student, held, standard, place)["explained"]
        rows.append({"epoch": epoch, "loss": total, "explained": explained})
        if explained > best:
            best, kept = explained, copy.deepcopy(student.state_dict())
        progress.note(f"loss {total:.4g}, held-out explained variance {explained:.3f}")
    student.load_state_dict(kept)
    return rows


def _loss(answer: Tensor, target: Tensor) -> Tensor:
    """Angle and distance, of equal weight."""
    return 1 - F.cosine_similarity(answer, target, dim=0) + F.smooth_l1_loss(answer, target)


def _input(slide: Slide, place: torch.device) -> tuple[Tensor, Tensor]:
    """Its tiles (N, dim) and their cells (N, 2), row by row."""
    coords = coords_of(slide.tiles)
    order = np.lexsort((coords[:, 0], coords[:, 1]))
    tiles = torch.from_numpy(read_level(slide.tiles, "high", order)).to(place).float()
    return tiles, torch.from_numpy(grid_cells(coords[order], step_of(slide.tiles))).to(place)


def _target(slide: Slide, standard: Tensor) -> Tensor:
    said = torch.from_numpy(slide.said).to(standard.device)
    return (said - standard[:-1]) / standard[-1]


@torch.no_grad()
def _views(
    student: Student, held: Sequence[Slide], standard: Tensor, place: torch.device
) -> dict[str, float]:
    """How alike the student and its teacher see held-out slides."""
    student.eval()
    answers, views = [], []
    for slide in held:
        tiles, cells = _input(slide, place)
        answers.append(student(tiles, cells).cpu().numpy())
        views.append(student.encoder(tiles[None], cells[None])[0].cpu().numpy())
    targets = np.stack([_target(slide, standard).cpu().numpy() for slide in held])
    k = max(1, min(agreement.NEIGHBOURS, len(held) // 4))  # of few slides all would be near
    angle = F.cosine_similarity(torch.from_numpy(np.stack(answers)), torch.from_numpy(targets))
    return {
        "explained": round(agreement.explained_variance(np.stack(answers), targets), 6),
        "cosine": round(float(angle.mean()), 6),
        "cka": round(agreement.cka(np.stack(views), targets), 6),
        "overlap": round(agreement.neighbour_overlap(np.stack(views), targets, k), 6),
    }


def _row(
    name: str, big: SlideModel, reads: str, dim: int, encoder: LongNetViT, plan: Plan
) -> SlideModel:
    return SlideModel(
        name=name,
        title=f"{name}, a student of {big.title}",
        loader="timm",
        arch="longnet",
        kwargs={"width": plan.width, "depth": plan.depth, "heads": plan.heads},
        poolings={"mean": plan.width, "cls": plan.width},
        params=count_parameters(encoder),
        licence=big.licence,
        gated=False,
        derivative_restricted=big.derivative_restricted,
        input=reads,
        input_dim=dim,
        tile_px=big.tile_px,
        mpp=big.mpp,
        depth=plan.depth,
    )


def _write(
    folder: Path,
    encoder: nn.Module,
    row: SlideModel,
    rows: list[dict[str, float]],
    facts: dict[str, Any],
) -> None:
    sweep(folder)
    (folder / FACTS).unlink(missing_ok=True)
    state = {name: v.detach().cpu().contiguous() for name, v in encoder.state_dict().items()}
    with atomic_path(folder / HUB_FILES[0]) as temporary:
        temporary.write_bytes(save(state))
    write_json(folder / ROW, dataclasses.asdict(row))
    text = io.StringIO()
    pd.DataFrame(rows).to_csv(text, index=False, float_format="%.6g")
    write_text(folder / CURVE, text.getvalue())
    write_json(folder / FACTS, facts)
