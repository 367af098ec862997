"""GigaPath's slide encoder: its size, its checkpoint's keys, and its numbers in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from pipeline.encoders.slide_level.longnet import RATIOS, LongNetViT, segment_lengths
from pipeline.encoders.slide_level.positions import grid_cells, grid_step, sin_cos
from pipeline.errors import SlideError


def small(**more: int) -> LongNetViT:
    torch.manual_seed(0)
    return LongNetViT(10, 32, 2, heads=8, **more).eval()


def slide(n: int, columns: int = 13) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(n)
    cells = torch.tensor([(i % columns, i // columns) for i in range(n)])
    return torch.randn(1, n, 10), cells[None]


def test_segments_are_the_published_ones() -> None:
    assert segment_lengths() == (1024, 5792, 32768, 185363, 1048576)
    assert segment_lengths(250000) == (1024, 4870, 23170, 110217, 524288)


def test_the_released_model_has_the_checkpoints_keys_and_size() -> None:
    with torch.device("meta"):
        module = LongNetViT(1536, 768, 12)
    sizes = {name: tuple(p.shape) for name, p in module.state_dict().items()}
    layer = {
        **{f"self_attn.{p}_proj": (768, 768) for p in ("q", "k", "v", "out")},
        "self_attn.inner_attn_ln": (768,),
        "self_attn_layer_norm": (768,),
        "ffn.fc1": (3072, 768),
        "ffn.fc2": (768, 3072),
        "ffn.ffn_layernorm": (3072,),
        "final_layer_norm": (768,),
    }
    parts = {f"encoder.layers.{i}.{k}": v for i in range(12) for k, v in layer.items()}
    parts |= {"encoder.layer_norm": (768,), "norm": (768,), "patch_embed.proj": (768, 1536)}
    wanted = {f"{k}.weight": v for k, v in parts.items()}
    wanted |= {f"{k}.bias": v[:1] for k, v in parts.items()} | {"cls_token": (1, 1, 768)}
    assert sizes == wanted
    assert sum(math.prod(s) for s in sizes.values()) == 86_330_880
    longnet = sum(math.prod(s) for name, s in sizes.items() if name.startswith("encoder."))
    assert longnet == 85_148_160


@pytest.mark.parametrize("n", [1, 7, 40])
def test_outputs_are_those_of_the_definition_in_float64(n: int) -> None:
    module = small()
    x, cells = slide(n)
    states = _by_hand(module, x[0].double().numpy(), cells[0].numpy())
    p = {k: v.double().numpy() for k, v in module.state_dict().items()}

    def norm(values: np.ndarray) -> np.ndarray:
        return _norm(values, p["norm.weight"], p["norm.bias"], 1e-6)

    final = _norm(states[-1], p["encoder.layer_norm.weight"], p["encoder.layer_norm.bias"], 1e-5)
    with torch.no_grad():
        mean, token = module(x, cells)[0], module(x, cells, pooling="cls")[0]
        layers = module(x, cells, layers=(0, 1, 2))[0]
    np.testing.assert_allclose(mean, norm(final[1:].mean(0)), atol=3e-5)
    np.testing.assert_allclose(token, norm(final[0]), atol=3e-5)
    wanted = np.concatenate([norm(state[1:].mean(0)) for state in states])
    np.testing.assert_allclose(layers, wanted, atol=3e-5)


def test_what_stands_in_padding_and_in_which_order_changes_nothing() -> None:
    module = small()
    one, other = slide(9), slide(14)
    x, cells = torch.randn(2, 14, 10), torch.randint(0, 50, (2, 14, 2))
    mask = torch.zeros(2, 14, dtype=torch.bool)
    x[0, :9], cells[0, :9], mask[0, 9:] = one[0], one[1], True
    x[1], cells[1] = other[0], other[1]
    with torch.no_grad():
        found = module(x, cells, mask)
        order = torch.randperm(5) + 9
        shuffled = x.clone()
        shuffled[0, 9:] = x[0, order] * 3
        torch.testing.assert_close(module(shuffled, cells, mask), found, rtol=0, atol=0)
        torch.testing.assert_close(found[0], module(*one)[0])
        torch.testing.assert_close(found[1], module(*other)[0])
        # The order of tiles matters: dilation goes by places in the sequence.
        turned = module(one[0].flip(1), one[1].flip(1))[0]
    assert (turned - found[0]).abs().max() > 1e-3


def test_training_drops_and_evaluation_does_not() -> None:
    module = small()
    x, cells = slide(20)
    with torch.no_grad():
        assert torch.equal(module(x, cells), module(x, cells))
        module.train()
        assert not torch.equal(module(x, cells), module(x, cells))


def test_positions_are_those_of_the_table_of_all_cells() -> None:
    width, side = 32, 6
    omega = 1 / 10000 ** (np.arange(width // 4) / (width // 4))
    table = np.zeros((side * side, width))
    for column, row in itertools.product(range(side), range(side)):
        halves = [np.concatenate([np.sin(p * omega), np.cos(p * omega)]) for p in (row, column)]
        table[column * side + row] = np.concatenate(halves)
    cells = torch.tensor([(2, 5), (0, 0), (5, 1)])
    wanted = table[[2 * side + 5, 0, 5 * side + 1]]
    np.testing.assert_allclose(sin_cos(cells, width), wanted, atol=1e-6)


FACTS = {"tile_px": 256, "read_px": 512, "read_downsample": 1.0, "target_mpp": 0.5}


def test_cells_are_counted_at_the_tiles_scale() -> None:
    step = grid_step({**FACTS, "mpp_level0": 0.2527})
    assert step == pytest.approx(256 * 0.5 / 0.2527)
    many = np.arange(900)
    coords = np.stack([7 + np.rint(many * step), np.full(900, 3)], 1).astype(int)
    assert np.array_equal(grid_cells(coords, step)[:, 0], many)  # no drift, from any corner
    assert grid_step({**FACTS, "read_px": 256, "mpp_level0": 0.49}) == 256
    assert grid_step({"patch_size_level0": 512}) == 512


@pytest.mark.parametrize(
    ("coords", "says"),
    [
        ([(-13, 0), (243, 0)], "negative"),
        ([(0, 0), (100, 0)], "no common grid"),
        ([(0, 256), (0, 0)], "row-major"),
        ([(0, 0), (0, 0)], "twice"),
        ([(0, 0), (256_000, 0)], "1001 tiles long"),
    ],
)
def test_coordinates_that_would_give_wrong_positions_are_refused(
    coords: list[tuple[int, int]], says: str
) -> None:
    with pytest.raises(SlideError, match=says) as caught:
        grid_cells(np.array(coords), 256)
    assert caught.value.kind == "bad_grid"


@pytest.mark.parametrize(
    ("facts", "says"), [({}, "how large"), ({**FACTS, "overlap": 8}, "overlap")]
)
def test_tiles_without_a_place_are_refused(facts: dict[str, float], says: str) -> None:
    with pytest.raises(SlideError, match=says):
        grid_step(facts)


def _by_hand(module: LongNetViT, x: np.ndarray, cells: np.ndarray) -> list[np.ndarray]:
    """The states of the blocks, (N + 1, width) each, in float64."""
    from tests.encoders.slide_level.test_dilated import dense

    p = {k: v.double().numpy() for k, v in module.state_dict().items()}

    def linear(name: str, values: np.ndarray) -> np.ndarray:
        return values @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def norm(name: str, values: np.ndarray) -> np.ndarray:
        return _norm(values, p[f"{name}.weight"], p[f"{name}.bias"], 1e-5)

    places = sin_cos(torch.from_numpy(cells), module.width).double().numpy()
    h = np.concatenate([p["cls_token"][0], linear("patch_embed.proj", x) + places])
    states = [h]
    for i in range(module.depth):
        name = f"encoder.layers.{i}"
        normed = norm(f"{name}.self_attn_layer_norm", h)
        q, k, v = (
            linear(f"{name}.self_attn.{part}_proj", normed).reshape(len(h), 8, -1) for part in "qkv"
        )
        seen = np.asarray(dense(q, k, v, segment_lengths(), RATIOS)).reshape(len(h), -1)
        seen = norm(f"{name}.self_attn.inner_attn_ln", seen)
        h = h + linear(f"{name}.self_attn.out_proj", seen)
        hidden = linear(f"{name}.ffn.fc1", norm(f"{name}.final_layer_norm", h))
        hidden = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
        h = h + linear(f"{name}.ffn.fc2", norm(f"{name}.ffn.ffn_layernorm", hidden))
        states.append(h)
    return states


def _norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias
