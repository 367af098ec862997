"""Teachers' features brought to one scale, so that none of them owns the loss.

PHI-S turns a teacher's features onto their principal axes and then by a Hadamard matrix: every
dimension gets the same variance, so that one number scales them all and keeps the distances.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError

LEAST = 1e-6  # of the mean variance: a teacher that says the same of every tile


@dataclasses.dataclass(frozen=True)
class Standard:
    """How one teacher's features are standardised: (x - mean) @ turn / scale.

    Attributes:
        mean: float32 (D,).
        turn: float32 (D, D), orthogonal; None: no turn.
        scale: one number.
    """

    mean: Tensor
    turn: Tensor | None
    scale: float

    def __call__(self, features: Tensor) -> Tensor:
        """Features (B, D), standardised, as float32."""
        centred = features.float() - self.mean.to(features.device)
        if self.turn is not None:
            centred = centred @ self.turn.to(features.device)
        return centred / self.scale

    def back(self, standardised: Tensor) -> Tensor:
        """Standardised features (B, D) as the teacher would give them, as float32."""
        features = standardised.float() * self.scale
        if self.turn is not None:
            features = features @ self.turn.to(features.device).T
        return features + self.mean.to(features.device)


def fit_standard(name: str, parts: Iterable[np.ndarray], kind: str) -> Standard:
    """The standardisation of one teacher, from the features of training slides.

    Source: Ranzinger et al. 2024, "PHI-S: Distribution balancing for label-free multi-teacher
    distillation".

    Args:
        name: the teacher, for messages.
        parts: features (n, D), a slide at a time; only their moments are kept.
        kind: `phi_s`, or `scalar`: the mean and one deviation.

    Raises:
        UserError: the features do not vary, or PHI-S has no Hadamard matrix of that width.
    """
    count, total, products = 0, np.zeros(0), np.zeros((0, 0))
    for part in parts:
        values = part.astype(np.float64)
        if not count:
            total, products = np.zeros(values.shape[1]), np.zeros((values.shape[1],) * 2)
        count += len(values)
        total += values.sum(0)
        products += values.T @ values
    mean = total / max(count, 1)
    covariance = products / max(count, 1) - np.outer(mean, mean)
    variance = float(np.trace(covariance)) / max(len(mean), 1)
    if count < 2 or variance <= LEAST * float(np.mean(mean**2)):
        raise UserError(
            f"teacher `{name}` says the same of all {count} tiles of the training slides, so there "
            "is nothing to learn from it; leave it out (`teachers:` of the student)"
        )
    scale = variance**0.5
    if kind == "scalar":
        return Standard(_tensor(mean), None, scale)
    _, axes = np.linalg.eigh(covariance)
    try:
        turn = axes @ hadamard(len(mean)).T
    except ValueError:
        raise UserError(
            f"teacher `{name}`: no Hadamard matrix of {len(mean)} dimensions is known here; set "
            "standardise: scalar"
        ) from None
    return Standard(_tensor(mean), _tensor(turn), scale)


@lru_cache(maxsize=4)
def hadamard(n: int) -> np.ndarray:
    """An orthogonal matrix whose entries are all ±1/√n: float64 (n, n).

    Sylvester's doubling of one of Paley's first kind, of order q + 1 with a prime q ≡ 3 (mod 4).

    Raises:
        ValueError: none of that order is known here.
    """
    core, doublings = n, 0
    while True:
        if core == 1 or (core % 4 == 0 and _is_prime(core - 1)):
            break
        if core % 2:
            raise ValueError(f"no Hadamard matrix of order {n}")
        core, doublings = core // 2, doublings + 1
    matrix = np.ones((1, 1)) if core == 1 else _paley(core - 1)
    for _ in range(doublings):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.sqrt(n)


def _paley(q: int) -> np.ndarray:
    squares = {i * i % q for i in range(1, q)}
    sign = np.array([0 if i == 0 else 1 if i in squares else -1 for i in range(q)])
    residues = sign[(np.arange(q)[None, :] - np.arange(q)[:, None]) % q]
    skew = np.zeros((q + 1, q + 1))
    skew[0, 1:], skew[1:, 0], skew[1:, 1:] = 1, -1, residues
    return skew + np.eye(q + 1)


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % i for i in range(2, int(n**0.5) + 1))


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
