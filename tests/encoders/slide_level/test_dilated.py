"""Dilated attention against a dense float64 formulation that shares no code with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.encoders.slide_level import dilated
from pipeline.encoders.slide_level.dilated import (
    attend,
    dilated_attention,
    dilated_attention_reference,
)
from pipeline.encoders.slide_level.longnet import RATIOS, segment_lengths

SEGMENTS = segment_lengths()
BIG = [pytest.param(6000, marks=pytest.mark.slow)]


def qkv(n: int, heads: int, width: int = 4, batch: int = 1) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(n)
    return tuple(torch.randn(batch, n, heads, width, dtype=torch.float64) * 1.5 for _ in range(3))


def dense(q: np.ndarray, k: np.ndarray, v: np.ndarray, segments: object, ratios: object) -> object:
    """(N, H, d): all pairs of positions, and which of them a head may see."""
    n, heads, width = q.shape
    place = np.arange(n)
    outs, sums = [], []
    for segment, ratio in zip(segments, ratios, strict=True):  # type: ignore[call-overload]
        s = min(segment, n)
        part, inside = place // s, place % s
        out, lse = np.zeros_like(q), np.full((n, heads), -1e8)
        for head in range(heads):
            first = head // int(np.ceil(heads / ratio))
            mine = np.flatnonzero(inside % ratio == first)
            pairs = part[mine][:, None] == part[mine][None, :]
            scores = np.where(pairs, q[mine, head] @ k[mine, head].T / np.sqrt(width), -np.inf)
            slots = int(np.ceil(s / ratio))  # that this head has in each segment
            empty = slots - np.bincount(part[mine], minlength=part.max() + 1)[part[mine]]
            weights = np.exp(scores)
            denominator = weights.sum(1) + empty  # a zero key has the score 0
            out[mine, head] = weights @ v[mine, head] / denominator[:, None]
            lse[mine, head] = np.log(denominator)
        outs.append(out)
        sums.append(lse)
    together = np.stack(sums)
    weights = np.exp(together - together.max(0))
    weights /= weights.sum(0)
    return (np.stack(outs) * weights[..., None]).sum(0)


@pytest.mark.parametrize("heads", [16, 6])
@pytest.mark.parametrize("n", [1, 7, 1023, 1024, 1025, *BIG])
def test_the_fast_path_is_what_the_definition_says(n: int, heads: int) -> None:
    q, k, v = qkv(n, heads)
    wanted = dense(q[0].numpy(), k[0].numpy(), v[0].numpy(), SEGMENTS, RATIOS)
    found = dilated_attention(q, k, v, SEGMENTS, RATIOS)[0]
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-10)
    single = dilated_attention(q.float(), k.float(), v.float(), SEGMENTS, RATIOS)[0]
    np.testing.assert_allclose(single.numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("heads", [1, 3, 4, 5, 16])
@pytest.mark.parametrize("n", [1, 9, 40, 41])
def test_both_paths_agree_where_nothing_divides(n: int, heads: int) -> None:
    q, k, v = qkv(n, heads, batch=2)
    segments, ratios = (8, 13, 31, 400), (1, 2, 3, 7)
    wanted = dense(q[1].numpy(), k[1].numpy(), v[1].numpy(), segments, ratios)
    slow = dilated_attention_reference(q, k, v, segments, ratios)
    np.testing.assert_allclose(slow[1].numpy(), wanted, atol=1e-10)
    torch.testing.assert_close(dilated_attention(q, k, v, segments, ratios), slow)


def test_one_long_segment_without_dilation_is_ordinary_attention() -> None:
    q, k, v = qkv(50, 6)
    wanted = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))
    torch.testing.assert_close(dilated_attention(q, k, v, [64], [1]), wanted.transpose(1, 2))


def test_a_branch_that_a_head_sees_nothing_of_counts_nothing() -> None:
    q, k, v = qkv(7, 4)
    only = dilated_attention(q, k, v, [100], [1])
    both = dilated_attention(q, k, v, [100, 100], [1, 16])
    # Four heads, sixteen offsets: each head sees the one position that is its number.
    same = (both - only).abs().amax(-1)[0] < 1e-12
    seen = torch.eye(7, 4, dtype=torch.bool)
    assert torch.equal(~same, seen)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (x.transpose(1, 2).float() for x in qkv(45, 3, batch=4))
    whole = attend(q, k, v)
    monkeypatch.setattr(dilated, "SCORES", 600)
    # Half precision takes the path of a GPU.
    parts = [x.float() for x in attend(*(x.bfloat16() for x in (q, k, v)))]
    torch.testing.assert_close(parts[0], whole[0], atol=0.03, rtol=0.03)
    torch.testing.assert_close(parts[1], whole[1], atol=0.03, rtol=0.03)


def test_gradients_pass_through_outputs_and_not_through_weights() -> None:
    inputs = [x.requires_grad_() for x in qkv(20, 3)]
    grads = []
    for path in (dilated_attention, dilated_attention_reference):
        out = path(*inputs, (8, 20), (1, 2))
        grads.append(torch.autograd.grad(out.pow(2).sum(), inputs))
    for fast, slow in zip(*grads, strict=True):
        torch.testing.assert_close(fast, slow)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("n", [7, 1025, 6000])
def test_a_gpu_gives_the_same(n: int) -> None:
    q, k, v = (x.float() for x in qkv(n, 6, width=8))
    here = dilated_attention(q, k, v, SEGMENTS, RATIOS)
    there = dilated_attention(q.cuda(), k.cuda(), v.cuda(), SEGMENTS, RATIOS).cpu()
    torch.testing.assert_close(there, here, atol=1e-5, rtol=1e-5)
