"""One trainer for whatever is learned from tiles: distillation of encoders, self-supervision.

A step's draws follow from the seed and its number, and the state is written whole: a training that
was killed at any moment goes on as if it had not been, to the last bit on the same machine.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipeline.config.tile_training import CourseConfig
from pipeline.encoders.numerics import DTYPES
from pipeline.errors import UserError
from pipeline.runtime import progress
from pipeline.tile_training.loader import Batch, Tiles, batches
from pipeline.tile_training.processes import Processes
from pipeline.tile_training.sampling import seed_of
from pipeline.tile_training.state import State, load_state, save_state

SAVE_SECONDS = 300.0
SCORE = "score"


@dataclasses.dataclass(frozen=True)
class Pass:
    """What a forward and backward pass is told.

    Attributes:
        step: its number.
        share: of the step's gradient that this batch gives.
        generator: for what is drawn, on the device.
        precision: fp32 or bf16.
    """

    step: int
    share: float
    generator: torch.Generator
    precision: str

    def autocast(self) -> torch.autocast:
        """The context of the forward pass and the loss."""
        kind = DTYPES[self.precision]
        place = self.generator.device.type
        return torch.autocast(place, kind, enabled=kind != torch.float32)


class Learner(Protocol):
    """What is learned, and how well.

    Attributes:
        module: all parameters that are trained, on the device. Those whose names begin as its
            `steady` says, if it has that, keep their learning rate once it has risen.
    """

    module: nn.Module

    def backward(self, batch: Batch, now: Pass) -> dict[str, Tensor]:
        """Add the gradients of a batch, times `now.share`, to the parameters.

        Args:
            batch: on the device.
            now: which step it is part of.

        Returns:
            losses for the curve, detached.
        """
        ...

    def stepped(self, step: int) -> None:
        """After the optimiser's step: what follows the parameters, e.g. a momentum teacher."""
        ...

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Numbers on held-out slides, among them `score`: the larger, the better.

        Args:
            module: averaged parameters, in evaluation mode.
        """
        ...

    def state(self) -> dict[str, Any]:
        """What it remembers besides `module`: tensors and plain values."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        ...


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A training's result.

    Attributes:
        module: state dict of the averaged parameters at the best validation.
        rows: the curve.
        best_step: where that validation was.
        steps: steps done.
        unreadable: slide, tile and reason of tiles that could not be read.
        seconds: of this process since it started or resumed, without validation.
        waited: seconds of these for which no tiles were ready.
    """

    module: dict[str, Tensor]
    rows: list[dict[str, float]]
    best_step: int
    steps: int
    unreadable: list[list[Any]]
    seconds: float
    waited: float


def fit(
    learner: Learner,
    tiles: Tiles,
    course: CourseConfig,
    folder: Path,
    *,
    fingerprint: str,
    here: Processes,
    workers: int,
    stop_after: int | None = None,
    from_start: bool = False,
    ended: Callable[[], bool] = lambda: False,
) -> Fitted:
    """Train until the course ends or validation gets no better.

    Args:
        learner: what is learned.
        tiles: numbered batches, of this process's share.
        course: how long and how fast.
        folder: where the state is kept.
        fingerprint: of all that decides the course.
        here: this process among all.
        workers: processes that read tiles ahead.
        stop_after: break off after this step, as a kill would; for tests.
        from_start: validate before the first step, too: what only gets worse stays as it was.
        ended: asked after each validation, whether that was the last one.

    Raises:
        UserError: the loss is no finite number.
    """
    run = _Run(learner, course, folder, fingerprint, here)
    numbers = range(run.state.step * course.accumulate, course.steps * course.accumulate)
    ahead = batches(tiles, numbers, workers, here.device)
    last = course.steps if stop_after is None else min(stop_after, course.steps)
    saved = time.monotonic()
    if from_start and not run.state.rows:
        run.validate()
    with progress.part("steps", course.steps, run.state.step) as part:
        while run.state.step < last and not run.ended() and not ended():
            run.step(ahead)
            part.step(tiles=course.batch_size)
            if run.state.step % course.validate_every == 0 or run.state.step == course.steps:
                run.validate()
                now, best = run.state.rows[-1][SCORE], run.state.best_score
                part.note = f"score {now:.4f}, best {best:.4f}"
                run.save()
            elif here.world == 1 and time.monotonic() - saved > SAVE_SECONDS:
                # Of several processes only the first would write its running means of tiles.
                run.save()
                saved = time.monotonic()
    state = run.state
    return Fitted(
        state.best,
        state.rows,
        state.best_step,
        state.step,
        state.unreadable,
        round(run.seconds, 3),
        round(run.waited, 3),
    )


class _Run:
    """A training under way.

    Args:
        learner: what is learned.
        course: how long and how fast.
        folder: where the state is kept.
        fingerprint: of all that decides the course.
        here: this process among all.
    """

    def __init__(
        self,
        learner: Learner,
        course: CourseConfig,
        folder: Path,
        fingerprint: str,
        here: Processes,
    ) -> None:
        self.learner, self.course, self.folder, self.here = learner, course, folder, here
        self.module = learner.module
        self.mean = copy.deepcopy(self.module).eval().requires_grad_(False)
        self.optimiser = _optimiser(self.module, course)
        self.precision = choose_precision(course.precision, here.device)
        self.generator = torch.Generator(here.device)
        self.seconds = self.waited = 0.0
        found = load_state(folder, fingerprint, here.device)
        self.state = found or State(fingerprint, 0, {}, {}, {}, {}, -math.inf, 0, [], {}, 0, [], {})
        if found is not None:
            self.module.load_state_dict(found.module)
            self.mean.load_state_dict(found.mean)
            self.optimiser.load_state_dict(found.optimiser)
            learner.restore(found.learner)
            progress.say(f"goes on after step {found.step} of {course.steps}")

    def ended(self) -> bool:
        """Whether validation has not been better for too long."""
        waited = self.state.step - self.state.best_step
        return waited >= self.course.patience * self.course.validate_every

    def step(self, ahead: Iterator[Batch]) -> None:
        """One step of the optimiser."""
        begun = time.perf_counter()
        state, course, here = self.state, self.course, self.here
        decay = weight_decay(state.step, course)
        risen = min(state.step, round(course.warm_up * course.steps))
        for group in self.optimiser.param_groups:
            # A part of the network may keep its rate once it has risen.
            group["lr"] = learning_rate(risen if group["steady"] else state.step, course)
            group["weight_decay"] = decay if group["decays"] else 0.0
        torch.manual_seed(seed_of("step", course.seed, state.step, here.rank))
        self.generator.manual_seed(seed_of("draws", course.seed, state.step, here.rank))
        self.module.train()
        self.optimiser.zero_grad(set_to_none=True)
        now = Pass(state.step, 1 / course.accumulate, self.generator, self.precision)
        for _ in range(course.accumulate):
            asked = time.perf_counter()
            batch = next(ahead)
            self.waited += time.perf_counter() - asked
            state.unreadable += [list(bad) for bad in batch.unreadable]
            for name, value in self.learner.backward(batch, now).items():
                so_far = state.losses.get(name, torch.zeros((), device=here.device))
                state.losses[name] = so_far + value.detach().float() * now.share
        here.average_gradients(self.module)
        if course.clip:
            nn.utils.clip_grad_norm_(self.module.parameters(), course.clip)
        self.optimiser.step()
        self.learner.stepped(state.step)
        follow(self.mean, self.module, min(course.ema, (1 + state.step) / (10 + state.step)))
        state.step += 1
        state.since += 1
        self.seconds += time.perf_counter() - begun

    def validate(self) -> None:
        """A row of the curve; the averages are kept if they are the best so far."""
        state, here = self.state, self.here
        here.average_buffers(self.module)
        here.average_buffers(self.mean)
        row = {"step": float(state.step), "learning_rate": self.optimiser.param_groups[0]["lr"]}
        row |= {name: float(total) / state.since for name, total in state.losses.items()}
        found = self.learner.validate(self.mean)
        values = torch.tensor(list(found.values()), dtype=torch.float32, device=here.device)
        here.average([values])
        row |= dict(zip(found, values.tolist(), strict=True))
        if not all(math.isfinite(value) for value in row.values()):
            raise UserError(
                f"step {state.step}: the training has left the finite numbers "
                f"({', '.join(k for k, v in row.items() if not math.isfinite(v))}); lower "
                "learning_rate, or set precision: fp32"
            )
        state.rows.append(row)
        state.losses, state.since = {}, 0
        if row[SCORE] > state.best_score:
            state.best_score, state.best_step = row[SCORE], state.step
            state.best = {name: v.detach().clone() for name, v in self.mean.state_dict().items()}

    def save(self) -> None:
        """Write the state, by the first process; the others wait."""
        if self.here.first:
            self.state.module = self.module.state_dict()
            self.state.mean = self.mean.state_dict()
            self.state.optimiser = self.optimiser.state_dict()
            self.state.learner = self.learner.state()
            save_state(self.folder, self.state)
        self.here.wait()


def learning_rate(step: int, course: CourseConfig) -> float:
    """A linear rise, then half a cosine, per step.

    Source: Loshchilov and Hutter 2017, "SGDR: Stochastic gradient descent with warm restarts".
    """
    rise = round(course.warm_up * course.steps)
    if step < rise:
        return course.learning_rate * (step + 1) / rise
    low = min(course.minimum_learning_rate, course.learning_rate)
    gone = (step - rise) / max(1, course.steps - rise)
    return low + 0.5 * (course.learning_rate - low) * (1 + math.cos(math.pi * gone))


def weight_decay(step: int, course: CourseConfig) -> float:
    """Half a cosine from the first weight decay to the last one, per step, as DINO's."""
    last = course.weight_decay if course.final_weight_decay is None else course.final_weight_decay
    gone = (1 + math.cos(math.pi * step / max(1, course.steps))) / 2
    return last + (course.weight_decay - last) * gone


@torch.no_grad()
def follow(mean: nn.Module, module: nn.Module, keep: float) -> None:
    """Move averaged parameters and buffers towards a module's.

    Args:
        mean: the averages.
        module: what they follow.
        keep: how much of themselves they keep.
    """
    for old, new in zip(mean.state_dict().values(), module.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new.to(old.dtype), 1 - keep)
        else:
            old.copy_(new)


def choose_precision(requested: str, device: torch.device) -> str:
    """`auto` is bf16 on a GPU that computes in it, else fp32; fp16 would need its loss scaled."""
    if requested != "auto":
        return requested
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return "bf16"
    return "fp32"


def _optimiser(module: nn.Module, course: CourseConfig) -> torch.optim.Optimizer:
    groups, rate = _groups(module, course.weight_decay), course.learning_rate
    if course.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))
    if course.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9)
    from lightly.utils.lars import LARS

    return LARS(groups, lr=rate, momentum=0.9)


def _groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases, norms and tokens."""
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    steady: tuple[str, ...] = getattr(module, "steady", ())
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {(False, True): [], (False, False): []}
    for name, p in trained:
        decays = p.ndim > 1 and "token" not in name
        groups.setdefault((name.startswith(steady), decays), []).append(p)
    return [
        {
            "params": members,
            "weight_decay": decay if decays else 0.0,
            "decays": decays,
            "steady": keeps,
        }
        for (keeps, decays), members in groups.items()
    ]
