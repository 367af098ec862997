"""When arithmetic is in half precision."""

from __future__ import annotations

import pytest
import torch

from pipeline.bags.batch import Batch
from pipeline.training import predict


def batch_of(tiles: int) -> Batch:
    mask = torch.zeros(1, tiles, dtype=torch.bool)
    return Batch(
        cases=torch.zeros(1, dtype=torch.int64),
        features=({"high": torch.zeros(1, tiles, 4)},),
        masks=(mask,),
        rows=(torch.zeros(1, tiles, dtype=torch.int64),),
        present=torch.ones(1, 1, dtype=torch.bool),
    )


@pytest.mark.parametrize(
    ("wanted", "tiles", "native", "mixed"),
    [
        ("fp32", 100, True, False),
        ("bf16", 1, False, True),
        ("auto", 100, True, True),
        ("auto", 99, True, False),
        ("auto", 100, False, False),
    ],
)
def test_auto_takes_bfloat16_where_the_processor_has_it_and_the_batch_is_large(
    monkeypatch: pytest.MonkeyPatch, wanted: str, tiles: int, native: bool, mixed: bool
) -> None:
    monkeypatch.setattr(predict, "MIXED_VALUES", 400)
    monkeypatch.setattr(predict, "_native", lambda: native)
    batch = batch_of(tiles)
    assert predict.is_mixed(batch, wanted) is mixed
    with predict.precision(batch, wanted):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if mixed else torch.float32)
