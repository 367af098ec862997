"""Rows that are whole regions: the features of their patches, and which patches there are."""

from __future__ import annotations

from torch import Tensor

from pipeline.encoders.slide_level.hipt import SIDE
from pipeline.errors import UserError

PLACES = SIDE * SIDE


def check_places(dim: int) -> int:
    """Features of a patch.

    Args:
        dim: width of a row.

    Raises:
        UserError: a row is no region.
    """
    if dim % PLACES or dim // PLACES < 2:
        raise UserError(
            f"`patches: true` needs rows of {PLACES} patches and their marks, but a row has {dim} "
            "features; use a teacher hipt_vit4k with pooling: patches, or patches: false"
        )
    return dim // PLACES - 1


def in_regions(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The patches (R, PLACES, d) of rows (R, PLACES · (d + 1)), and where there is none: bool
    (R, PLACES).

    The last PLACES columns are 1 where there is a patch and -1 where there is none; scaling keeps
    their signs. A place that is the same in all of training is scaled to 0, as its features are.
    """
    features, marks = rows[:, :-PLACES], rows[:, -PLACES:]
    return features.unflatten(1, (PLACES, -1)), marks < 0
