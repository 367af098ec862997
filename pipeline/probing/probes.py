"""Simple classifiers on frozen features: what a teacher's tiles say without any training of ours.

Each takes training features float32 (n, d), training classes int64 (n,) and test features (m, d) of
equal scale, and returns class probabilities float64 (m, C). A class that the training part lacks
has probability 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

Probe = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


def logistic(x: np.ndarray, y: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    """Multinomial logistic regression with a unit L2 penalty.

    Args:
        x: float (n, d), training tiles.
        y: int (n,), their classes.
        test: float (m, d), tiles to predict.
        classes: how many there are.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(y)) < 2:
        return _constant(y, len(test), classes)
    model = LogisticRegression(C=1.0, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    return _spread(model.predict_proba(test), model.classes_, classes)


def sgd_ensemble(members: int) -> Probe:
    """Mean of `members` logistic classifiers fitted by stochastic gradient descent with seeds 0, 1,
    …: the linear evaluation of Filiot et al. 2023 (Phikon), with its learning rate."""

    def probe(x: np.ndarray, y: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import SGDClassifier

        if len(np.unique(y)) < 2:
            return _constant(y, len(test), classes)
        total = np.zeros((len(test), classes))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for seed in range(members):
                model = SGDClassifier(
                    loss="log_loss", learning_rate="adaptive", eta0=1e-4, random_state=seed
                ).fit(x, y)
                total += _spread(model.predict_proba(test), model.classes_, classes)
        return total / members

    return probe


def neighbours(k: int) -> Probe:
    """The k nearest training tiles by cosine similarity vote alike."""

    def probe(x: np.ndarray, y: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
        known, asked = _unit(x), _unit(test)
        reach = min(k, len(known))
        votes = np.zeros((len(test), classes))
        for start in range(0, len(test), 1024):
            likeness = asked[start : start + 1024] @ known.T
            nearest = np.argpartition(-likeness, reach - 1, axis=1)[:, :reach]
            rows = np.arange(len(nearest))[:, None] + start
            np.add.at(votes, (rows, y[nearest]), 1.0 / reach)
        return votes

    return probe


def nearest_centre(x: np.ndarray, y: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    """Nearest class centre after centring and normalising (SimpleShot, Wang et al. 2019), the
    few-shot classifier; probabilities are a softmax of minus the squared distances.

    Args:
        x: float (n, d), training tiles.
        y: int (n,), their classes.
        test: float (m, d), tiles to predict.
        classes: how many there are.
    """
    mean = x.mean(0)
    known, asked = _unit(x - mean), _unit(test - mean)
    present = np.unique(y)
    centres = np.stack([known[y == c].mean(0) for c in present])
    apart = ((asked[:, None] - centres[None]) ** 2).sum(2)
    shares = np.exp(apart.min(1, keepdims=True) - apart)
    return _spread(shares / shares.sum(1, keepdims=True), present, classes)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _spread(found: np.ndarray, present: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities of the present classes, in columns for all."""
    out = np.zeros((len(found), classes))
    out[:, np.asarray(present, dtype=np.int64)] = found
    return out


def _constant(y: np.ndarray, n: int, classes: int) -> np.ndarray:
    out = np.zeros((n, classes))
    out[:, y[0]] = 1.0
    return out
