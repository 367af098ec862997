"""What plain models say of the training cases, as something that a network learns from.

With few cases a penalised regression and a forest, on case means, predict better than a network
does, and better together than either alone. A network that learns from their answers besides the
labels (knowledge distillation; Hinton, Vinyals & Dean 2015, arXiv:1503.02531) starts from what they
know. What they count falls as labels are seen (annealing; Jafari et al. 2021, arXiv:2104.07163):
slowly where cases are few, and fast where they are many, so that a network which sees more than
plain models can, in rare tiles for one, is not held back.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.aggregators.network import TaskType
from pipeline.training.head import Head
from pipeline.training.tasks import main_of, type_of

# Raised when what is learned from plain models' answers changes. 1: of a linear model.
# 2: a forest's, too; they count less from epoch to epoch.
VERSION = 2

STEADY = 1e-6
WORTH = 8000  # labels seen, an epoch's cases each time, after which answers count half


@dataclasses.dataclass(frozen=True)
class Answers:
    """What is said of the training cases, and how much it counts.

    Attributes:
        said: float32 (cases, C), what they answer; NaN of a case that is not learned from.
        share: of the loss on the task's own outputs, in the first epoch; the labels have the rest.
    """

    said: np.ndarray
    share: float


def blended(linear: np.ndarray, forest: np.ndarray | None, type_: TaskType) -> np.ndarray:
    """The mean of both answers: of probabilities, of numbers, or of standardised risks.

    Args:
        linear: (n, C), outputs of the linear model.
        forest: (n, C), as `answers_unseen` returns them; None: the linear model answers alone.
        type_: of the task.

    Returns:
        float32 (n, C).
    """
    if forest is None:
        return linear.astype(np.float32)
    match type_:
        case "classification":
            both = (_probabilities(linear) + _probabilities(forest)) / 2
            return np.log(both).astype(np.float32)
        case "regression":
            return ((linear + forest) / 2).astype(np.float32)
        case "survival":
            return ((_standardised(linear) + _standardised(forest)) / 2).astype(np.float32)


def _probabilities(out: np.ndarray) -> np.ndarray:
    return torch.from_numpy(out).double().softmax(1).numpy()


def _standardised(risk: np.ndarray) -> np.ndarray:
    return (risk - risk.mean()) / max(float(risk.std()), STEADY)


def remaining(epoch: int, cases: int) -> float:
    """How much of the first share is left in an epoch: WORTH / (WORTH + labels seen before it).

    Args:
        epoch: from 1.
        cases: that are learned from.
    """
    return WORTH / (WORTH + cases * (epoch - 1))


def answers_loss(head: Head, out: Tensor, said: Tensor) -> Tensor:
    """How far outputs are from plain models' answers: a scalar.

    Of a classification the cross-entropy with its probabilities (equation 2 of the paper, at
    temperature 1); of a regression the squared difference; of survival one minus the correlation of
    risks, since the scale of a risk depends on the survival loss.

    Args:
        head: of the task; of several endpoints the task's own counts.
        out: (B, C), outputs of the network.
        said: (B, C'), the answers.
    """
    main = main_of(head)
    out = out[:, : main.outputs]
    match type_of(main):
        case "classification":
            return F.cross_entropy(out, said.softmax(1))
        case "regression":
            return F.mse_loss(out, said)
        case "survival":
            return 1 - _correlation(main.lead(out), said[:, 0])


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of two (B,); 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / torch.sqrt((a * a).sum() * (b * b).sum() + STEADY)
