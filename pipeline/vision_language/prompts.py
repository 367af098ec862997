"""From words to class weights: synonyms in templates, averaged; and draws of them, for the spread.

A class is a list of synonyms, a prompt a synonym in a template. The class's weight vector is the
mean of the unit vectors of its prompts, scaled to length 1 (Radford et al. 2021; Lu et al. 2023,
MI-Zero). What one wording decides is shown by draws: each takes one synonym of every class and a
random part of the templates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.config.vision_language import MARK
from pipeline.errors import UserError

LEAST_LENGTH = 1e-4  # of a mean of unit vectors that still points somewhere


@dataclasses.dataclass(frozen=True)
class Draw:
    """One choice of words.

    Attributes:
        synonyms: for each class, the number of one of its synonyms.
        templates: numbers of the templates, sorted; at least one.
    """

    synonyms: tuple[int, ...]
    templates: tuple[int, ...]


def prompts(classes: Mapping[str, Sequence[str]], templates: Sequence[str]) -> list[str]:
    """Every synonym of every class in every template, in this order, classes outermost.

    Args:
        classes: class -> its synonyms.
        templates: sentences with `{}` where the synonym goes.
    """
    return [
        template.replace(MARK, synonym)
        for synonyms in classes.values()
        for synonym in synonyms
        for template in templates
    ]


def by_class(
    classes: Mapping[str, Sequence[str]], templates: Sequence[str], vectors: np.ndarray
) -> list[np.ndarray]:
    """The vectors of `prompts`, for each class (synonyms, templates, D).

    Args:
        classes: class -> its synonyms.
        templates: the templates.
        vectors: (prompts, D), of length 1.
    """
    found, start = [], 0
    for synonyms in classes.values():
        count = len(synonyms) * len(templates)
        part = vectors[start : start + count]
        found.append(part.reshape(len(synonyms), len(templates), -1))
        start += count
    return found


def ensemble(vectors: Sequence[np.ndarray], names: Sequence[str]) -> np.ndarray:
    """One weight vector a class from all its synonyms and all templates.

    Args:
        vectors: for each class (synonyms, templates, D), of length 1.
        names: of the classes, for messages.

    Returns:
        float32 (classes, D), each of length 1.

    Raises:
        UserError: the prompts of a class point in opposite directions, so that their mean says
            nothing.
    """
    means = [part.reshape(-1, part.shape[-1]).mean(axis=0, dtype=np.float64) for part in vectors]
    return _normalised(np.stack(means), names)


def drawn(vectors: Sequence[np.ndarray], draw: Draw, names: Sequence[str]) -> np.ndarray:
    """One weight vector a class from the words of one draw.

    Args:
        vectors: for each class (synonyms, templates, D), of length 1.
        draw: which words.
        names: of the classes, for messages.

    Returns:
        float32 (classes, D), each of length 1.

    Raises:
        UserError: as in `ensemble`.
    """
    chosen = list(draw.templates)
    means = [
        part[synonym, chosen].mean(axis=0, dtype=np.float64)
        for part, synonym in zip(vectors, draw.synonyms, strict=True)
    ]
    return _normalised(np.stack(means), names)


def draws(counts: Sequence[int], templates: int, n: int, seed: int) -> list[Draw]:
    """Random choices of words, the same for equal arguments.

    The size of a draw's part of the templates is uniform between one and all, its members are
    drawn without replacement.

    Args:
        counts: synonyms of each class.
        templates: how many there are.
        n: how many draws.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        synonyms = tuple(int(rng.integers(count)) for count in counts)
        size = int(rng.integers(1, templates + 1))
        chosen = np.sort(rng.choice(templates, size, replace=False))
        found.append(Draw(synonyms, tuple(map(int, chosen))))
    return found


def _normalised(means: np.ndarray, names: Sequence[str]) -> np.ndarray:
    lengths = np.linalg.norm(means, axis=1)
    if (lengths < LEAST_LENGTH).any():
        name = names[int(lengths.argmin())]
        raise UserError(
            f"vision_language: the prompts of class `{name}` cancel one another; use synonyms that "
            "mean the same"
        )
    return (means / lengths[:, None]).astype(np.float32)
