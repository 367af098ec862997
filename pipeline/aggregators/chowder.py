"""Chowder (Courtiol et al. 2018): a net on the highest and lowest tile scores."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.aggregators.base import Aggregator, Bag, extremes, full_mask, masked_softmax, mlp
from pipeline.config.registry import register
from pipeline.config.section import Count, Fraction, Width

# Raised when predictions with this aggregator change. 1: the first.
VERSION = 1


@register("chowder", published=("d_model", "dropout"))
class Chowder(Aggregator):
    """Score each tile for each output; classify by the `n_top` highest and `n_bottom` lowest.

    Source: Courtiol et al. 2018, "Classification and disease localization in histopathology using
    only global labels".

    Args:
        dim: feature width.
        out: outputs.
        d_model: width of the net that scores a tile.
        dropout: of the scores that are used.
        n_top: how many of the highest scores are used.
        n_bottom: how many of the lowest scores are used.
        faithful: the Phikon benchmark's widths: tile net d–128–out, head 20–128–64–1, sigmoid.
    """

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        d_model: Width = 128,
        dropout: Fraction = 0.25,
        n_top: Count = 10,
        n_bottom: Count = 10,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.n_top, self.n_bottom = n_top, n_bottom
        ends = n_top + n_bottom
        if faithful:
            self.score = mlp([dim, 128, out], nn.Sigmoid)
            self.head = mlp([ends, 128, 64, 1], nn.Sigmoid)
        else:
            self.score = mlp([dim, d_model, out])
            self.head = mlp([ends, 64, 1])
        for layer in [*self.score, *self.head]:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.drop = nn.Dropout(0.0 if faithful else dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Bag:
        mask = full_mask(x, mask)
        scores = self.score(x)  # (B, N, C)
        ends = [
            extremes(scores, mask, self.n_top, largest=True),
            extremes(scores, mask, self.n_bottom, largest=False),
        ]
        both = ends[0].new_zeros(x.shape[0], scores.shape[2], self.n_top + self.n_bottom)
        both[..., : self.n_top] = ends[0].transpose(1, 2)
        both[..., self.n_top :] = ends[1].transpose(1, 2)
        out = self.head(self.drop(both)).squeeze(-1)
        # What is shown as a tile's score: how far it stands out for any output.
        return Bag(out, masked_softmax(scores.detach().abs().amax(2), mask))
