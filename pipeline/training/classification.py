"""Classification head: a logit for each class, which a registered loss compares with the class."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pipeline.config.tasks import ClassificationTask, default_loss, losses
from pipeline.contracts.labels import Labels
from pipeline.errors import UserError
from pipeline.training.metrics import macro_auc

# Raised when predictions of classification tasks change. 1: the first.
VERSION = 1


@dataclasses.dataclass(frozen=True)
class ClassificationHead:
    """Logits of C classes. Targets: the class number.

    Attributes:
        classes: names, in the order of the outputs.
        weights: one per class; n / (C · n_c) of the training part, or all 1.
        loss_name: a function of logits (B, C), classes (B,) and weights (C,).
        arguments: the loss's own keys.
    """

    metric_name = "AUC"

    classes: tuple[str, ...]
    weights: tuple[float, ...]
    loss_name: str
    arguments: Mapping[str, Any]
    kind: ClassVar[str] = "classification"
    needed: ClassVar[int | None] = None

    @property
    def outputs(self) -> int:
        return len(self.classes)

    @classmethod
    def fit(cls, task: ClassificationTask, labels: Labels, train: np.ndarray) -> ClassificationHead:
        """The head of a task, fitted on the training rows.

        Args:
            task: the task.
            labels: of all cases.
            train: rows to fit on.
        """
        assert labels.label is not None
        counts = np.bincount(labels.label[train], minlength=len(labels.classes))
        absent = [c for c, n in zip(labels.classes, counts, strict=True) if n == 0]
        if absent:
            raise UserError(
                f"the training part has no case of class `{absent[0]}` (column `{task.label}`); "
                "use fewer folds (folds.k) or leave the class out (tasks.<name>.classes)"
            )
        weights = counts.sum() / (len(counts) * counts) if task.class_weights else counts * 0 + 1.0
        shares = tuple(float(w) for w in weights)
        return cls(labels.classes, shares, task.loss, task.arguments())

    def targets(self, labels: Labels) -> np.ndarray:
        assert labels.label is not None
        return labels.label[:, None].astype(np.float32)

    @cached_property
    def _function(self) -> Callable[..., Tensor]:
        return losses(self.kind)[self.loss_name].load()

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        weights = torch.tensor(self.weights, dtype=out.dtype, device=out.device)
        return self._function(out, y[:, 0].long(), weights, **self.arguments)

    def metric(self, out: np.ndarray, y: np.ndarray) -> float:
        return macro_auc(_softmax(out), y[:, 0].astype(np.int64))

    def strata(self, y: np.ndarray) -> np.ndarray:
        return y[:, 0].astype(np.int64)

    def classes_of(self, y: Tensor) -> Tensor | None:
        return y[:, 0].long()

    def score(self, out: np.ndarray) -> np.ndarray:
        return _softmax(out).max(1)

    def lead(self, out: Tensor) -> Tensor:
        best = out.argmax(dim=1, keepdim=True)
        rest = out.scatter(1, best, -torch.inf)
        return out.gather(1, best)[:, 0] - rest.logsumexp(dim=1)

    def columns(self, out: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        names = np.array(self.classes, dtype=object)
        probabilities = _softmax(out)
        columns: dict[str, np.ndarray] = {"label": names[y[:, 0].astype(np.int64)]}
        for i, name in enumerate(self.classes):
            columns[f"prob_{name}"] = probabilities[:, i]
        return columns

    def facts(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "classes": list(self.classes),
            "class_weights": list(self.weights),
            "loss": self.loss_name,
            **self.arguments,
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> ClassificationHead:
        loss = facts.get("loss", default_loss(cls.kind))
        defaults = losses(cls.kind)[loss].defaults
        arguments = {key: facts.get(key, default) for key, default in defaults.items()}
        return cls(tuple(facts["classes"]), tuple(facts["class_weights"]), loss, arguments)


def _softmax(out: np.ndarray) -> np.ndarray:
    return torch.from_numpy(out).double().softmax(1).numpy()
