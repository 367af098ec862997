"""A fine-tuned slide encoder: what it starts as, what it reads, and how fast each block learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pipeline.aggregators.finetuned import Finetuned
from pipeline.aggregators.network import Shape
from pipeline.aggregators.slide_grid import cells_of_case
from pipeline.bags.batch import Batch
from pipeline.bags.files import open_features
from pipeline.config.models import FinetunedModel
from pipeline.config.training import TrainingConfig
from pipeline.encoders.slide_level import build as building
from pipeline.encoders.slide_level import registry
from pipeline.errors import ArtifactError
from pipeline.training.loop import adamw

FLASH = "gigapath_flash_slide"
FACTS = {"tile_px": 256, "read_px": 256, "read_downsample": 1.0, "overlap": 0, "target_mpp": 0.5,
         "mpp_level0": 0.5}  # fmt: skip


def model(**more: Any) -> FinetunedModel:
    settings = {"source": "slide", "model": FLASH, "weights": "random", "seed": 4}
    encoder = {"teacher": "slides", "row": FLASH, "settings": settings}
    given = {"kind": "finetuned", "encoder": encoder, "teacher": "tiles", "layers": [2]}
    return FinetunedModel.model_validate(given | more)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row of a slide encoder of two blocks."""
    row = dataclasses.replace(
        registry.resolve(FLASH), kwargs={"width": 16, "depth": 3, "heads": 4}, depth=3
    )
    monkeypatch.setitem(registry.slide_models(), FLASH, row)


def network(**more: Any) -> Finetuned:
    torch.manual_seed(0)
    made = Finetuned(Shape(("tiles",), ({"high": 6},), 2), model(**more))
    start = building.seeded(registry.resolve(FLASH), 6, 4)
    made.encoder.load_state_dict(start.state_dict())
    return made


def feature_file(path: Path, coords: np.ndarray, **facts: Any) -> Any:
    with h5py.File(path, "w") as file:
        rng = np.random.default_rng(len(coords))
        file["features"] = rng.standard_normal((len(coords), 6)).astype(np.float16)
        file.create_dataset("coords", data=coords.astype(np.int32)).attrs.update(FACTS | facts)
    return open_features(path)


def square(side: int) -> np.ndarray:
    return np.array([(x, y) for y in range(side) for x in range(side)]) * 256


def batch(files: list[tuple[Any, ...]], rows: list[np.ndarray]) -> Batch:
    """The chosen rows of each case."""
    width = max(map(len, rows))
    x, mask = torch.zeros(len(files), width, 6), torch.ones(len(files), width, dtype=torch.bool)
    numbers = torch.zeros(len(files), width, dtype=torch.int64)
    for i, (own, chosen) in enumerate(zip(files, rows, strict=True)):
        values = np.concatenate(
            [np.zeros((0, 6)), *(h5py.File(f.path)["features"][()] for f in own)]
        )
        x[i, : len(chosen)] = torch.from_numpy(values[chosen]).float()
        mask[i, : len(chosen)] = False
        numbers[i, : len(chosen)] = torch.from_numpy(chosen)
    return Batch(
        torch.arange(len(files)), ({"high": x},), (mask,), (numbers,), ~mask.all(1)[:, None],
        files=(tuple(files),),
    )  # fmt: skip


@pytest.mark.usefixtures("tiny")
@torch.no_grad()
def test_it_says_what_its_encoder_and_head_say_of_the_slides(tmp_path: Path) -> None:
    made = network(layers=[1, 2]).eval()
    one = feature_file(tmp_path / "a.h5", square(3))
    shuffled = np.random.default_rng(0).permutation(16)
    other = feature_file(tmp_path / "b.h5", square(4)[shuffled])  # in no order of its own
    rows = [np.arange(9), np.arange(25), np.array([], np.int64)]
    found = made(batch([(one,), (one, other), ()], rows)).out
    vectors = []
    for file, place in ((one, np.arange(9)), (other, np.argsort(shuffled))):
        x = torch.from_numpy(h5py.File(file.path)["features"][()][place]).float()
        coords = h5py.File(file.path)["coords"][()][place]
        cells = torch.from_numpy(coords // 256)
        vectors.append(made.encoder(x[None], cells[None], layers=(1, 2))[0])
    torch.testing.assert_close(found[0], made.head(vectors[0]))
    torch.testing.assert_close(found[1], made.head((vectors[0] + vectors[1]) / 2))
    torch.testing.assert_close(found[2], made.head.bias)


@pytest.mark.usefixtures("tiny")
def test_every_block_below_the_head_learns_and_the_lower_the_slower(tmp_path: Path) -> None:
    made = network(rate=0.5, layer_decay=0.8, drop_path=0.0, dropout=0.0).train()
    file = feature_file(tmp_path / "a.h5", square(3))
    before = {k: v.clone() for k, v in made.named_parameters()}
    made(batch([(file,)], [np.arange(9)])).out.sum().backward()
    touched = {k for k, v in made.named_parameters() if v.grad is not None}
    assert {k.split(".")[3] for k in touched if ".layers." in k} == {"0", "1"}
    assert "encoder.patch_embed.proj.weight" in touched and "head.weight" in touched
    frozen = {k for k, v in made.named_parameters() if not v.requires_grad}
    assert frozen and touched.isdisjoint(frozen)
    rates = made.rates()
    assert rates["head.weight"] == 0.5 == rates["encoder.norm.weight"]
    assert rates["encoder.encoder.layers.1.ffn.fc1.weight"] == pytest.approx(0.5 * 0.8)
    assert rates["encoder.encoder.layers.0.ffn.fc1.weight"] == pytest.approx(0.5 * 0.8**2)
    assert rates["encoder.patch_embed.proj.weight"] == pytest.approx(0.5 * 0.8**3)

    made.zero_grad()
    learned = [(n, p) for n, p in made.named_parameters() if p.requires_grad]
    optimiser = adamw([p for _, p in learned], TrainingConfig(), [rates[n] for n, _ in learned])
    made(batch([(file,)], [np.arange(9)])).out.sum().backward()
    optimiser.step(1e-3)  # Adam's first step is the rate itself, wherever there is a slope
    moved = {k: float((v.detach() - before[k]).abs().max()) for k, v in made.named_parameters()}
    assert moved["head.weight"] == pytest.approx(5e-4, rel=0.05)
    assert moved["encoder.patch_embed.proj.weight"] == pytest.approx(5e-4 * 0.8**3, rel=0.05)
    assert not any(moved[name] for name in frozen)


@pytest.mark.usefixtures("tiny")
def test_learning_slide_by_slide_has_the_same_slopes(tmp_path: Path) -> None:
    made = network(dropout=0.0)
    file = feature_file(tmp_path / "a.h5", square(3))
    given = batch([(file,)], [np.arange(9)])
    slopes = []
    for learning in (True, False):  # kept for one slide at a time, or for all
        made.train(learning).zero_grad()
        made(given).out.square().sum().backward()
        slopes.append(made.encoder.patch_embed.proj.weight.grad.clone())
    torch.testing.assert_close(*slopes)


def test_tiles_without_a_grid_are_named(tmp_path: Path) -> None:
    file = feature_file(tmp_path / "odd.h5", np.array([(0, 0), (100, 0)]))
    with pytest.raises(ArtifactError, match=r"odd\.h5.*no common grid.*fine-tuned"):
        cells_of_case((file,))
