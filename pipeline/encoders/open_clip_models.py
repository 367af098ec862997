"""Image and text towers of open_clip, behind the methods that taps and layouts read.

A teacher with `source: open_clip` is one of open_clip's architectures by name (`ViT-B-32`), with a
tag for published weights (`ViT-B-32/laion2b_s34b_b79k`), a repository of the hub
(`hf-hub:owner/name`), a description of a new one (`small.json`), or a folder of
`extraction.weights_dir` with its own description: `open_clip_config.json`, or `config.json` of a
CLIP of transformers, whose architecture is the same under other names.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CustomTextCLIP
from open_clip.pretrained import get_pretrained_cfg
from open_clip.timm_model import TimmModel
from open_clip.transformer import AttentionalPooler, VisionTransformer
from torch import Tensor, nn

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders.transforms import Transform
from pipeline.errors import ArtifactError, ConfigError, nearest

# Raised when features of teachers with `source: open_clip` change. 1: the first.
VERSION = 1

CONFIG = "open_clip_config.json"
TRANSFORMERS_CONFIG = "config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
HUB = "hf-hub:"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# Keys of a model's description that are no arguments of its class.
NOT_ARGUMENTS = ("custom_text",)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a model is built from.

    Attributes:
        config: open_clip's description: embed_dim, vision_cfg, text_cfg, and for a CoCa
            multimodal_cfg.
        mean, std, interp: how tiles are normalised and resized.
        hf_id, file: where its published weights are; empty without.
    """

    config: Mapping[str, Any]
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interp: str = "bicubic"
    hf_id: str = ""
    file: str | None = None


def find_recipe(name: str, cfg: TeacherConfig, weights_dir: str | None) -> Recipe:
    """The recipe of a teacher.

    Args:
        name: the teacher's name in the config.
        cfg: its settings, with `source: open_clip`.
        weights_dir: `extraction.weights_dir` of the config.

    Raises:
        ConfigError: open_clip knows no such model, or a tag for its weights is missing.
        ArtifactError: its description is damaged.
    """
    if cfg.weights == "local" and weights_dir:
        folder = Path(weights_dir).expanduser() / name
        for file in (CONFIG, TRANSFORMERS_CONFIG):
            if (folder / file).is_file():
                return read_recipe(folder / file)
    model = str(cfg.model)
    if model.endswith(".json"):
        return read_recipe(Path(model).expanduser())
    if model.startswith(HUB):
        return _hub_recipe(name, model.removeprefix(HUB), cfg.revision or "main")
    where = f"extraction.teachers.{name}.model"
    arch, _, tag = model.partition("/")
    config = open_clip.get_model_config(arch)
    if config is None:
        raise ConfigError(
            f"{where}: open_clip has no model `{arch}`{nearest(arch, open_clip.list_models())}"
        )
    given = get_pretrained_cfg(arch, tag) if tag else {}
    if tag and not given:
        tags = open_clip.list_pretrained_tags_by_model(arch)
        raise ConfigError(f"{where}: `{arch}` has no weights `{tag}`{nearest(tag, tags)}")
    if cfg.weights == "hub" and not tag:
        raise ConfigError(
            f"{where}: name the weights after a stroke, e.g. `{arch}/"
            f"{next(iter(open_clip.list_pretrained_tags_by_model(arch)), 'tag')}`, or set "
            "weights: local or random"
        )
    hf_id, _, file = str(given.get("hf_hub", "")).rpartition("/")
    return Recipe(
        config=config,
        mean=tuple(given.get("mean", CLIP_MEAN)),
        std=tuple(given.get("std", CLIP_STD)),
        interp=given.get("interpolation", "bicubic"),
        hf_id=hf_id,
        file=file or None,
    )


def read_recipe(path: Path) -> Recipe:
    """A recipe from open_clip's description of a model, or from that of a CLIP of transformers.

    Args:
        path: `open_clip_config.json`, or `config.json`.

    Raises:
        ConfigError: there is no such file.
        ArtifactError: the file is damaged, or describes no such model.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such description of a model") from None
    try:
        facts = json.loads(text)
        if "model_cfg" not in facts:
            return Recipe(config=from_transformers(facts))
        made = facts.get("preprocess_cfg", {})
        return Recipe(
            config=facts["model_cfg"],
            mean=tuple(made.get("mean", CLIP_MEAN)),
            std=tuple(made.get("std", CLIP_STD)),
            interp=made.get("interpolation", "bicubic"),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: describes neither a model of open_clip nor a CLIP of transformers ({error})"
        ) from None


def from_transformers(facts: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's description of a CLIP that transformers describes.

    Args:
        facts: the content of its `config.json`; what is left out there has CLIP's values.

    Raises:
        KeyError: it is no CLIP.
    """
    if facts["model_type"] != "clip":
        raise KeyError(f"model_type clip, but {facts['model_type']}")
    vision, text = facts.get("vision_config") or {}, facts.get("text_config") or {}
    width, words = vision.get("hidden_size", 768), text.get("hidden_size", 512)
    return {
        "embed_dim": facts.get("projection_dim", 512),
        "quick_gelu": vision.get("hidden_act", "quick_gelu") == "quick_gelu",
        "vision_cfg": {
            "image_size": vision.get("image_size", 224),
            "patch_size": vision.get("patch_size", 32),
            "layers": vision.get("num_hidden_layers", 12),
            "width": width,
            "head_width": width // vision.get("num_attention_heads", 12),
            "mlp_ratio": vision.get("intermediate_size", 3072) / width,
        },
        "text_cfg": {
            "context_length": text.get("max_position_embeddings", 77),
            "vocab_size": text.get("vocab_size", 49408),
            "width": words,
            "heads": text.get("num_attention_heads", 8),
            "layers": text.get("num_hidden_layers", 12),
            "mlp_ratio": text.get("intermediate_size", 2048) / words,
        },
    }


def make(config: Mapping[str, Any], seed: int = 0) -> nn.Module:
    """A model with seeded random parameters on the current device.

    Args:
        config: of `Recipe`.
        seed: equal seeds give equal parameters.

    Returns:
        open_clip's CoCa where the config has a decoder, else its CLIP; both keep their text tower
        as `text` and their image tower as `visual`.

    Raises:
        ConfigError: the poolers of a CoCa do not fit its widths.
    """
    facts = {key: value for key, value in config.items() if key not in NOT_ARGUMENTS}
    vision = facts["vision_cfg"]
    if vision.get("attentional_pool") == "parallel" and vision["width"] != facts["embed_dim"]:
        raise ConfigError(
            "a CoCa with parallel poolers needs vision_cfg.width equal to embed_dim, not "
            f"{vision['width']} and {facts['embed_dim']}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = CoCa if "multimodal_cfg" in facts else CustomTextCLIP
        model: Any = kind(**facts)
        if kind is CoCa:
            # open_clip leaves these numbers as the memory held them.
            decoder = model.text_decoder
            nn.init.normal_(decoder.text_projection, std=decoder.width**-0.5)
            _one_query(model.visual)
    return model


class OneQuery(AttentionalPooler):
    """The contrastive pooler: one query, and one vector instead of a row of one."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, context) -> (B, width)."""
        return super().forward(x)[:, 0]


def _one_query(visual: Any) -> None:
    pooler = getattr(visual, "attn_pool_contrastive", None)
    if pooler is not None:
        pooler.__class__ = OneQuery


def image_tower(recipe: Recipe, seed: int = 0) -> nn.Module:
    """The image tower of a model, with timm's methods.

    Args:
        recipe: of the model.
        seed: of its random parameters, the same as in `make`.

    Raises:
        ConfigError: its image tower is neither open_clip's transformer nor a network of timm that
            pools by itself.
    """
    visual = make(recipe.config, seed).visual
    tower: nn.Module
    if isinstance(visual, VisionTransformer):
        tower = VitTower(visual)
    elif isinstance(visual, TimmModel) and recipe.config["vision_cfg"].get("timm_pool") not in (
        "abs_attn",
        "rot_attn",
    ):
        tower = TrunkTower(visual)
    else:
        raise ConfigError(
            f"open_clip's {type(visual).__name__} cannot be read at several depths; choose a model "
            "whose image tower is a vision transformer or a network of timm"
        )
    tower.pretrained_cfg = {"hf_hub_id": recipe.hf_id, "hf_hub_filename": recipe.file}  # type: ignore[assignment]
    return tower


def transform_of(recipe: Recipe) -> Transform:
    """How tiles are prepared: resized to the input, without cutting off a margin."""
    size = recipe.config["vision_cfg"].get("image_size", 224)
    px = int(size[0] if isinstance(size, list | tuple) else size)
    interp = "bilinear" if recipe.interp == "bilinear" else "bicubic"
    return Transform(px, px, interp, recipe.mean, recipe.std)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Patch:
    """What is asked of a patch embedding."""

    patch_size: tuple[int, int]


class VitTower(nn.Module):
    """open_clip's vision transformer behind timm's methods.

    Args:
        visual: open_clip's image tower.
    """

    num_prefix_tokens = 1
    global_pool = "token"

    def __init__(self, visual: VisionTransformer) -> None:
        super().__init__()
        self.visual = visual
        self.patch_embed = Patch(visual.patch_size)
        self.feature_info = [
            {"module": f"visual.transformer.resblocks.{i}"}
            for i in range(len(visual.transformer.resblocks))
        ]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> projected features (B, D)."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> all tokens before pooling (B, 1 + N, C)."""
        return self.visual.transformer(self.visual._embeds(images))

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Pooled tokens (B, C), or with the projection (B, D).

        Args:
            tokens: (B, 1 + N, C), of `forward_features`.
            pre_logits: without the projection.
        """
        pooled, _ = self.visual._pool(tokens)
        return pooled if pre_logits else pooled @ self.visual.proj

    def forward_intermediates(
        self,
        images: Tensor,
        indices: Sequence[int],
        return_prefix_tokens: bool = True,
        output_fmt: str = "NLC",
        stop_early: bool = False,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """All tokens before pooling, and (patches, prefix) after each block of `indices`.

        Args:
            images: float (B, 3, H, W), normalised.
            indices: numbers of the blocks, from 0.
            return_prefix_tokens: always True here; timm's networks have the same argument.
            output_fmt: always `NLC` here, tokens as rows.
            stop_early: always False here: the output is needed.
        """
        final, inner = self.visual.transformer.forward_intermediates(
            self.visual._embeds(images), indices=list(indices)
        )
        return final, [(tokens[:, 1:], tokens[:, :1]) for tokens in inner]


class TrunkTower(nn.Module):
    """A network of timm inside open_clip, with open_clip's projection as its head.

    Args:
        visual: open_clip's image tower.
    """

    def __init__(self, visual: TimmModel) -> None:
        super().__init__()
        self.visual = visual
        trunk = visual.trunk
        self.forward_intermediates = trunk.forward_intermediates
        self.forward_features = trunk.forward_features
        self.feature_info = trunk.feature_info
        for name in ("num_prefix_tokens", "global_pool"):
            if hasattr(trunk, name):
                setattr(self, name, getattr(trunk, name))
        size = getattr(getattr(trunk, "patch_embed", None), "patch_size", None)
        if size is not None:
            self.patch_embed = Patch(tuple(size) if isinstance(size, Sequence) else (size, size))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> projected features (B, D)."""
        return self.forward_head(self.forward_features(images))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Pooled features (B, C), or with the projection (B, D).

        Args:
            features: of `forward_features`.
            pre_logits: without the projection.
        """
        pooled = self.visual.trunk.forward_head(features)
        return pooled if pre_logits else self.visual.head(pooled)


def _hub_recipe(name: str, repository: str, revision: str) -> Recipe:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file, weights in ((CONFIG, WEIGHTS[0]), (TRANSFORMERS_CONFIG, None)):
        try:
            path = Path(hf_hub_download(repository, file, revision=revision))
        except LocalEntryNotFoundError as error:
            raise ConfigError(f"teacher `{name}`: {repository} is out of reach ({error})") from None
        except EntryNotFoundError:
            continue
        except Exception as error:  # the HTTP library's own among them
            raise ConfigError(
                f"teacher `{name}`: {repository} at {revision} cannot be read ({error}). Without "
                f"network, put its files into extraction.weights_dir/{name}/ and set weights: local"
            ) from None
        return dataclasses.replace(read_recipe(path), hf_id=repository, file=weights)
    raise ConfigError(
        f"teacher `{name}`: {repository} has neither {CONFIG} nor {TRANSFORMERS_CONFIG}"
    )
