"""CHIEF: a mean of a slide's tiles, weighed by attention that learned to tell tumours apart.

Source: Wang et al. 2024, "A pathology foundation model for cancer diagnosis and prognosis
prediction". Parameters have the names of its checkpoint; what its pre-training classified with is
not built.
"""

from __future__ import annotations

from torch import Tensor, nn

# Raised when an encoder's output changes. 1: the first.
VERSION = 1


class GatedScores(nn.Module):
    """A score for each tile: tanh of one linear map times the sigmoid of another.

    Args:
        dim: width of tiles.
        hidden: of the maps.
        out: scores of a tile.
    """

    def __init__(self, dim: int, hidden: int, out: int = 1) -> None:
        super().__init__()
        self.attention_a = nn.Sequential(nn.Linear(dim, hidden), nn.Tanh(), nn.Dropout(0.25))
        self.attention_b = nn.Sequential(nn.Linear(dim, hidden), nn.Sigmoid(), nn.Dropout(0.25))
        self.attention_c = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim) -> (N, out)."""
        return self.attention_c(self.attention_a(x) * self.attention_b(x))


class CHIEF(nn.Module):
    """One vector for a slide: its tiles' own features, weighed.

    Args:
        dim: width of tiles.
        width: that they are scored in.
        hidden: of the attention.
    """

    def __init__(self, dim: int = 768, width: int = 512, hidden: int = 256) -> None:
        super().__init__()
        self.dim = dim
        scores = GatedScores(width, hidden)
        self.attention_net = nn.Sequential(
            nn.Linear(dim, width), nn.ReLU(), nn.Dropout(0.25), scores
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim) -> (dim,)."""
        weights = self.attention_net(x).float().softmax(0)
        return (weights * x.float()).sum(0)
