"""Bags of several slides and teachers, resident and streamed."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pipeline.bags.sampling import draw
from pipeline.bags.scale import LIMIT, Scaler, scaled
from pipeline.bags.store import Store, gather, open_store, whole
from pipeline.contracts.case_map import CaseMap, TeacherLevels
from pipeline.errors import ArtifactError, ConfigError

CPU = torch.device("cpu")
LEVELS = ("low", "mid", "high")


def opened(mapping: CaseMap, root: Path, budget: int | None = None) -> Store:
    return open_store(mapping, root, ["one", "two"], LEVELS, ["a", "b", "c"], CPU, budget)


def test_slides_of_a_case_form_one_bag_in_slide_order(mapping: CaseMap, tmp_path: Path) -> None:
    store = opened(mapping, tmp_path)
    assert store.sizes.tolist() == [[7, 7], [6, 0], [5, 5]]
    batch = gather(store, whole(store, [0], None))
    parts = []
    for path in mapping.cases["a"]["one"]:
        with h5py.File(tmp_path / path) as file:
            parts.append(file["mid"][:])
    assert np.array_equal(batch.features[0]["mid"][0].numpy(), np.concatenate(parts))


def test_a_missing_teacher_is_masked_not_dropped(mapping: CaseMap, tmp_path: Path) -> None:
    batch = gather(store := opened(mapping, tmp_path), whole(store, [0, 1, 2], None))
    assert batch.present.tolist() == [[True, True], [True, False], [True, True]]
    assert batch.masks[1][1].all()
    assert batch.masks[0].sum(1).tolist() == [0, 1, 2]
    assert all(torch.isfinite(x).all() for levels in batch.features for x in levels.values())


def test_streamed_and_resident_bags_give_the_same_batches(mapping: CaseMap, tmp_path: Path) -> None:
    resident, streamed = opened(mapping, tmp_path), opened(mapping, tmp_path, budget=10)
    assert resident.resident is not None
    assert streamed.resident is None
    chosen = draw(resident.sizes, [2, 0, 1], 4, np.random.default_rng(1))
    a, b = gather(resident, chosen), gather(streamed, chosen)
    for t in range(2):
        assert torch.equal(a.masks[t], b.masks[t])
        assert torch.equal(a.rows[t], b.rows[t])
        real = ~a.masks[t]
        for level, x in a.features[t].items():
            assert torch.equal(x[real].float(), b.features[t][level][real])
    assert resident.digest() == streamed.digest()


def test_levels_that_a_teacher_lacks_are_left_out(mapping: CaseMap, tmp_path: Path) -> None:
    store = opened(mapping, tmp_path)
    assert [t.levels for t in store.teachers] == [LEVELS, ("high",)]
    with pytest.raises(ArtifactError, match=r"two.*none of the levels low"):
        open_store(mapping, tmp_path, ["two"], ["low"], ["a"], CPU)


def test_unknown_teacher_and_changed_width_are_named(mapping: CaseMap, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no teacher `three`"):
        open_store(mapping, tmp_path, ["three"], ["high"], ["a"], CPU)
    mapping.teachers["one"].dims["high"] = 9
    with pytest.raises(ArtifactError, match=r"a0\.h5.*5 wide"):
        opened(mapping, tmp_path)


def test_digest_changes_with_a_single_feature(mapping: CaseMap, tmp_path: Path) -> None:
    before = opened(mapping, tmp_path).digest()
    with h5py.File(tmp_path / "features/two/c0.h5", "r+") as file:
        file["features"][0, 0] += 1
    assert opened(mapping, tmp_path).digest() != before


def test_scaler_is_fitted_on_the_given_cases_alone(mapping: CaseMap, tmp_path: Path) -> None:
    store = opened(mapping, tmp_path)
    scaler = Scaler(tuple(t.dims for t in store.teachers))
    scaler.fit(store, np.array([0, 2]))
    batch = gather(store, whole(store, [0, 2], None))
    values = scaler(batch)[0]["high"]
    weights = (~batch.masks[0]).float()
    weights = weights / weights.sum(1, keepdim=True) / 2  # every case counts as much as another
    mean = (values * weights[..., None]).sum((0, 1))
    square = (values**2 * weights[..., None]).sum((0, 1))
    np.testing.assert_allclose(mean, 0, atol=1e-5)
    np.testing.assert_allclose(square, 1, atol=1e-4)
    again = Scaler(tuple(t.dims for t in store.teachers))
    again.fit(store, np.array([0, 1]))
    assert not torch.allclose(again.shift_0_high, scaler.shift_0_high)


def one_teacher(folder: Path, cases: dict[str, np.ndarray]) -> Store:
    paths = {}
    for case, values in cases.items():
        paths[case] = {"t": [str(folder / f"{case}.h5")]}
        with h5py.File(folder / f"{case}.h5", "w") as file:
            file["features"] = values.astype(np.float16)
    width = next(iter(cases.values())).shape[1]
    mapping = CaseMap({"t": TeacherLevels({"high": width})}, paths)
    return open_store(mapping, folder, ["t"], ["high"], list(cases), CPU)


def test_features_that_hardly_vary_in_training_are_dropped(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    seen, unseen = rng.normal(size=(2, 400, 4))
    for x in (seen, unseen):
        x[:, 1] = 7.0  # constant
        x[:, 2] = 300 + 0.05 * x[:, 2]  # less than half precision can tell
    seen[:, 3] *= 1e-5  # a unit that is all but dead in training and wakes up later
    store = one_teacher(tmp_path, {"seen": seen, "unseen": unseen})
    scaler = Scaler(({"high": 4},))
    scaler.fit(store, np.array([0]))
    out = scaler(gather(store, whole(store, [1], None)))[0]["high"][0]
    assert (out[:, 1:] == 0).all()
    assert 0.8 < float(out[:, 0].std()) < 1.2


def test_standardised_values_end_at_the_limit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    seen, unseen = rng.normal(size=(2, 400, 2))
    seen[:, 1] *= 0.01
    unseen[:, 1] *= 1000
    store = one_teacher(tmp_path, {"seen": seen, "unseen": unseen})
    scaler = Scaler(({"high": 2},))
    batch = gather(store, whole(store, [1], None))
    assert float(scaler(batch)[0]["high"].abs().max()) > 1000  # not fitted: as it is
    scaler.fit(store, np.array([0]))
    out = scaler(batch)[0]["high"]
    assert float(out.abs().max()) == LIMIT
    again = Scaler(({"high": 2},))
    again.load_state_dict(scaler.state_dict())
    assert torch.equal(again(batch)[0]["high"], out)


def test_blocks_of_a_large_bag_give_what_one_piece_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x = (torch.randn(2, 7, 5) * 9).half()
    shift, scale, limit = torch.randn(5), torch.rand(5), torch.tensor(4.0)
    whole_piece = scaled(x, shift, scale, limit)
    monkeypatch.setattr("pipeline.bags.scale.BLOCK_VALUES", 12)
    blocks = scaled(x, shift, scale, limit)
    assert torch.equal(whole_piece, blocks)
    assert blocks.dtype == torch.float32
    assert float(blocks.abs().max()) == 4.0


@pytest.mark.parametrize("block", [12, 2**20])
def test_scaled_features_come_in_the_precision_of_what_follows(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("pipeline.bags.scale.BLOCK_VALUES", block)
    x = torch.linspace(-3, 3, 70).view(2, 7, 5).half()
    shift, scale, limit = torch.ones(5), torch.full((5,), 1.7), torch.tensor(4.0)
    full = scaled(x, shift, scale, limit)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = scaled(x, shift, scale, limit)
    assert mixed.dtype == torch.bfloat16
    assert torch.equal(mixed, full.bfloat16())


@pytest.mark.parametrize(
    ("dtype", "stored", "streamed"),
    [
        (np.float16, 2, torch.float16),
        (np.float32, 4, torch.float32),
        (np.float64, 4, torch.float32),
        (np.int16, 4, torch.float32),
    ],
)
def test_bags_take_the_bytes_that_their_files_have(
    tmp_path: Path, dtype: type, stored: int, streamed: torch.dtype
) -> None:
    values = np.arange(40).reshape(10, 4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = values.astype(dtype)
    mapping = CaseMap({"one": TeacherLevels({"high": 4})}, {"a": {"one": ["a.h5"]}})
    needed = 40 * stored
    for budget, resident in ((needed, True), (needed - 1, False)):
        store = open_store(mapping, tmp_path, ["one"], ["high"], ["a"], CPU, budget)
        assert (store.resident is not None) is resident
        for rows in (np.array([1, 4, 9]), np.arange(2, 7)):
            features = gather(store, {0: [rows]}).features[0]["high"]
            assert features.dtype == streamed
            np.testing.assert_array_equal(features[0].numpy(), values[rows])
