"""A MIL model by its name: a new one is a file in this folder, whose class registers itself."""

from __future__ import annotations

from typing import Any

from pipeline.aggregators.base import Aggregator
from pipeline.config.models import aggregators
from pipeline.errors import ConfigError, nearest


def build(name: str, dim: int, out: int, **arguments: Any) -> Aggregator:
    """A MIL model by name.

    Args:
        name: that a class of this folder is registered by.
        dim: width of the features.
        out: number of outputs.
        arguments: of its own.

    Raises:
        ConfigError: no model of that name.
    """
    known = aggregators()
    if name not in known:
        raise ConfigError(f"no MIL model `{name}`{nearest(name, known)}")
    return known[name].load()(dim, out, **arguments)
