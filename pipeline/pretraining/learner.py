"""What the trainer is given: views of tiles into a method's loss, and signs of a collapse."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.config.pretraining import PretrainedTeacher
from pipeline.encoders.transforms import Transform, normalise
from pipeline.errors import UserError
from pipeline.files.artifacts import atomic_path
from pipeline.pretraining.alarms import alarms, cluster_signs, feature_signs
from pipeline.pretraining.methods.base import Method, Moment
from pipeline.pretraining.views import make_views
from pipeline.runtime import progress
from pipeline.tile_training.loader import Batch
from pipeline.tile_training.sampling import seed_of
from pipeline.tile_training.trainer import Pass

CHECKPOINTS = "checkpoints"
KEPT = 10  # checkpoints that are kept unless the config says how often
COMPARED = 2000  # held-out tiles that a view is looked for among

HeldOut = Callable[[], Iterator[Batch]]


@dataclasses.dataclass
class SelfSupervised:
    """A method that learns from views of tiles.

    Attributes:
        module: the method, on the device.
        name: of the teacher, for messages.
        cfg: its config.
        transform: of the network.
        held_out: gives the batches of held-out tiles.
        folder: of the teacher; None keeps no checkpoints.
        step: steps done.
        raised: alarms so far: step, name and text of each.
        sound: the last step at whose validation nothing was wrong; 0: there was none.
        over: an alarm ended the training.
    """

    module: nn.Module
    name: str
    cfg: PretrainedTeacher
    transform: Transform
    held_out: HeldOut
    folder: Path | None = None
    step: int = 0
    raised: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    sound: int = 0
    over: bool = False

    @property
    def method(self) -> Method:
        """The module as what it is."""
        assert isinstance(self.module, Method)
        return self.module

    def backward(self, batch: Batch, now: Pass) -> dict[str, Tensor]:
        counts = (self.method.large, self.method.small)
        views = make_views(batch.tiles, self.cfg.views, self.transform, counts, now.generator)
        with now.autocast():
            losses = self.module(views, self._moment(now.step))
        (losses["loss"] * now.share).backward()
        return {name: value.detach() for name, value in losses.items()}

    def stepped(self, step: int) -> None:
        self.step = step + 1
        self.method.after_step(self._moment(self.step))

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Signs on held-out tiles; `score` is the step where nothing is wrong, else -1, so that the
        trainer keeps the averages of the last sound step.

        Raises:
            UserError: an alarm, and the config says `stop`.
        """
        assert isinstance(module, Method)
        signs = self.signs(module)
        found = alarms(signs, self.cfg.alarms)
        self.raised += [{"step": self.step, "name": a.name, "text": a.text} for a in found]
        for alarm in found:
            progress.say(f"alarm after step {self.step}: {alarm.text}")
        if not found:
            self.sound = self.step
        self._keep(module)
        then, late = (
            self.cfg.alarms.then,
            self.step >= self.cfg.alarms.after * self.cfg.course.steps,
        )
        if found and late and then == "stop":
            raise UserError(
                f"pretraining.teachers.{self.name}: collapsed at step {self.step}: "
                f"{'; '.join(a.text for a in found)}. Its checkpoints are in {self.folder}; lower "
                "the learning rate, choose another method or other weights of its losses, or set "
                "alarms.then: go_back to keep the last sound one"
            )
        self.over = bool(found) and late and then == "go_back"
        good = not found or then == "go_on"
        return signs | {"score": float(self.step) if good else -1.0}

    @torch.no_grad()
    def signs(self, module: Method) -> dict[str, float]:
        """What held-out tiles tell of a module in evaluation mode."""
        plain, viewed, scores = [], [], []
        device = next(module.parameters()).device
        generator = torch.Generator(device)
        generator.manual_seed(seed_of("views", self.cfg.course.seed))
        for batch in self.held_out():
            images = batch.tiles.permute(0, 3, 1, 2).float()
            features = module.features(normalise(images, self.transform))
            plain.append(features.float())
            if (found := module.assign(features)) is not None:
                scores.append(found.float())
            (view,) = make_views(batch.tiles, self.cfg.views, self.transform, (1, 0), generator)
            viewed.append(module.features(view).float())
        features = torch.cat(plain)
        signs = feature_signs(features) | {"found_again": found_again(features, torch.cat(viewed))}
        if scores:
            with torch.random.fork_rng():
                torch.manual_seed(seed_of("noise", self.cfg.course.seed))
                signs |= cluster_signs(torch.cat(scores), features)
        return signs

    def ended(self) -> bool:
        """Whether an alarm has ended the training."""
        return self.over

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "raised": self.raised, "sound": self.sound, "over": self.over}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def _moment(self, step: int) -> Moment:
        return Moment(step, step / self.cfg.course.steps)

    def _keep(self, module: Method) -> None:
        """Write the averaged backbone down, every so often."""
        course = self.cfg.course
        every = self.cfg.keep_every or math.ceil(course.steps / KEPT)
        before = self.step - course.validate_every
        if self.folder is None or self.step // every == max(before, 0) // every:
            return
        with atomic_path(self.folder / CHECKPOINTS / f"{self.step:08d}.safetensors") as temporary:
            temporary.write_bytes(save(weights_of(module.backbone)))


def weights_of(backbone: nn.Module) -> dict[str, Tensor]:
    """A network's parameters and buffers as they are written."""
    return {name: v.detach().cpu().contiguous() for name, v in backbone.state_dict().items()}


def found_again(features: Tensor, viewed: Tensor) -> float:
    """Share of tiles whose nearest tile, seen from an augmented view of it, is the tile itself.

    Args:
        features: (N, d), of the tiles.
        viewed: (N, d), of the views.
    """
    some = torch.linspace(0, len(features) - 1, min(len(features), COMPARED)).long()
    there = F.normalize(features[some.to(features.device)], dim=1)
    here = F.normalize(viewed[some.to(features.device)], dim=1)
    nearest = (here @ there.t()).argmax(1)
    return float((nearest == torch.arange(len(some), device=nearest.device)).float().mean())
