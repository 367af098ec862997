"""Our MIL models give the same numbers as a public implementation (torchmil) at equal weights.

torchmil is an extra (`pip install -e '.[agreement]'`); the tests are skipped without it. Its masks
are True for real tiles, ours are True for padding.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.aggregators.base import Aggregator
from pipeline.aggregators.build import build

models: Any = pytest.importorskip(
    "torchmil.models", reason="torchmil is not installed: pip install -e '.[agreement]'"
)
DIM, WIDTH = 12, 16


@pytest.fixture
def bags() -> tuple[Tensor, Tensor]:
    """Three bags of 9, 5 and 1 tiles; what lies in padding is arbitrary."""
    torch.manual_seed(3)
    mask = torch.arange(9)[None, :] >= torch.tensor([9, 5, 1])[:, None]
    return torch.randn(3, 9, DIM), mask


def ours(name: str) -> Aggregator:
    torch.manual_seed(1)
    return build(name, DIM, 1, d_model=WIDTH, dropout=0.0).eval()


def same_attention(pool: nn.Module, score: nn.Module) -> None:
    """Copy our attention net into torchmil's."""
    pool.fc1.module.load_state_dict(score.tanh.state_dict())  # type: ignore[union-attr]
    pool.fc2.load_state_dict(score.score.state_dict())  # type: ignore[union-attr]
    if score.sigmoid is not None:
        pool.fc_gated.module.load_state_dict(score.sigmoid.state_dict())  # type: ignore[union-attr]


@pytest.mark.parametrize("gated", [False, True])
def test_abmil(bags: tuple[Tensor, Tensor], gated: bool) -> None:
    x, mask = bags
    net: Any = ours("gated_abmil" if gated else "abmil")
    public = models.ABMIL((DIM,), WIDTH // 2, gated=gated, feat_ext=net.embed)
    same_attention(public.pool, net.attention)
    public.classifier.module.load_state_dict(net.head.state_dict())
    theirs, scores = public(x, (~mask).float(), return_att=True)
    bag = net(x, mask)
    torch.testing.assert_close(bag.out[:, 0], theirs)
    weights = scores.masked_fill(mask, -torch.inf).softmax(1)
    torch.testing.assert_close(bag.scores, weights)


def test_clam_sb(bags: tuple[Tensor, Tensor]) -> None:
    x, mask = bags
    net: Any = ours("clam_sb")
    public = models.CLAM_SB((DIM,), WIDTH // 2, gated=True, feat_ext=net.embed)
    same_attention(public.pool, net.attention)
    public.classifier.module.load_state_dict(net.head.state_dict())
    torch.testing.assert_close(net(x, mask).out[:, 0], public(x, (~mask).float()))


def test_dsmil(bags: tuple[Tensor, Tensor]) -> None:
    x, mask = bags
    net: Any = ours("dsmil")
    public = models.DSMIL((DIM,), WIDTH, nonlinear_q=True, feat_ext=net.embed)
    net.query = public.q_nn  # its query net is deeper than ours; the rest is compared
    public.inst_classifier.load_state_dict(net.score.state_dict())
    public.bag_classifier.load_state_dict(net.head.state_dict())
    bag = net(x, mask)
    for i in range(len(x)):  # torchmil looks for the best tile in the padding too: bag by bag
        stream, weights, instances = public(
            x[i : i + 1, ~mask[i]], return_att=True, return_inst_pred=True
        )
        torch.testing.assert_close(bag.out[i], 0.5 * (stream + instances.max()))
        torch.testing.assert_close(bag.scores[i, ~mask[i]], weights[0, :, 0])


@pytest.mark.parametrize("tiles", [4, 7, 9])
def test_transmil(tiles: int) -> None:
    """With a landmark for every token Nyström's attention is the exact one, which is ours."""
    net: Any = ours("transmil")
    tokens = int(torch.tensor(tiles).sqrt().ceil()) ** 2 + 1
    public = models.TransMIL(
        (DIM,), WIDTH, n_heads=8, n_landmarks=tokens, pinv_iterations=60, feat_ext=net.embed
    )
    public, net = public.double().eval(), net.double()
    public.cls_token.data = net.token.data
    for ours_, norm, layer in zip((net.first, net.second), net.norms, public.layers, strict=True):
        ours_.qkv.weight.data *= 8  # sharp attention: its landmark matrix can be inverted
        layer.att_module.qkv_nn.load_state_dict(ours_.qkv.state_dict())
        layer.norm1.load_state_dict(norm.state_dict())
        nn.init.eye_(ours_.output.weight)  # torchmil has no output projection at equal widths
        nn.init.zeros_(ours_.output.bias)
    for convolution, name in zip(net.convolutions, ("proj", "proj1", "proj2"), strict=True):
        getattr(public.pos_layer, name).load_state_dict(convolution.state_dict())
    public.norm.load_state_dict(net.norm.state_dict())
    public.classifier.load_state_dict(net.head.state_dict())
    x = torch.randn(2, tiles, DIM, dtype=torch.float64)
    torch.testing.assert_close(net(x).out[:, 0], public(x), atol=1e-3, rtol=1e-3)
