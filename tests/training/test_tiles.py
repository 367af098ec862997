"""Students on single tiles: teachers are the tokens of a tile, cases never stand on two sides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.aggregators.network import Lesson, Shape
from pipeline.bags.store import Store
from pipeline.bags.tiles import tile_store
from pipeline.config.models import ModelConfig, ShazamV1Model, ShazamV2Model
from pipeline.config.tasks import ClassificationTask
from pipeline.config.training import TrainingConfig
from pipeline.contracts.labels import Labels
from pipeline.training.loop import Trial, objective, train
from pipeline.training.models import build_network
from pipeline.training.predict import Batches, predict
from pipeline.training.tasks import fit_head

CASES, EACH = 24, 15
CLASSES = ("stroma", "tumour", "necrosis")


def slides(seed: int = 0) -> tuple[Store, np.ndarray, np.ndarray]:
    """360 tiles of 24 cases; one teacher sees tumour alone, the other necrosis alone."""
    rng = np.random.default_rng(seed)
    case = np.repeat(np.arange(CASES), EACH)
    y = rng.integers(0, 3, len(case))
    site = rng.normal(size=(CASES, 8))[case]  # what makes tiles of a case alike
    seen = [(y == 1)[:, None] * 2.5, (y == 2)[:, None] * 2.5]
    features = {
        name: {
            level: (site + rng.normal(size=(len(y), 8)) + one).astype(np.float16)
            for level in levels
        }
        for name, one, levels in zip(
            ("a", "b"), seen, (("low", "mid", "high"), ("high",)), strict=True
        )
    }
    lacks = np.zeros(len(y), dtype=bool)
    lacks[::17] = True
    names = [f"{c}:{i}" for i, c in enumerate(case)]
    return tile_store(names, features, torch.device("cpu"), {"b": lacks}), y, case


@pytest.mark.parametrize("model", [ShazamV1Model, ShazamV2Model])
def test_students_learn_tile_classes_of_cases_they_have_not_seen(model: Any) -> None:
    store, y, case = slides()
    spec: ModelConfig = model(kind=model.model_fields["kind"].annotation.__args__[0], d_model=32)
    labels = Labels(store.cases, {}, classes=CLASSES, label=y)
    parts = {
        "train": np.flatnonzero(case < 14),
        "val": np.flatnonzero((case >= 14) & (case < 18)),
        "test": np.flatnonzero(case >= 18),
    }
    task = ClassificationTask(type="classification", label="tissue")
    head = fit_head(task, labels, parts["train"])
    target = head.targets(labels)
    shape = Shape(("a", "b"), tuple(t.dims for t in store.teachers), head.outputs)
    torch.manual_seed(0)
    network = build_network(spec, shape)
    learned = parts["train"]
    network.fit(
        Lesson(
            store=store,
            train=learned,
            y=target,
            strata=head.strata(target[learned]),
            groups=case[learned],
            task=objective(head),
            bags=lambda tiles: Batches(store, tiles, None),
            standardise=True,
            seed=0,
        )
    )
    cfg = TrainingConfig(epochs=12, batch_size=64)
    train(Trial(network, head, target, parts, cfg, 0), store)
    said = predict(network, store, parts["test"], None).argmax(1)
    assert (said == y[parts["test"]]).mean() > 0.7  # chance is a third, either teacher alone 0.6
    # A tile that a teacher lacks has a masked token and still gets its class.
    alone = parts["test"][~store.present[parts["test"], 1]]
    assert len(alone) > 2
    assert np.isfinite(predict(network, store, alone, None)).all()


def test_a_level_of_other_tiles_is_refused() -> None:
    with pytest.raises(ValueError, match="a/low: 3 rows for 4 tiles"):
        tile_store(list("wxyz"), {"a": {"low": np.zeros((3, 2))}}, torch.device("cpu"))
