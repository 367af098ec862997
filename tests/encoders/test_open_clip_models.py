"""Image towers of open_clip, and of a CLIP of transformers, read as any other teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import build, open_clip_models, text_towers
from pipeline.encoders.transforms import prepare
from pipeline.errors import ArtifactError, ConfigError

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VISION = {"image_size": 32, "layers": 3, "width": 32, "patch_size": 8, "head_width": 16}
CLIP = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}
COCA = {
    "embed_dim": 32,
    "vision_cfg": VISION
    | {
        "attentional_pool": "parallel",
        "attn_pooler_queries": 5,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
    "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True},
    "multimodal_cfg": TEXT | {"attn_pooler_heads": 2},
}
TIMM = CLIP | {"vision_cfg": {"timm_model_name": "resnet10t", "image_size": 32}}
TIMM_VIT = CLIP | {"vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "token"}}


def weights_of(folder: Path, config: dict[str, Any], old: bool = False) -> Any:
    """A model saved as open_clip does, in its older form with the text tower at the top."""
    folder.mkdir(parents=True)
    model = open_clip_models.make(config, seed=5)
    state = {k.removeprefix("text.") if old else k: v for k, v in model.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return model.eval()


@pytest.mark.parametrize(
    ("config", "old"),
    [(CLIP, False), (CLIP, True), (COCA, False), (TIMM, False), (TIMM_VIT, False)],
    ids=["clip", "old form", "coca", "timm cnn", "timm vit"],
)
def test_levels_are_what_open_clip_computes(
    tmp_path: Path, config: dict[str, Any], old: bool
) -> None:
    """The aligned level is open_clip's own normalised image feature, and the text tower its own."""
    model = weights_of(tmp_path / "words", config, old)
    cfg = TeacherConfig(source="open_clip", weights="local")
    levels = ("low", "mid", "high", "aligned")
    encoder = build.build("words", cfg, levels=levels, weights_dir=str(tmp_path))
    tiles = torch.randint(0, 255, (3, 32, 32, 3), dtype=torch.uint8)
    found = build.encode(encoder, tiles)
    assert list(found) == list(levels)
    with torch.inference_mode():
        wanted = model.encode_image(prepare(tiles, encoder.transform), normalize=True)
    assert wanted.shape == (3, config["embed_dim"])
    torch.testing.assert_close(found["aligned"].float(), wanted, atol=2e-3, rtol=0)
    assert not torch.allclose(found["high"][:, :8].float(), wanted[:, :8], atol=1e-2)

    tower = text_towers.build("words", cfg, str(tmp_path))
    texts = ["a nest of tumour cells", "stroma"]
    ids = torch.stack([text_towers.tokens(tower.tokeniser, text) for text in texts])
    assert torch.equal(ids, open_clip.SimpleTokenizer()(texts, 16))
    with torch.inference_mode():
        torch.testing.assert_close(
            text_towers.encode(tower, texts), model.encode_text(ids, normalize=True)
        )
    assert tower.scale == pytest.approx(1 / 0.07, rel=1e-4)


def test_features_before_and_after_the_projection(tmp_path: Path) -> None:
    model = weights_of(tmp_path / "words", CLIP)
    cfg = TeacherConfig(source="open_clip", weights="local")
    encoder = build.build("words", cfg, levels=("high", "aligned"), weights_dir=str(tmp_path))
    tiles = torch.randint(0, 255, (2, 32, 32, 3), dtype=torch.uint8)
    found = build.encode(encoder, tiles)
    projected = F.normalize(found["high"].float() @ model.visual.proj, dim=-1)
    torch.testing.assert_close(projected, found["aligned"].float(), atol=3e-3, rtol=0)


def test_a_clip_of_transformers_is_the_same_network(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    common = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config=common
        | {"intermediate_size": 64, "max_position_embeddings": 16, "eos_token_id": 49407},
        vision_config=common | {"intermediate_size": 96, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    theirs = transformers.CLIPModel(config).eval()
    theirs.save_pretrained(tmp_path / "plip_like")
    cfg = TeacherConfig(source="open_clip", weights="local")
    encoder = build.build("plip_like", cfg, levels=("aligned", "high"), weights_dir=str(tmp_path))
    tiles = torch.randint(0, 255, (3, 32, 32, 3), dtype=torch.uint8)
    tower = text_towers.build("plip_like", cfg, str(tmp_path))
    ids = torch.stack([text_towers.tokens(tower.tokeniser, t) for t in ("a gland", "pink stroma")])
    with torch.inference_mode():
        pixels = prepare(tiles, encoder.transform)
        out = theirs(input_ids=ids, pixel_values=pixels, attention_mask=None)
    image = build.encode(encoder, tiles)["aligned"].float()
    torch.testing.assert_close(image, F.normalize(out.image_embeds, dim=-1), atol=2e-3, rtol=0)
    text = text_towers.encode(tower, ["a gland", "pink stroma"])
    torch.testing.assert_close(text, F.normalize(out.text_embeds, dim=-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model": "ViT-B-33", "weights": "random"}, "did you mean `ViT-B-32`"),
        ({"model": "ViT-B-32/laion2b", "weights": "hub"}, "has no weights `laion2b`"),
        ({"model": "ViT-B-32", "weights": "hub"}, "name the weights after a stroke"),
        ({"model": "RN50", "weights": "random"}, "cannot be read at several depths"),
        ({"model": "ViT-B-32", "weights": "random", "input_px": 112}, "takes tiles of 224 px only"),
    ],
)
def test_what_cannot_be_built_is_said(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build.build("words", TeacherConfig(source="open_clip", **config))


def test_a_tag_names_its_place_on_the_hub() -> None:
    cfg = TeacherConfig(source="open_clip", model="ViT-B-32/laion2b_s34b_b79k")
    recipe = open_clip_models.find_recipe("words", cfg, None)
    assert recipe.hf_id == "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert recipe.file is None


def test_poolers_must_fit_the_widths() -> None:
    with pytest.raises(ConfigError, match="parallel poolers"):
        open_clip_models.make(COCA | {"embed_dim": 16})


def test_a_description_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ArtifactError, match="neither a model of open_clip"):
        open_clip_models.read_recipe(path)


def test_every_number_of_a_decoder_is_drawn() -> None:
    """open_clip leaves its last projection as the memory was."""
    one, other = open_clip_models.make(COCA, 1), open_clip_models.make(COCA, 1)
    assert torch.equal(one.text_decoder.text_projection, other.text_decoder.text_projection)
    assert 0.05 < one.text_decoder.text_projection.std().item() < 0.5
