"""What a linear model says of the training cases, as something that a network learns from.

With few cases a penalised regression on case means predicts better than a network does. A network
that learns from its answers besides the labels starts from what it knows, and may go beyond it
where there are cases enough (knowledge distillation; Hinton, Vinyals & Dean 2015,
arXiv:1503.02531).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.training.head import Head
from pipeline.training.tasks import main_of, type_of

# Raised when what is learned from a linear model's answers changes. 1: the first.
VERSION = 1

STEADY = 1e-6


@dataclasses.dataclass(frozen=True)
class Answers:
    """What is said of the training cases, and how much it counts.

    Attributes:
        said: float32 (cases, C), outputs of the linear model; NaN of a case that is not learned
            from.
        share: of the loss on the task's own outputs; the labels have the rest.
    """

    said: np.ndarray
    share: float


def answers_loss(head: Head, out: Tensor, said: Tensor) -> Tensor:
    """How far outputs are from a linear model's answers: a scalar.

    Of a classification the cross-entropy with its probabilities (equation 2 of the paper, at
    temperature 1); of a regression the squared difference; of survival one minus the correlation of
    risks, since the scale of a risk depends on the survival loss.

    Args:
        head: of the task; of several endpoints the task's own counts.
        out: (B, C), outputs of the network.
        said: (B, C'), outputs of the linear model.
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
