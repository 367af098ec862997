"""HIPT's aggregators on whole regions: their patches, those that are not there, published sizes."""

from __future__ import annotations

import pytest
import torch

from pipeline.aggregators.build import build
from pipeline.aggregators.hipt_lgp_fc import HIPTLocalGlobal
from pipeline.aggregators.regions import PLACES, in_regions
from pipeline.errors import UserError

DIM = 8
NAMES = ("hipt_lgp_fc", "hipt_none_fc")


def rows(count: int, share: float = 0.5) -> torch.Tensor:
    """Regions with about that share of their patches, zeros elsewhere."""
    torch.manual_seed(count)
    here = torch.rand(count, PLACES) < share
    here[:, 0] = True
    patches = torch.randn(count, PLACES, DIM) * here[..., None]
    return torch.cat([patches.flatten(1), torch.where(here, 1.0, -1.0)], 1)


def made(name: str, **keys: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return build(name, PLACES * (DIM + 1), 2, patches=True, **keys).eval()


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_where_no_patch_is_changes_nothing(name: str) -> None:
    net, x = made(name), rows(3)
    other = x.clone()
    patches, missing = in_regions(other)
    patches[missing] = 30.0  # a view
    assert not torch.equal(other, x)
    with torch.no_grad():
        torch.testing.assert_close(net(other[None]).out, net(x[None]).out)
        marked = x.clone()
        marked[:, -PLACES:] = 1.0
        assert (net(marked[None]).out - net(x[None]).out).abs().max() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_scaled_marks_mean_the_same(name: str) -> None:
    """Standardised columns keep their signs."""
    x = rows(40)
    scaled = (x - x.mean(0)) / x.std(0).clamp(min=1e-6)
    assert torch.equal(in_regions(scaled)[1][:, 1:], in_regions(x)[1][:, 1:])


@pytest.mark.parametrize("name", NAMES)
def test_padding_of_regions_changes_nothing_and_all_regions_are_weighed(name: str) -> None:
    net, x = made(name), rows(4)
    padded = torch.cat([x, torch.full((2, x.shape[1]), 1e3)])[None]
    mask = torch.tensor([[False] * 4 + [True] * 2])
    with torch.no_grad():
        one, other = net(x[None]), net(padded, mask)
    torch.testing.assert_close(other.out, one.out)
    assert other.scores.shape == (1, 6) and other.scores[0, 4:].eq(0).all()
    torch.testing.assert_close(other.scores.sum(), torch.tensor(1.0))


def test_it_learns_what_a_part_of_the_patches_says() -> None:
    net = made("hipt_none_fc", dropout=0.0).train()
    x = torch.stack([rows(2, 0.9) for _ in range(8)])
    y = torch.arange(8) % 2
    x[:, :, : 64 * DIM] += 2.0 * (2 * y[:, None, None] - 1)  # the first 64 patches of each region
    before = torch.nn.functional.cross_entropy(net(x).out, y).item()
    adam = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(12):
        adam.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x).out, y)
        loss.backward()
        adam.step()
    assert loss.item() < 0.5 * before


def test_the_region_transformer_is_trained_too() -> None:
    net = made("hipt_lgp_fc").train()
    net(rows(2)[None]).out.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.local.parameters())


def test_the_published_sizes() -> None:
    """Of two classes, counted from the widths that the paper's code has: ViT4K; embedding, two
    layers, attention, head."""
    net = HIPTLocalGlobal(PLACES * 385, 2, patches=True)
    layer = 4 * (192 * 192 + 192) + 2 * (192 * 192 + 192) + 4 * 192
    tail = (192 * 192 + 192) * 2 + 2 * layer + 2 * (192 * 192 + 192) + 193 + 2 * 193
    assert sum(p.numel() for p in net.parameters()) == 2_781_504 + tail


def test_rows_that_are_no_regions_are_refused() -> None:
    with pytest.raises(UserError, match="but a row has 192 features"):
        build("hipt_lgp_fc", 192, 2, patches=True)
