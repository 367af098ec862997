"""What training, prediction and reports need of a task's head."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from torch import Tensor

from pipeline.contracts.labels import Labels


class Head(Protocol):
    """What the loop needs of a task. `y` is float32 (n, columns) as `targets` makes it."""

    @property
    def kind(self) -> str:
        """What `from_facts` knows it by."""
        ...

    @property
    def metric_name(self) -> str:
        """What the validation metric is called."""
        ...

    @property
    def needed(self) -> int | None:
        """A stratum without which a batch has no loss."""
        ...

    @property
    def outputs(self) -> int:
        """Network outputs."""
        ...

    def targets(self, labels: Labels) -> np.ndarray:
        """float32 (n, columns) for all labelled cases."""
        ...

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar."""
        ...

    def metric(self, out: np.ndarray, y: np.ndarray) -> float:
        """Validation metric, higher is better; NaN where it is not defined."""
        ...

    def strata(self, y: np.ndarray) -> np.ndarray:
        """int64 (n,): what each batch must have its share of."""
        ...

    def classes_of(self, y: Tensor) -> Tensor | None:
        """int64 (n,) for a classification, else None."""
        ...

    def score(self, out: np.ndarray) -> np.ndarray:
        """float (n,): what cases are ranked by (risk, confidence, first target)."""
        ...

    def lead(self, out: Tensor) -> Tensor:
        """(B,): what a tile's influence is measured on: the risk, the log odds of the predicted
        class, the first target in its own unit. Differentiable."""
        ...

    def columns(self, out: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        """The predictions table's columns for these cases."""
        ...

    def facts(self) -> dict[str, Any]:
        """JSON-able; `from_facts` of the same class makes the head again."""
        ...
