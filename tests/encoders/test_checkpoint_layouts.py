"""Checkpoints of other libraries, renamed for timm: the same parameters, the same output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from pipeline.encoders.architectures import (
    AttentionPool,
    attention_pooled,
    clip_vision,
    dino_vit,
    keep_vision,
    musk_vision,
    swin_conv_stem,
)
from pipeline.encoders.checkpoint_layouts import LAYOUTS, convert
from pipeline.encoders.pooling import pool_tokens

SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 32, "num_classes": 0}
GATED = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 64 / 24 * 2}


def _vit(**kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    return _shaken(timm.create_model("vit_tiny_patch16_224", **SMALL, **kwargs))


def _shaken(module: nn.Module) -> nn.Module:
    """Random numbers in every parameter, also where timm starts with zeros or ones."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module.eval()


def _loads(module: nn.Module, layout: str, state: dict[str, Any]) -> None:
    """The state converts to exactly the module's parameters."""
    found = convert(state, layout, module)
    wanted = module.state_dict()
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values, rtol=0, atol=0)


def _split(state: dict[str, torch.Tensor], pattern: str, names: tuple[str, ...]) -> dict[str, Any]:
    """timm's `blocks.<i>.attn.qkv.<p>` as three tensors named by the pattern."""
    result = {}
    for name, values in state.items():
        if ".attn.qkv." in name:
            block, part = name.split(".")[1], name.rpartition(".")[2]
            for which, piece in zip(names, values.chunk(3), strict=True):
                result[pattern.format(block=block, which=which, part=part)] = piece
        else:
            result[name] = values
    return result


def _replaced(state: dict[str, Any], *pairs: tuple[str, str]) -> dict[str, Any]:
    result = {}
    for name, values in state.items():
        for old, new in pairs:
            name = name.replace(old, new)
        result[name] = values
    return result


_HF_NAMES = (
    ("cls_token", "embeddings.cls_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("blocks.", "encoder.layer."),
    ("attn.proj", "attention.output.dense"),
)
_HF_QKV = "blocks.{block}.attention.attention.{which}.{part}"


def test_hf_vit() -> None:
    module = _vit()
    state = _split(module.state_dict(), _HF_QKV, ("query", "key", "value"))
    state = _replaced(
        state,
        *_HF_NAMES,
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
        ("norm1", "layernorm_before"),
        ("norm2", "layernorm_after"),
    )
    state = {("layernorm." + k[5:] if k.startswith("norm.") else k): v for k, v in state.items()}
    state["pooler.dense.weight"] = torch.zeros(1)
    _loads(module, "hf_vit", state)


@pytest.mark.parametrize("registers", [0, 4])
def test_hf_dinov2(registers: int) -> None:
    options = {"reg_tokens": 4, "no_embed_class": True} if registers else {}
    module = _vit(init_values=1.0, **GATED, **options)
    state = _split(module.state_dict(), _HF_QKV, ("query", "key", "value"))
    state = _replaced(
        state,
        *_HF_NAMES,
        ("reg_token", "embeddings.register_tokens"),
        ("mlp.fc1", "mlp.weights_in"),
        ("mlp.fc2", "mlp.weights_out"),
        ("ls1.gamma", "layer_scale1.lambda1"),
        ("ls2.gamma", "layer_scale2.lambda1"),
    )
    state = {("layernorm." + k[5:] if k.startswith("norm.") else k): v for k, v in state.items()}
    state["embeddings.mask_token"] = torch.zeros(1, 24)
    if registers:
        # There the class token has a position of its own, which timm adds to it.
        first = torch.full((1, 1, 24), 0.25)
        state["embeddings.cls_token"] = state["embeddings.cls_token"] - first
        positions = state["embeddings.position_embeddings"]
        state["embeddings.position_embeddings"] = torch.cat([first, positions], dim=1)
        found = convert(state, "hf_dinov2", module)
        torch.testing.assert_close(found["cls_token"], module.state_dict()["cls_token"])
        found["cls_token"] = module.state_dict()["cls_token"]
        assert found.keys() == module.state_dict().keys()
        assert found["pos_embed"].shape == module.state_dict()["pos_embed"].shape
    else:
        _loads(module, "hf_dinov2", state)


def test_hf_clip_drops_the_text_tower() -> None:
    module = _shaken(
        clip_vision("vit_base_patch32_clip_quickgelu_224", 8, **{**_clip_size(), "img_size": 64})
    )
    state = _split(
        module.state_dict(),
        "blocks.{block}.self_attn.{which}_proj.{part}",
        ("q", "k", "v"),
    )
    state = _replaced(
        state,
        ("norm_pre", "vision_model.pre_layrnorm"),
        ("attn.proj", "self_attn.out_proj"),
        ("norm1", "layer_norm1"),
        ("norm2", "layer_norm2"),
        ("blocks.", "vision_model.encoder.layers."),
        ("patch_embed.proj", "vision_model.embeddings.patch_embedding"),
        ("head.weight", "visual_projection.weight"),
    )
    state = {
        ("vision_model.post_layernorm." + k[5:] if k.startswith("norm.") else k): v
        for k, v in state.items()
    }
    state["vision_model.embeddings.class_embedding"] = state.pop("cls_token").reshape(-1)
    state["vision_model.embeddings.position_embedding.weight"] = state.pop("pos_embed")[0]
    state["vision_model.embeddings.position_ids"] = torch.zeros(1, 5)
    state["text_model.anything"] = torch.zeros(1)
    state["logit_scale"] = torch.zeros(())
    _loads(module, "hf_clip", state)


def _clip_size() -> dict[str, Any]:
    return {"embed_dim": 24, "depth": 2, "num_heads": 3}


def test_dinov2_with_registers() -> None:
    module = _vit(init_values=1.0, reg_tokens=4, no_embed_class=True, **GATED)
    state = _replaced(
        module.state_dict(),
        ("mlp.fc1", "mlp.w12"),
        ("mlp.fc2", "mlp.w3"),
        ("reg_token", "register_tokens"),
    )
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 24), state["pos_embed"]], dim=1)
    state["mask_token"] = torch.zeros(1, 24)
    _loads(module, "dinov2", state)


def test_dino_checkpoint_of_a_teacher() -> None:
    module = _vit()
    state = {f"module.backbone.{k}": v for k, v in module.state_dict().items()}
    state["module.head.mlp.0.weight"] = torch.zeros(1)
    _loads(module, "dino", {"teacher": state, "student": {}, "epoch": 100})


def test_keep_image_tower() -> None:
    module = _shaken(keep_vision("vit_tiny_patch16_224", 8, **_clip_size(), init_values=1e-5))
    state = {}
    for name, values in module.state_dict().items():
        name = name.replace("ls1.gamma", "ls1.weight")
        head = name.startswith("head.")
        state[f"visual_{name}" if head else f"visual.{name}"] = values
    state["text.embeddings.weight"] = torch.zeros(1)
    state["logit_scale"] = torch.zeros(())
    _loads(module, "keep", state)
    output = module(torch.rand(2, 3, 224, 224))
    torch.testing.assert_close(output.norm(dim=-1), torch.ones(2))


def test_swin_of_older_timm() -> None:
    module = swin_conv_stem("swin_tiny_patch4_window7_224", embed_dim=24, depths=(1, 1, 1, 1))
    state: dict[str, Any] = {}
    for name, values in module.state_dict().items():
        for stage in (1, 2, 3):
            name = name.replace(f"layers.{stage}.downsample", f"layers.{stage - 1}.downsample")
        state[name] = values
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(1)
    state["layers.0.blocks.0.attn_mask"] = torch.zeros(1)
    _loads(module, "swin", {"model": state})
    _loads(module, "swin", dict(module.state_dict()))


def _conch_names(module: nn.Module, prefix: str) -> dict[str, Any]:
    pairs = (("attn_pool.", "attn_pool_contrast."), ("fc_norm.", "ln_contrast."))
    state = _replaced(dict(module.state_dict()), *pairs)
    ours = ("attn_pool_contrast.", "ln_contrast.", "head.")
    return {prefix + ("" if k.startswith(ours) else "trunk.") + k: v for k, v in state.items()}


def test_conch() -> None:
    """With torch's fused attention, a transposed projection, and parts that are not used."""
    sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 3}
    module = _shaken(attention_pooled(width=16, projected=True, **sizes))
    state = _conch_names(module, "visual.")
    pool = "visual.attn_pool_contrast."
    for name in "qkv":
        state[f"{pool}attn.{name}_proj_weight"] = state.pop(f"{pool}{name}.weight")
    biases = [state.pop(f"{pool}{name}.bias") for name in "qkv"]
    state[f"{pool}attn.in_proj_bias"] = torch.cat(biases)
    for part in ("weight", "bias"):
        state[f"{pool}attn.out_proj.{part}"] = state.pop(f"{pool}out.{part}")
    state["visual.proj_contrast"] = state.pop("visual.head.0.weight").T
    unused = ("visual.attn_pool_caption.query", "visual.ln_caption.bias", "text.x", "logit_scale")
    _loads(module, "conch", state | dict.fromkeys(unused, torch.zeros(1)))


def test_conch_v1_5() -> None:
    sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 3}
    module = _shaken(attention_pooled(width=16, bias=False, dino_positions=True, **sizes))
    state = _conch_names(module, "")
    pool = "attn_pool_contrast."
    state[f"{pool}to_kv.weight"] = torch.cat([state.pop(f"{pool}{n}.weight") for n in "kv"])
    for name in ("q", "out"):
        state[f"{pool}to_{name}.weight"] = state.pop(f"{pool}{name}.weight")
    _loads(module, "conch", state)


def test_attention_pool_is_torchs_attention() -> None:
    """The pooler by its own formula: one normed query over normed tokens, prefix included."""
    pool = _shaken(AttentionPool(24, 16, heads=2))
    tokens = torch.rand(3, 5, 24)
    attention = nn.MultiheadAttention(16, 2, kdim=24, vdim=24, batch_first=True).eval()
    for name in "qkv":
        getattr(attention, f"{name}_proj_weight").data.copy_(getattr(pool, name).weight)
    attention.in_proj_bias.data.copy_(torch.cat([pool.q.bias, pool.k.bias, pool.v.bias]))
    attention.out_proj.load_state_dict(pool.out.state_dict())
    with torch.inference_mode():
        keys = pool.ln_k(tokens)
        query = pool.ln_q(pool.query).expand(3, 1, -1)
        expected = attention(query, keys, keys)[0][:, 0]
        torch.testing.assert_close(pool(tokens), expected, rtol=1e-4, atol=1e-5)


def test_dino_positions_grow_with_the_input() -> None:
    """At the native size nothing is interpolated; beyond it, by DINO's factor."""
    small = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 3}
    module = _shaken(dino_vit(**small))
    plain = VisionTransformer(num_classes=0, **small).eval()
    plain.load_state_dict(module.state_dict())
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(module(images), plain(images), rtol=1e-4, atol=1e-5)
        x = module.patch_embed(torch.rand(1, 3, 64, 64))
        found = module._pos_embed(x)[:, 1:] - x.flatten(1, 2)
        grid = module.pos_embed[0, 1:].reshape(2, 2, 24).permute(2, 0, 1)[None]
        larger = nn.functional.interpolate(grid, scale_factor=(2.05, 2.05), mode="bicubic")
    torch.testing.assert_close(found[0], larger[0].flatten(1).T, rtol=1e-4, atol=1e-5)


def test_musk() -> None:
    """BEiT-3's names: branch A for images; two positions that are never used; a text branch."""
    small = {**SMALL, "patch_size": 16}
    del small["num_classes"]
    module = _shaken(musk_vision("beit3_base_patch16_224", 8, **small))
    state = _split(
        dict(module.state_dict()),
        "beit3.encoder.layers.{block}.self_attn.{which}_proj.A.{part}",
        ("q", "k", "v"),
    )
    positions = state.pop("pos_embed")[0]
    state = _replaced(
        state,
        ("blocks.", "beit3.encoder.layers."),
        ("attn.norm.", "self_attn.inner_attn_ln.A."),
        ("attn.proj.", "self_attn.out_proj.A."),
        ("norm1.", "self_attn_layer_norm.A."),
        ("norm2.", "final_layer_norm.A."),
        ("mlp.norm.", "ffn.A.ffn_layernorm."),
        ("mlp.", "ffn.A."),
        ("patch_embed.", "beit3.vision_embed."),
        ("cls_token", "beit3.vision_embed.cls_token"),
        ("head.0.", "vision_head."),
    )
    state = {("beit3.encoder.layer_" + k.replace(".", ".A.") if k.startswith("norm.") else k): v
             for k, v in state.items()}  # fmt: skip
    state["beit3.encoder.embed_positions.A.weight"] = torch.cat([torch.zeros(2, 24), positions])
    unused = (
        "beit3.encoder.layers.0.self_attn.q_proj.B.weight",
        *("beit3.text_embed.weight", "beit3.vision_embed.mask_token", "logit_scale"),
        *("language_head.weight", "beit3.encoder.embed_positions.B.weight"),
    )
    _loads(module, "musk", state | dict.fromkeys(unused, torch.zeros(1)))


def test_timm_drops_only_a_classifier() -> None:
    module = timm.create_model("resnet10t", num_classes=0)
    state = dict(timm.create_model("resnet10t", num_classes=7).state_dict())
    assert convert(state, "timm", module).keys() == module.state_dict().keys()
    state["surplus.weight"] = torch.zeros(1)
    assert "surplus.weight" in convert(state, "timm", module)


def test_every_row_names_a_layout() -> None:
    from pipeline.encoders.registry import models

    assert {row.layout for row in models().values()} <= LAYOUTS.keys()


# --- against the libraries themselves, where they are installed -----------------------------------


def _transformers() -> Any:
    return pytest.importorskip("transformers", reason="only compared where it is installed")


def _published(module: Any, folder: Path) -> dict[str, Any]:
    """The state as it stands in files; a new version of the library has other names in memory."""
    module.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("gated", [True, False])
def test_output_equals_transformers_dinov2(tmp_path: Path, registers: int, gated: bool) -> None:
    library = _transformers()
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(library, f"{kind}Config")(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        patch_size=16,
        image_size=32,
        use_swiglu_ffn=gated,
        **({"num_register_tokens": 4} if registers else {}),
    )
    theirs = _shaken(getattr(library, f"{kind}Model")(config))
    options = {"reg_tokens": 4, "no_embed_class": True} if registers else {}
    ours = _vit(init_values=1.0, **(GATED if gated else {}), **options)
    ours.load_state_dict(convert(_published(theirs, tmp_path), "hf_dinov2", ours), strict=True)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        tokens = theirs(images).last_hidden_state
        mine = ours.forward_features(images)
    torch.testing.assert_close(mine, tokens, rtol=1e-4, atol=1e-5)
    # Midnight's card: the class token beside the mean of the patch tokens.
    reference = torch.cat([tokens[:, 0], tokens[:, 1 + registers :].mean(1)], dim=-1)
    pooled = pool_tokens(mine[:, : 1 + registers], mine[:, 1 + registers :], "cls_mean")
    torch.testing.assert_close(pooled, reference, rtol=1e-4, atol=1e-5)


def test_output_equals_transformers_vit(tmp_path: Path) -> None:
    library = _transformers()
    config = library.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        patch_size=16,
        image_size=32,
        layer_norm_eps=1e-6,
    )
    theirs = _shaken(library.ViTModel(config, add_pooling_layer=False))
    ours = _vit()
    ours.load_state_dict(convert(_published(theirs, tmp_path), "hf_vit", ours), strict=True)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(
            ours.forward_features(images), theirs(images).last_hidden_state, rtol=1e-4, atol=1e-5
        )


def test_output_equals_transformers_clip(tmp_path: Path) -> None:
    library = _transformers()
    config = library.CLIPVisionConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        patch_size=32,
        image_size=64,
        projection_dim=8,
    )
    theirs = _shaken(library.CLIPVisionModelWithProjection(config))
    ours = clip_vision(
        "vit_base_patch32_clip_quickgelu_224", 8, **{**_clip_size(), "img_size": 64}
    ).eval()
    ours.load_state_dict(convert(_published(theirs, tmp_path), "hf_clip", ours), strict=True)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images).image_embeds, rtol=1e-4, atol=1e-5)
