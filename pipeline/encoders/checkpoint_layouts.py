"""How checkpoints name their parameters, and how those names become timm's.

Foundation models of the same architecture are published in the formats of timm, DINO, DINOv2,
CLIP and Hugging Face's transformers. Renaming their parameters lets one well-tested network run
them all, without remote code and without a second model library.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.encoders import clip_layouts

State = dict[str, Tensor]

# Patterns in order; the first that fits a name renames it. An empty replacement drops it.
Rules = tuple[tuple[str, str], ...]

_LAYER = r"beit3\.encoder\.layers\.(\d+)\."

_HF_EMBEDDINGS: Rules = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.mask_token", ""),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
    (r"layernorm\.(.*)", r"norm.\1"),
    (r"pooler\..*", ""),
)
_HF_ATTENTION: Rules = (
    (
        r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(.*)",
        r"blocks.\1.attn.\2.\3",
    ),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.*)", r"blocks.\1.attn.proj.\2"),
)
_HF_VIT: Rules = (
    *_HF_EMBEDDINGS,
    *_HF_ATTENTION,
    (r"encoder\.layer\.(\d+)\.layernorm_before\.(.*)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.(.*)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.output\.dense\.(.*)", r"blocks.\1.mlp.fc2.\2"),
)
_HF_DINOV2: Rules = (
    *_HF_EMBEDDINGS,
    *_HF_ATTENTION,
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_in\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_out\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.layer\.(\d+)\.(.*)", r"blocks.\1.\2"),
)
_HF_CLIP: Rules = (
    (r"vision_model\.embeddings\.class_embedding", "cls_token"),
    (r"vision_model\.embeddings\.patch_embedding\.(.*)", r"patch_embed.proj.\1"),
    (r"vision_model\.embeddings\.position_embedding\.weight", "pos_embed"),
    (r"vision_model\.embeddings\.position_ids", ""),
    (r"vision_model\.pre_layrnorm\.(.*)", r"norm_pre.\1"),
    (r"vision_model\.post_layernorm\.(.*)", r"norm.\1"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.q_proj\.(.*)", r"blocks.\1.attn.query.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.k_proj\.(.*)", r"blocks.\1.attn.key.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.v_proj\.(.*)", r"blocks.\1.attn.value.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.layer_norm([12])\.(.*)", r"blocks.\1.norm\2.\3"),
    (r"vision_model\.encoder\.layers\.(\d+)\.mlp\.(.*)", r"blocks.\1.mlp.\2"),
    (r"visual_projection\.weight", "head.weight"),
    (r"(text_model|text_projection|logit_scale).*", ""),
)
_DINOV2: Rules = (
    (r"mask_token", ""),
    (r"register_tokens", "reg_token"),
    (r"(blocks\.\d+\.mlp)\.w12\.(.*)", r"\1.fc1.\2"),
    (r"(blocks\.\d+\.mlp)\.w3\.(.*)", r"\1.fc2.\2"),
)
_DINO: Rules = (
    (r"(?:module\.)?(?:backbone\.)?head\..*", ""),
    (r"(?:module\.)?backbone\.(.*)", r"\1"),
)
_LONGVIT_PATCHES: Rules = ((r"(?:pos_embed|(?:encoder|norm)\..*)", ""),)
# What it classified, remembered and was told in words while it learned is left.
_CHIEF: Rules = (
    (r"(?:hard_)?(?:pos|neg)_mem\d+\..*", ""),
    (r"(?:classifiers|instance_classifiers|att_head|text_to_vision|organ_embedding)(?:\..*)?", ""),
)
_KEEP: Rules = (
    (r"visual\.(blocks\.\d+\.ls[12])\.(?:weight|gamma)", r"\1.gamma"),
    (r"visual\.(.*)", r"\1"),
    (r"visual_head\.(.*)", r"head.\1"),
    (r"(text|logit_scale).*", ""),
)
_CONCH: Rules = (
    # `visual.` in CONCH's file, which also has the text tower and the pooler for captions.
    (r"(?:visual\.)?trunk\.(.*)", r"\1"),
    (r"(?:visual\.)?ln_contrast\.(.*)", r"fc_norm.\1"),
    (r"(?:visual\.)?attn_pool_contrast\.attn\.([qkv])_proj_weight", r"attn_pool.\1.weight"),
    (r"(?:visual\.)?attn_pool_contrast\.attn\.out_proj\.(.*)", r"attn_pool.out.\1"),
    (r"(?:visual\.)?attn_pool_contrast\.to_(q|out)\.(.*)", r"attn_pool.\1.\2"),
    (r"(?:visual\.)?attn_pool_contrast\.(.*)", r"attn_pool.\1"),
    (r"visual\.proj_contrast", "head.0.weight"),
    (r"visual\.(attn_pool_caption|ln_caption)\..*", ""),
    (r"(text|text_decoder)\..*|logit_scale", ""),
)
_MUSK: Rules = (
    (r".*\.B\..*|.*mask_token|logit_scale|language_head\..*|beit3\.text_embed\..*", ""),
    (r"beit3\.vision_embed\.cls_token", "cls_token"),
    (r"beit3\.vision_embed\.(.*)", r"patch_embed.\1"),
    (r"beit3\.encoder\.embed_positions\.A\.weight", "pos_embed"),
    (r"beit3\.encoder\.layer_norm\.A\.(.*)", r"norm.\1"),
    (r"vision_head\.(.*)", r"head.0.\1"),
    (rf"{_LAYER}self_attn\.inner_attn_ln\.A\.(.*)", r"blocks.\1.attn.norm.\2"),
    (rf"{_LAYER}self_attn\.out_proj\.A\.(.*)", r"blocks.\1.attn.proj.\2"),
    (rf"{_LAYER}self_attn\.q_proj\.A\.(.*)", r"blocks.\1.attn.query.\2"),
    (rf"{_LAYER}self_attn\.k_proj\.A\.(.*)", r"blocks.\1.attn.key.\2"),
    (rf"{_LAYER}self_attn\.v_proj\.A\.(.*)", r"blocks.\1.attn.value.\2"),
    (rf"{_LAYER}self_attn_layer_norm\.A\.(.*)", r"blocks.\1.norm1.\2"),
    (rf"{_LAYER}final_layer_norm\.A\.(.*)", r"blocks.\1.norm2.\2"),
    (rf"{_LAYER}ffn\.A\.ffn_layernorm\.(.*)", r"blocks.\1.mlp.norm.\2"),
    (rf"{_LAYER}ffn\.A\.(.*)", r"blocks.\1.mlp.\2"),
)
_SWIN: Rules = ((r".*\.(attn_mask|relative_position_index)", ""), (r"head\..*", ""))


_CONCH_TEXT: Rules = (
    (r"(visual|trunk|text_decoder)\..*|.*attn_mask", ""),
    (r"text\.(.*)", r"text.\1"),
)
_KEEP_TEXT: Rules = (
    (r"visual.*", ""),
    (r"text\.embeddings\.position_ids", ""),
    (r"text\.(.*)", r"text.\1"),
)


def convert(state: Mapping[str, Any], layout: str, module: nn.Module) -> State:
    """A checkpoint's parameters under timm's names.

    Args:
        state: the checkpoint, as it was read.
        layout: a key of `LAYOUTS`.
        module: the network it is for; says which classifier and which positions it has.

    Raises:
        KeyError: the checkpoint is not of that layout.
    """
    return LAYOUTS[layout](dict(state), module)


def rename(state: Mapping[str, Tensor], rules: Rules) -> State:
    """Apply renaming rules to whole names; names that none fits stay."""
    result: State = {}
    for name, values in state.items():
        new = name
        for pattern, replacement in rules:
            match = re.fullmatch(pattern, name)
            if match:
                new = match.expand(replacement)
                break
        if new:
            result[new] = values
    return result


def _timm(state: dict[str, Any], module: nn.Module) -> State:
    return _without_classifier(unwrap(state), module)


def _hf_vit(state: dict[str, Any], module: nn.Module) -> State:
    return _fuse_attention(rename(_strip(state, "vit."), _HF_VIT))


def _hf_dinov2(state: dict[str, Any], module: nn.Module) -> State:
    renamed = rename(_strip(state, "dinov2."), _HF_DINOV2)
    return _split_positions(_fuse_attention(renamed), module)


def _hf_clip(state: dict[str, Any], module: nn.Module) -> State:
    result = _fuse_attention(rename(state, _HF_CLIP))
    result["cls_token"] = result["cls_token"].reshape(1, 1, -1)
    result["pos_embed"] = result["pos_embed"].unsqueeze(0)
    # CLIP's patch projection has no bias, and neither has timm's.
    return result


def _dinov2(state: dict[str, Any], module: nn.Module) -> State:
    return _split_positions(rename(unwrap(state), _DINOV2), module)


def _dino(state: dict[str, Any], module: nn.Module) -> State:
    return rename(state.get("teacher", state), _DINO)


def _longvit_patches(state: dict[str, Any], module: nn.Module) -> State:
    # The projection of pixels alone, of a checkpoint of the whole network.
    return rename(rename(state.get("teacher", state), _DINO), _LONGVIT_PATCHES)


def _chief(state: dict[str, Any], module: nn.Module) -> State:
    return rename(unwrap(state), _CHIEF)


def _keep(state: dict[str, Any], module: nn.Module) -> State:
    return rename(unwrap(state), _KEEP)


def _conch(state: dict[str, Any], module: nn.Module) -> State:
    result = rename(unwrap(state), _CONCH)
    if (both := result.pop("attn_pool.to_kv.weight", None)) is not None:
        result["attn_pool.k.weight"], result["attn_pool.v.weight"] = both.chunk(2)
    if (bias := result.pop("attn_pool.attn.in_proj_bias", None)) is not None:
        for name, part in zip("qkv", bias.chunk(3), strict=True):
            result[f"attn_pool.{name}.bias"] = part
    if "head.0.weight" in result:  # used as `features @ weight`
        result["head.0.weight"] = result["head.0.weight"].T
    return result


def _musk(state: dict[str, Any], module: nn.Module) -> State:
    result = _fuse_attention(rename(unwrap(state), _MUSK))
    # Fairseq counts positions from 2.
    result["pos_embed"] = result["pos_embed"][2:].unsqueeze(0)
    return result


def _open_clip(state: dict[str, Any], module: nn.Module) -> State:
    return clip_layouts.part(unwrap(state), "visual.")


def _open_clip_whole(state: dict[str, Any], module: nn.Module) -> State:
    found = clip_layouts.whole(unwrap(state))
    return {name: values for name, values in found.items() if not name.endswith("attn_mask")}


def _open_clip_text(state: dict[str, Any], module: nn.Module) -> State:
    found = clip_layouts.part(unwrap(state), "text.", "logit_scale")
    return {name: values for name, values in found.items() if not name.endswith("attn_mask")}


def _conch_text(state: dict[str, Any], module: nn.Module) -> State:
    return rename(unwrap(state), _CONCH_TEXT)


def _keep_text(state: dict[str, Any], module: nn.Module) -> State:
    return rename(unwrap(state), _KEEP_TEXT)


def _swin(state: dict[str, Any], module: nn.Module) -> State:
    result = rename(unwrap(state), _SWIN)
    if any(name.startswith("layers.0.downsample") for name in result):
        # Before timm 0.9 a stage ended with its downsampling; now the next one begins with it.
        shift = re.compile(r"layers\.(\d+)\.downsample")
        result = {
            shift.sub(lambda m: f"layers.{int(m[1]) + 1}.downsample", k): v
            for k, v in result.items()
        }
    return result


def _in_order(state: dict[str, Any], module: nn.Module) -> State:
    """EfficientNets of the TensorFlow port: other names, but timm's parameters in timm's order."""
    body = {name: values for name, values in state.items() if not name.startswith("_fc.")}
    return dict(zip(module.state_dict(), body.values(), strict=False))


LAYOUTS: dict[str, Callable[[dict[str, Any], nn.Module], State]] = {
    "timm": _timm,
    "hf_vit": _hf_vit,
    "hf_dinov2": _hf_dinov2,
    "hf_clip": _hf_clip,
    "dinov2": _dinov2,
    "dino": _dino,
    "longvit_patches": _longvit_patches,
    "chief": _chief,
    "keep": _keep,
    "conch": _conch,
    "musk": _musk,
    "swin": _swin,
    "in_order": _in_order,
    "open_clip": _open_clip,
    "open_clip_text": _open_clip_text,
    "open_clip_whole": _open_clip_whole,
    "conch_text": _conch_text,
    "keep_text": _keep_text,
}

# Raised when what a layout makes of a checkpoint changes, for the teachers of that layout alone.
VERSIONS = {
    "timm": 1,
    "hf_vit": 1,
    "hf_dinov2": 1,
    "hf_clip": 1,
    "dinov2": 1,
    "dino": 1,
    "longvit_patches": 1,
    "chief": 1,
    "keep": 1,
    "conch": 1,
    "musk": 1,
    "swin": 1,
    "in_order": 1,
    "open_clip": 1,
    "open_clip_text": 1,
    "open_clip_whole": 1,
    "conch_text": 1,
    "keep_text": 1,
}


# Where trainers put the parameters, in the order in which they are looked for.
INSIDE = (
    "state_dict",
    "model",
    "teacher",
    "student",
    "model_state_dict",
    "model_state",
    "encoder",
    "backbone",
    "net",
    "module",
    "params",
    "weights",
)


def unwrap(state: dict[str, Any]) -> State:
    """The parameters inside a checkpoint that also holds other things."""
    for key in INSIDE:
        inner = state.get(key)
        if isinstance(inner, Mapping):
            return dict(inner)
    return state


def shared_prefixes(state: Mapping[str, Any]) -> list[str]:
    """What all names begin with, a word at a time: `model.`, then `model.backbone.`."""
    words = [name.split(".")[:-1] for name in state]
    shared: list[str] = []
    for level in zip(*words, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return [".".join(shared[: i + 1]) + "." for i in range(len(shared))]


def _strip(state: dict[str, Any], prefix: str) -> State:
    return {name.removeprefix(prefix): values for name, values in unwrap(state).items()}


def _fuse_attention(state: State) -> State:
    """Separate query, key and value projections as timm's one."""
    result = {k: v for k, v in state.items() if not re.search(r"\.attn\.(query|key|value)\.", k)}
    for name, query in state.items():
        if ".attn.query." in name:
            parts = [query, *(state[name.replace("query", part)] for part in ("key", "value"))]
            result[name.replace("query", "qkv")] = torch.cat(parts)
    return result


def _split_positions(state: State, module: nn.Module) -> State:
    """Add the class token's position to it where the network keeps positions of patches only.

    timm does so for DINOv2 networks with registers; the sum is the same.
    """
    wanted = module.get_parameter("pos_embed").shape[1]
    positions = state["pos_embed"]
    if getattr(module, "no_embed_class", False) and positions.shape[1] == wanted + 1:
        state["cls_token"] = state["cls_token"] + positions[:, :1]
        state["pos_embed"] = positions[:, 1:]
    return state


def _without_classifier(state: State, module: nn.Module) -> State:
    """Drop a classifier that the checkpoint has and the network has not."""
    given = getattr(module, "pretrained_cfg", None) or {}
    names = given.get("classifier") or ()
    names = (names,) if isinstance(names, str) else tuple(names)
    wanted = module.state_dict().keys()
    return {k: v for k, v in state.items() if k in wanted or k.rpartition(".")[0] not in names}
