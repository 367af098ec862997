"""Whether a slide is like those that the model learned from: its scale, its stain, its features.

A set of vectors is described by its mean and its main axes, and what is left over by one variance
(probabilistic principal components; Tipping & Bishop, J R Stat Soc B 1999), so that there is a
distance also where there are fewer slides than features. Its limit is what all but one in a hundred
slides of the training cohort keep to, each measured by a description that was made without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

AXES = 16
PARTS = 5  # of the training slides, each measured by the others
INSIDE = 0.99
LEAST_SLIDES = 10
MPP_FACTOR = 1.15  # as far as a level 0 may be beyond those of the training cohort


@dataclasses.dataclass(frozen=True)
class Cloud:
    """Where the vectors of the training slides lie.

    Attributes:
        mean: float64 (d,).
        axes: float64 (k, d), orthonormal.
        variances: float64 (k,), along the axes.
        rest: variance of each other direction.
    """

    mean: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    rest: float

    def distance(self, x: np.ndarray) -> np.ndarray:
        """float64 (n,), root mean square over the dimensions of vectors (n, d), in deviations: near
        1 for what is like the training slides."""
        away = x - self.mean
        along = away @ self.axes.T
        left = np.maximum((away**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        squared = (along**2 / self.variances).sum(axis=1)
        if self.axes.shape[0] < self.axes.shape[1]:
            squared = squared + left / self.rest
        found: np.ndarray = np.sqrt(squared / self.axes.shape[1])
        return found

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds of it."""
        parts = {
            "mean": self.mean,
            "axes": self.axes,
            "variances": self.variances,
            "rest": np.array([self.rest]),
        }
        return {
            name: torch.from_numpy(np.asarray(part, np.float64)) for name, part in parts.items()
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Cloud:
        """From what a file holds."""
        parts = {name: value.double().numpy() for name, value in tensors.items()}
        return cls(parts["mean"], parts["axes"], parts["variances"], float(parts["rest"][0]))


def describe(x: np.ndarray) -> Cloud:
    """The cloud of vectors float64 (n, d), n >= 3."""
    n, d = x.shape
    least = max(float(x.var()) * 1e-6, 1e-12)
    k = max(1, min(AXES, d if n > 2 * d else d - 1, (n - 1) // 2))
    found = PCA(k, svd_solver="full").fit(x)
    left = (n - 1) * (x.var(axis=0, ddof=1).sum() - found.explained_variance_.sum())
    return Cloud(
        found.mean_,
        found.components_,
        np.maximum(found.explained_variance_, least),
        max(float(left) / ((n - 1) * max(d - k, 1)), least),
    )


def limit(x: np.ndarray, cases: Sequence[str]) -> float | None:
    """The distance that all but one in a hundred slides keep to; None of too few slides.

    Args:
        x: float64 (n, d), a vector a slide.
        cases: of each slide; slides of one case are left out together.
    """
    groups = np.unique(list(cases), return_inverse=True)[1]
    if len(x) < LEAST_SLIDES or groups.max() + 1 < PARTS:
        return None
    found = np.empty(len(x))
    for part in range(PARTS):
        out = groups % PARTS == part
        found[out] = describe(x[~out]).distance(x[out])
    return float(np.quantile(found, INSIDE, method="higher"))


@dataclasses.dataclass(frozen=True)
class Doubt:
    """One comparison of a slide with the training cohort.

    Attributes:
        what: that was compared.
        value, limit: in the unit of the text.
        text: the comparison in words.
        outside: whether the slide is beyond what the training cohort shows.
    """

    what: str
    value: float
    limit: float | None
    text: str
    outside: bool


def compare(what: str, cloud: Cloud, most: float | None, x: np.ndarray) -> Doubt:
    """A slide's vector with the training slides'.

    Args:
        what: that is compared, e.g. `stain`.
        cloud: of the training slides.
        most: the limit; None: not judged.
        x: float64 (d,).
    """
    value = float(cloud.distance(x[None])[0])
    if most is None:
        return Doubt(what, value, None, f"{what}: too few training slides to judge", False)
    outside = value > most
    beyond = "beyond" if outside else "within"
    return Doubt(what, value, most, f"{what}: distance {value:.2f}, {beyond} {most:.2f}", outside)


def compare_mpp(mpp: float, seen: tuple[float, float]) -> Doubt:
    """A slide's µm per pixel with the least and the largest of the training slides."""
    low, high = seen
    outside = not low / MPP_FACTOR <= mpp <= high * MPP_FACTOR
    known = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    text = f"scale: {mpp:.3g} µm per pixel, the training slides have {known}"
    return Doubt("scale", mpp, high if mpp > high else low, text, outside)
