"""CHIEF and Madeleine: their numbers against the definition, written down once more in numpy."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.encoders.slide_level.chief import CHIEF
from pipeline.encoders.slide_level.madeleine import Madeleine


def weights(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: values.double().numpy() for name, values in module.state_dict().items()}


def linear(p: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def attended(p: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    """Shares (N, 1) of the tiles."""
    left = np.tanh(linear(p, f"{name}.attention_a.0", x))
    right = 1 / (1 + np.exp(-linear(p, f"{name}.attention_b.0", x)))
    scores = np.exp(linear(p, f"{name}.attention_c", left * right))
    return np.asarray(scores / scores.sum())


@torch.no_grad()
def test_chief_weighs_the_tiles_own_features() -> None:
    torch.manual_seed(0)
    module, x = CHIEF(6, 10, 4).eval(), torch.randn(9, 6)
    p, values = weights(module), x.double().numpy()
    hidden = np.maximum(linear(p, "attention_net.0", values), 0)
    wanted = (attended(p, "attention_net.3", hidden) * values).sum(0)
    np.testing.assert_allclose(module(x), wanted, atol=1e-6)
    torch.testing.assert_close(module(x[torch.randperm(9)]), module(x))


@torch.no_grad()
def test_madeleines_heads_each_read_every_fourth_channel() -> None:
    torch.manual_seed(0)
    module, x = Madeleine(6, 8, 4).eval(), torch.randn(9, 6)
    p, h = weights(module), x.double().numpy()
    for layer in (0, 4, 8):
        h = linear(p, f"wsi_embedders.pre_attn.{layer}", h)
        centred = h - h.mean(-1, keepdims=True)
        h = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        h = torch.nn.functional.gelu(torch.from_numpy(h)).numpy()
    slide = np.zeros(32)
    for head in range(4):
        own = h[:, head::4]
        slide[head::4] = (attended(p, f"wsi_embedders.attn.{head}", own) * own).sum(0)
    np.testing.assert_allclose(module(x), linear(p, "projector", slide[None])[0], atol=1e-5)
    with np.testing.assert_raises(AssertionError):  # the order of heads and channels counts
        turned = slide.reshape(8, 4).T.ravel()
        np.testing.assert_allclose(module(x), linear(p, "projector", turned[None])[0], atol=1e-5)
