"""What all trainings of a model share, and how one of them is made ready."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from pydantic import TypeAdapter

from pipeline.aggregators.network import Lesson, Network, Shape
from pipeline.bags.store import Store
from pipeline.config.models import LinearModel, ModelConfig
from pipeline.config.tasks import SurvivalTask, TaskConfig
from pipeline.config.training import TrainingConfig
from pipeline.contracts.labels import Labels, Task
from pipeline.files.digests import digest
from pipeline.forest.unseen import answers_unseen
from pipeline.linear.linear import LinearOfCases
from pipeline.training.head import Head
from pipeline.training.loop import Trial, objective
from pipeline.training.models import build_network
from pipeline.training.multitask import AuxiliaryTask
from pipeline.training.plain_answers import Answers, blended
from pipeline.training.predict import Batches, predict
from pipeline.training.tasks import fit_head, main_of


@dataclasses.dataclass(frozen=True)
class TrainingJob:
    """What all folds and seeds of a run share.

    Attributes:
        cfg: the training section.
        model_name, model: the model.
        task: the task.
        store: the bags.
        labels: of the store's cases.
        versions: of the code that decides the result.
        slides: (case, slide number) names of slides, for tables of attention.
        groups: int64 (cases,): cases of one group never stand on both sides of a split.
        auxiliary: endpoints that are learned with the task's own.
    """

    cfg: TrainingConfig
    model_name: str
    model: ModelConfig
    task: Task
    store: Store
    labels: Labels
    versions: str
    slides: dict[tuple[str, str], str]
    groups: np.ndarray
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
        answers: of plain models that the network learns from besides the labels.
    """

    network: Network
    head: Head
    y: np.ndarray
    answers: Answers | None = None

    def trial(self, parts: Mapping[str, np.ndarray], cfg: TrainingConfig, seed: int) -> Trial:
        """The training of it.

        Args:
            parts: case numbers of `train` and `val`.
            cfg: epochs, batch size and so on.
            seed: of the order, the tile draws and the dropout.
        """
        return Trial(self.network, self.head, self.y, parts, cfg, seed, self.answers)


def prepare(
    job: TrainingJob,
    cfg: TrainingConfig,
    model: ModelConfig,
    train: np.ndarray,
    draw: int,
    head: Head | None = None,
) -> Prepared:
    """Draw the weights and fit head, scaler and what else there is to the training cases alone.

    Args:
        job: what all trainings share.
        cfg, model: settings and model.
        train: int64 (n,), the cases to learn from.
        draw: the seed.
        head: a head that is fitted already; None: fit one to `train`.

    Raises:
        UserError: the training part cannot be learned from.
    """
    head = head or job.head(train)
    y = head.targets(job.labels)
    torch.manual_seed(draw)
    network = build_network(model, job.shape(head.outputs))
    network.fit(lesson(job, cfg, head, y, train, draw))
    answers = _answers(job, cfg, model, train, draw, head)
    return Prepared(network.to(job.store.device), head, y, answers)


def _answers(
    job: TrainingJob,
    cfg: TrainingConfig,
    model: ModelConfig,
    train: np.ndarray,
    draw: int,
    head: Head,
) -> Answers | None:
    """Answers of plain models of the training cases, if the model learns from such."""
    distillation = getattr(model, "distillation", None)
    if distillation is None or not distillation.plain:
        return None
    alone = with_cox(dataclasses.replace(job, auxiliary=()))
    own = None if isinstance(job.task, SurvivalTask) else main_of(head)
    taught = prepare(alone, cfg, LinearModel(kind="linear"), train, draw, own)
    assert isinstance(taught.network, LinearOfCases)
    to_learn = lesson(alone, cfg, taught.head, taught.y, train, draw)
    forest = answers_unseen(
        taught.network.columns(to_learn),
        taught.y[train],
        to_learn.task,
        to_learn.strata,
        to_learn.groups,
        draw,
    )
    linear = predict(taught.network, job.store, train, cfg.max_tiles_per_case)
    said = np.full((len(job.store.cases), taught.head.outputs), np.nan, dtype=np.float32)
    said[train] = blended(linear, forest, to_learn.task.type)
    return Answers(said, distillation.plain)


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
        groups=job.groups[cases],
        task=objective(head),
        bags=lambda chosen: Batches(job.store, chosen, cfg.max_tiles_per_case),
        standardise=cfg.standardise,
        seed=draw,
    )


def with_cox(job: TrainingJob) -> TrainingJob:
    """The job with Cox's loss for every survival endpoint, which is what linear models solve."""
    return dataclasses.replace(
        job,
        task=cox_of(job.task),
        auxiliary=tuple(dataclasses.replace(one, task=cox_of(one.task)) for one in job.auxiliary),
    )


def cox_of(task: Task) -> Task:
    """The task with Cox's loss where it is one of survival."""
    if not isinstance(task, SurvivalTask) or task.loss == "cox":
        return task
    kept = {key: getattr(task, key) for key in ("type", "time", "event", "unit", "auxiliary")}
    return TypeAdapter(TaskConfig).validate_python({**kept, "loss": "cox"})


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything that has a digest."""
    return int(digest(*parts), 16) % 2**63


def device_of(wanted: str) -> torch.device:
    """`auto` is a GPU where there is one."""
    if wanted != "auto":
        return torch.device(wanted)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
