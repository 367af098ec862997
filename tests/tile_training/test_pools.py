"""The slides that an encoder may see."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contracts.folds import Fold
from pipeline.errors import UserError
from pipeline.tile_training import pools
from tests.pretraining.test_pretraining_stage import six_slides


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six slides of as many cases, of which c4 and c5 have no grade."""
    return six_slides(tmp_path_factory.mktemp("slides"))


def cases(root: Path, pool: str, labels: tuple[str, ...] = (), task: str = "") -> set[str]:
    found = pools.pooled(root, pool, key="here", labels=labels, task=task, fold=1)
    return {slide.case_id for slide in found}


def test_each_pool_has_its_slides(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = {f"c{i}" for i in range(6)}
    folds = [
        Fold(0, ("c0", "c1"), ("c2",), ("c3", "c4", "c5")),
        Fold(1, ("c3", "c5"), ("c4",), ("c0", "c1", "c2")),
    ]
    monkeypatch.setattr(pools, "read_folds", lambda root, task: folds if task == "os" else [])
    assert cases(root, "all") == every
    assert cases(root, "separate", ("grade",)) == {"c4", "c5"}
    assert cases(root, "separate", ("gr*",)) == {"c4", "c5"}
    assert cases(root, "training", task="os") == {"c3", "c5"}  # neither validation nor test
    assert cases(root, "training") == every  # an encoder as it starts, which learns nothing


def test_an_empty_pool_says_what_to_do(root: Path) -> None:
    with pytest.raises(UserError, match=r"here: separate, but every case has a label. Add slides"):
        cases(root, "separate", ("slide_id",))
