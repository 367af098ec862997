"""CLAM, single branch (Lu et al. 2021): gated attention, instances clustered."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.aggregators.abmil import AttentionScore
from pipeline.aggregators.base import Bag, Weighing, full_mask, masked_softmax, weighted_sum
from pipeline.config.registry import register
from pipeline.config.section import Count, Fraction, Width

# Raised when predictions with this aggregator change. 1: the first.
VERSION = 1


@register("clam_sb")
class ClamSB(Weighing):
    """Gated ABMIL whose most attended tiles must look like the bag's class, the least not.

    The instances' share of the loss is 0.3, in classifications alone.

    Source: Lu et al. 2021, "Data-efficient and weakly supervised computational pathology on
    whole-slide images" (CLAM, single branch).

    Args:
        dim: feature width.
        out: outputs.
        d_model: width of embedding and attention.
        dropout: of the pooled vector.
        k: tiles at each end of the attention that the instance classifiers see (published: 8).
    """

    def __init__(
        self, dim: int, out: int, *, d_model: Width = 128, dropout: Fraction = 0.25, k: Count = 8
    ) -> None:
        super().__init__()
        self.k = k
        self.embed = nn.Sequential(nn.Linear(dim, d_model), nn.ReLU())
        self.attention = AttentionScore(d_model, max(d_model // 2, 8), gated=True)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(d_model, out)
        self.instances = nn.Linear(d_model, 2 * out)  # one two-way classifier per output

    def forward(self, x: Tensor, mask: Tensor | None = None, emphasis: Tensor | None = None) -> Bag:
        mask = full_mask(x, mask)
        h = self.embed(x)
        scores = self.attention(h)
        weights = masked_softmax(scores if emphasis is None else scores + emphasis, mask)
        return Bag(self.head(self.drop(weighted_sum(weights, h))), weights, h)

    def instance_loss(self, bag: Bag, mask: Tensor, labels: Tensor) -> Tensor | None:
        """Cross-entropy of the k most and k least attended tiles under the true class's classifier.

        A bag of fewer than 2k tiles gives half of them to each end; one tile gives none.

        Args:
            bag: what the model said of the bags.
            mask: bool (B, N), True = padding.
            labels: int64 (B,), the classes.
        """
        assert bag.scores is not None and bag.instances is not None
        b, n, width = bag.instances.shape
        share = ((~mask).sum(1) // 2).clamp(max=self.k)
        reach = min(self.k, n)
        high = bag.scores.detach().masked_fill(mask, -1.0).topk(reach, dim=1).indices
        low = (-bag.scores.detach()).masked_fill(mask, -2.0).topk(reach, dim=1).indices
        used = torch.arange(reach, device=mask.device)[None, :] < share[:, None]
        if not used.any():
            return bag.out.sum() * 0.0
        places = torch.cat([high, low], dim=1)
        chosen = bag.instances.gather(1, places[..., None].expand(-1, -1, width))
        logits = self.instances(chosen).view(b, 2 * reach, -1, 2)
        own = labels[:, None, None, None].expand(-1, 2 * reach, 1, 2)
        logits = logits.gather(2, own).squeeze(2)
        targets = torch.cat([torch.ones_like(high), torch.zeros_like(low)], dim=1)
        used = torch.cat([used, used], dim=1)
        return F.cross_entropy(logits[used], targets[used])
