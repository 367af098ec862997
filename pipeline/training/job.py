"""What all trainings of a model share, and how one of them is made ready."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from pipeline.aggregators.network import Lesson, Network, Shape
from pipeline.bags.store import Store
from pipeline.config.models import ModelConfig
from pipeline.config.training import TrainingConfig
from pipeline.contracts.labels import Labels, Task
from pipeline.files.digests import digest
from pipeline.training.head import Head
from pipeline.training.loop import objective
from pipeline.training.models import build_network
from pipeline.training.multitask import AuxiliaryTask
from pipeline.training.tasks import fit_head


@dataclasses.dataclass(frozen=True)
class TrainingJob:
    """What all folds and seeds of a run share."""

    cfg: TrainingConfig
    model_name: str
    model: ModelConfig
    task: Task
    store: Store
    labels: Labels
    versions: str
    slides: dict[tuple[str, str], str]
    auxiliary: tuple[AuxiliaryTask, ...] = ()

    def head(self, train: np.ndarray) -> Head:
        """The task's head, fitted on training rows."""
        return fit_head(self.task, self.labels, train, self.auxiliary)

    def shape(self, outputs: int) -> Shape:
        """What a network of this job must fit."""
        teachers = self.store.teachers
        return Shape(tuple(t.name for t in teachers), tuple(t.dims for t in teachers), outputs)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A network and a head, fitted as far as that goes without gradients.

    Attributes:
        network: with fresh weights, on the store's device.
        head: of the task.
        y: float32 (cases, columns), the head's targets.
    """

    network: Network
    head: Head
    y: np.ndarray


def prepare(
    job: TrainingJob, cfg: TrainingConfig, model: ModelConfig, train: np.ndarray, draw: int
) -> Prepared:
    """Draw the weights and fit head, scaler and what else there is to the training cases alone.

    Args:
        job: features, labels and folds.
        cfg: the training section.
        model: the model.
        train: rows of the training cases.
        draw: seed of the weights.

    Raises:
        UserError: the training part cannot be learned from.
    """
    head = job.head(train)
    y = head.targets(job.labels)
    torch.manual_seed(draw)
    network = build_network(model, job.shape(head.outputs))
    network.fit(lesson(job, cfg, head, y, train, draw))
    return Prepared(network.to(job.store.device), head, y)


def lesson(
    job: TrainingJob, cfg: TrainingConfig, head: Head, y: np.ndarray, cases: np.ndarray, draw: int
) -> Lesson:
    """What a network may fit to the given cases without gradients.

    Args:
        job: features, labels and folds.
        cfg: the training section.
        head: of the task.
        y: float32, targets of all cases.
        cases: rows of the cases to fit to.
        draw: seed of what is drawn.
    """
    return Lesson(
        store=job.store,
        train=cases,
        y=y,
        strata=head.strata(y[cases]),
        task=objective(head, y[cases]),
        standardise=cfg.standardise,
        seed=draw,
    )


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything that has a digest."""
    return int(digest(*parts), 16) % 2**63


def device_of(wanted: str) -> torch.device:
    """`auto` is a GPU where there is one."""
    if wanted != "auto":
        return torch.device(wanted)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
