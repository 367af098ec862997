"""Checkpoints of whole vision-language models: which part belongs to which tower, and its names.

Towers have open_clip's names: `visual.…` and `text.…`. A CLIP of transformers is the same network
with its query, key and value projections apart and its projections transposed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]
Rules = tuple[tuple[str, str], ...]

# open_clip keeps the text tower of a plain CLIP at the top of the file.
_TOP = re.compile(
    r"(positional_embedding|text_projection|cls_emb|token_embedding\..*|transformer\..*|ln_final\..*)"
)
_BLOCK = r"encoder\.layers\.(\d+)\."
_TRANSFORMERS: Rules = (
    (r"vision_model\.embeddings\.class_embedding", "visual.class_embedding"),
    (r"vision_model\.embeddings\.patch_embedding\.(.*)", r"visual.conv1.\1"),
    (r"vision_model\.embeddings\.position_embedding\.weight", "visual.positional_embedding"),
    (r"vision_model\.pre_layrnorm\.(.*)", r"visual.ln_pre.\1"),
    (r"vision_model\.post_layernorm\.(.*)", r"visual.ln_post.\1"),
    (rf"vision_model\.{_BLOCK}(.*)", r"visual.transformer.resblocks.\1.\2"),
    (r"text_model\.embeddings\.token_embedding\.(.*)", r"text.token_embedding.\1"),
    (r"text_model\.embeddings\.position_embedding\.weight", "text.positional_embedding"),
    (r"text_model\.final_layer_norm\.(.*)", r"text.ln_final.\1"),
    (rf"text_model\.{_BLOCK}(.*)", r"text.transformer.resblocks.\1.\2"),
    (r".*\.position_ids", ""),
)
_INNER: Rules = (
    (r"(.*)\.layer_norm([12])\.(.*)", r"\1.ln_\2.\3"),
    (r"(.*)\.mlp\.fc1\.(.*)", r"\1.mlp.c_fc.\2"),
    (r"(.*)\.mlp\.fc2\.(.*)", r"\1.mlp.c_proj.\2"),
    (r"(.*)\.self_attn\.out_proj\.(.*)", r"\1.attn.out_proj.\2"),
)


def whole(state: Mapping[str, Any]) -> State:
    """A whole model's parameters under open_clip's names, both towers below one word.

    Args:
        state: of open_clip, in its older form too, or of a CLIP of transformers.
    """
    if any(name.startswith("vision_model.") for name in state):
        return _from_transformers(state)
    apart = any(name.startswith("text.") for name in state)
    return {
        name if apart or not _TOP.fullmatch(name) else f"text.{name}": values
        for name, values in state.items()
        if isinstance(values, Tensor)
    }


def part(state: Mapping[str, Any], *kept: str) -> State:
    """The parameters whose names begin with one of some words, under open_clip's names.

    Args:
        state: as in `whole`.
        kept: e.g. `visual.`.

    Raises:
        KeyError: there are none.
    """
    found = {name: values for name, values in whole(state).items() if name.startswith(kept)}
    if not found:
        raise KeyError(" or ".join(kept))
    return found


def _from_transformers(state: Mapping[str, Any]) -> State:
    result: State = {}
    for name, values in state.items():
        new = _renamed(_renamed(name, _TRANSFORMERS), _INNER)
        if new == "visual_projection.weight":
            result["visual.proj"] = values.T
        elif new == "text_projection.weight":
            result["text.text_projection"] = values.T
        elif match := re.fullmatch(r"(.*)\.self_attn\.q_proj\.(weight|bias)", new):
            own = name.rpartition(".self_attn.")[0]
            parts = [state[f"{own}.self_attn.{p}_proj.{match[2]}"] for p in "qkv"]
            result[f"{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(parts)
        elif new and not re.search(r"\.self_attn\.[kv]_proj\.", new):
            result[new] = values
    return result


def _renamed(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    return name
