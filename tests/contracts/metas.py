"""A meta.json for tests that look at some of its fields."""

from __future__ import annotations

import dataclasses
from typing import Any

from pipeline.contracts.model_meta import ModelMeta

PLAIN = ModelMeta(
    fingerprint="f",
    model_name="m",
    model={"kind": "concat"},
    task={},
    teachers=["t"],
    dims=[{"high": 4}],
    outputs=1,
    head={},
    network={},
    levels_absent={},
    fold=0,
    seed=0,
    labelled="test",
    cases={"train": 3, "val": 1, "test": 2},
    cases_without_features={"train": 0, "val": 0, "test": 0},
    cutoffs={},
    best_epoch=1,
    nested=None,
    epochs=1,
    n_parameters=1,
    resident=True,
    device="cpu",
    seconds=1.0,
    inference_seconds_per_case=0.001,
)


def meta(**fields: Any) -> ModelMeta:
    """A plain training's, with the given fields."""
    return dataclasses.replace(PLAIN, **fields)
