"""What a feature file says of the encoder that made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# STAMP writes `extractor`, this pipeline `model_id` and what tells two of its encoders apart;
# others write one of the rest.
KEYS = (
    "extractor",
    "feature_extractor",
    "encoder",
    "patch_encoder",
    "encoder_name",
    "backbone",
    "model",
    "model_name",
    "model_id",
    "revision",
    "pooling",
    "transform",
)


def encoder_named(*attributes: Mapping[str, Any]) -> str:
    """The encoder in the attributes of a file and its datasets; empty where none is named.

    Args:
        attributes: the file's own, then its datasets'.
    """
    found: dict[str, str] = {}
    for group in attributes:
        there = set(group)  # asked for one by one, they take longer than all the rest of the file
        for key in KEYS:
            if key in there:
                found.setdefault(key, _text(group[key]))
    return ", ".join(f"{key} {found[key]}" for key in KEYS if found.get(key))


def _text(value: Any) -> str:
    return " ".join((value.decode() if isinstance(value, bytes) else str(value)).split())
