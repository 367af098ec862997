"""The table of MIL models: a new one is a file in this folder and a row here."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.aggregators.abmil import ABMIL
from pipeline.aggregators.base import Aggregator
from pipeline.aggregators.chowder import Chowder
from pipeline.aggregators.clam import ClamSB
from pipeline.aggregators.dsmil import DSMIL
from pipeline.aggregators.hiptmil import HIPTMIL
from pipeline.aggregators.pool import MaxPool, MeanPool
from pipeline.aggregators.transformer import Transformer
from pipeline.aggregators.transmil import TransMIL
from pipeline.errors import ConfigError, nearest

# (dim, out, d_model, dropout, faithful) -> model
BUILDERS: dict[str, Callable[[int, int, int, float, bool], Aggregator]] = {
    "mean_pool": lambda d, c, w, p, f: MeanPool(d, c, 0.0 if f else p),
    "max_pool": lambda d, c, w, p, f: MaxPool(d, c, 0.0 if f else p),
    "abmil": lambda d, c, w, p, f: ABMIL(d, c, w, p, gated=False, faithful=f),
    "gated_abmil": lambda d, c, w, p, f: ABMIL(d, c, w, p, gated=True, faithful=f),
    "clam_sb": lambda d, c, w, p, f: ClamSB(d, c, w, p),
    "dsmil": lambda d, c, w, p, f: DSMIL(d, c, w, p, faithful=f),
    "chowder": lambda d, c, w, p, f: Chowder(d, c, w, p, faithful=f),
    "transmil": lambda d, c, w, p, f: TransMIL(d, c, w, p, faithful=f),
    "hiptmil": lambda d, c, w, p, f: HIPTMIL(d, c, w, p, faithful=f),
    "transformer": lambda d, c, w, p, f: Transformer(d, c, w, p),
}


def build(
    name: str,
    dim: int,
    out: int,
    d_model: int = 128,
    dropout: float = 0.25,
    faithful: bool = False,
) -> Aggregator:
    """A MIL model by name.

    Args:
        name: a key of BUILDERS.
        dim: width of the features.
        out: number of outputs.
        d_model: inner width, where the model has a choice.
        dropout: rate.
        faithful: the published widths and parameter counts, where a benchmark gives them.

    Raises:
        ConfigError: no model of that name.
    """
    if name not in BUILDERS:
        raise ConfigError(f"no MIL model `{name}`{nearest(name, BUILDERS)}")
    return BUILDERS[name](dim, out, d_model, dropout, faithful)
