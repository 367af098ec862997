"""Dilated attention (LongNet): attention over N tiles of a slide at a cost that grows with N.

Each branch (segment length, ratio) cuts the sequence into segments; within one, each group of heads
sees every ratio-th position. A branch gives, for each head and position, an output and the
logarithm of its softmax's denominator, by which the branches are weighed against each other.

Source: Ding et al. 2023, "LongNet: scaling transformers to 1,000,000,000 tokens"; the details that
the paper leaves open (zero padding takes part in the softmax, no gradient through the weights of
the branches) as in the slide encoder of Xu et al. 2024 (Prov-GigaPath).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Raised when its results change. 1: the first.
VERSION = 1

UNSEEN = -1e8  # the log-sum-exp of a position that a head of a branch does not see
SCORES = 2**24  # scores in memory at a time: 64 MiB in single precision

Branch = tuple[int, int]


def dilated_attention(
    q: Tensor, k: Tensor, v: Tensor, segments: Sequence[int], ratios: Sequence[int]
) -> Tensor:
    """Dilated attention in memory that grows linearly with N.

    Args:
        q, k, v: (B, N, H, d), projected; no padding among the N.
        segments: segment length of each branch, in tokens.
        ratios: its dilation.

    Returns:
        (B, N, H, d).
    """
    top: Tensor | None = None
    for segment, ratio in zip(segments, ratios, strict=True):
        out, lse = _branch(q, k, v, segment, ratio)
        lse = lse.detach()[..., None]
        if top is None:
            top, total, merged = lse, torch.ones_like(lse), out
            continue
        new = torch.maximum(top, lse)
        before, here = (top - new).exp(), (lse - new).exp()
        merged = merged * before.to(out.dtype) + out * here.to(out.dtype)
        total, top = total * before + here, new
    return merged / total.to(merged.dtype)


def dilated_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, segments: Sequence[int], ratios: Sequence[int]
) -> Tensor:
    """The same, word by word as it is defined: what the fast path is compared with.

    Args:
        q, k, v: (B, N, H, d).
        segments: segment length of each branch, in tokens.
        ratios: its dilation.
    """
    batch, n, heads, width = q.shape
    outputs, sums = [], []
    for segment, ratio in zip(segments, ratios, strict=True):
        length = min(segment, n)
        group = -(-heads // ratio)
        out = q.new_zeros(batch, n, heads, width)
        lse = q.new_full((batch, n, heads), UNSEEN)
        inside = -(-length // ratio) * ratio
        for start, head in itertools.product(range(0, n, length), range(heads)):
            places = range(start + head // group, start + inside, ratio)
            # Past the end of the segment, or of the slide, stand zeros.
            real = [place for place in places if place < min(start + length, n)]
            if not real:
                continue
            zeros = q.new_zeros(batch, len(places) - len(real), width)
            keys = torch.cat([k[:, real, head], zeros], 1)
            values = torch.cat([v[:, real, head], zeros], 1)
            scores = q[:, real, head] @ keys.transpose(1, 2) * width**-0.5
            out[:, real, head] = scores.softmax(-1) @ values
            lse[:, real, head] = scores.logsumexp(-1)
        outputs.append(out)
        sums.append(lse)
    weights = torch.stack(sums).detach().softmax(0)
    return (torch.stack(outputs) * weights[..., None]).sum(0)


def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Full softmax attention, and the logarithm of each denominator.

    Args:
        q, k, v: (B, H, M, d).

    Returns:
        (B, H, M, d), and (B, H, M) in single precision or better.
    """
    if q.device.type == "cpu" and q.dtype in (torch.float32, torch.float64):
        # The kernel behind F.scaled_dot_product_attention, which keeps the second output.
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    batch, heads, m, _ = q.shape
    lines = max(1, min(batch, SCORES // (heads * m * min(m, 128))))
    rows = max(1, min(m, SCORES // (lines * heads * m)))
    outs, sums = [], []
    for first in range(0, batch, lines):
        keys, values = k[first : first + lines], v[first : first + lines]
        parts = [
            _rows(q[first : first + lines, :, start : start + rows], keys, values)
            for start in range(0, m, rows)
        ]
        outs.append(torch.cat([out for out, _ in parts], 2))
        sums.append(torch.cat([lse for _, lse in parts], 2))
    return torch.cat(outs), torch.cat(sums)


def _rows(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Some queries against all keys; while learning, their scores are computed again backwards."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        return checkpoint(_softmax, q, k, v, use_reentrant=False)
    return _softmax(q, k, v)


def _softmax(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    scores = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).float()
    lse = scores.logsumexp(-1, keepdim=True)
    return (scores - lse).exp().to(v.dtype) @ v, lse[..., 0]


def _branch(q: Tensor, k: Tensor, v: Tensor, segment: int, ratio: int) -> tuple[Tensor, Tensor]:
    """One branch's output (B, N, H, d) and log-sum-exp (B, N, H)."""
    batch, n, heads, width = q.shape
    length = min(segment, n)
    count = -(-n // length)
    steps, group = -(-length // ratio), -(-heads // ratio)
    pads = (count * length - n, steps * ratio - length, group * ratio - heads)

    def split(x: Tensor) -> Tensor:
        """(B · segments, heads, steps, d): what each head sees."""
        x = F.pad(x, (0, 0, 0, pads[2], 0, pads[0])).view(batch * count, length, -1, width)
        x = F.pad(x, (0, 0, 0, 0, 0, pads[1]))
        x = x.view(-1, steps, ratio, ratio, group, width).diagonal(dim1=2, dim2=3)
        return x.permute(0, 4, 2, 1, 3).reshape(-1, ratio * group, steps, width)

    out, lse = attend(split(q), split(k), split(v))

    def join(x: Tensor, fill: float) -> Tensor:
        """(B · segments, heads, steps, c) back to (B, N, H, c)."""
        c = x.shape[-1]
        whole = x.new_full((batch * count, steps, ratio, ratio, group, c), fill)
        seen = x.view(-1, ratio, group, steps, c).permute(0, 3, 2, 4, 1)
        whole.diagonal(dim1=2, dim2=3).copy_(seen)
        whole = whole.view(batch * count, steps * ratio, ratio * group, c)[:, :length]
        return whole.reshape(batch, count * length, ratio * group, c)[:, :n, :heads]

    return join(out, 0.0), join(lse[..., None], UNSEEN)[..., 0]
