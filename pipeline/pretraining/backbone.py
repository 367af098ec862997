"""The encoder that a training starts from, and what it is as a row of the registry afterwards."""

from __future__ import annotations

import dataclasses
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import build, weights
from pipeline.encoders.registry import Model
from pipeline.encoders.taps import find_taps, forward_levels
from pipeline.encoders.transforms import Transform
from pipeline.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Start:
    """An encoder before it learns.

    Attributes:
        module: the network.
        arch: its architecture in timm.
        kwargs: arguments of it.
        transform: from tiles to its input.
        licence: of the weights that it has; empty of random ones.
        restricted: that licence restricts what is made with it.
    """

    module: nn.Module
    arch: str
    kwargs: dict[str, Any]
    transform: Transform
    licence: str = ""
    restricted: bool = False


def start(
    name: str, cfg: TeacherConfig, weights_dir: str | None, *, tokens: bool, several: bool
) -> Start:
    """Build an encoder with its first weights.

    Args:
        name: of the teacher, for messages.
        cfg: which encoder.
        weights_dir: folder of local weights.
        tokens: whether it must be a vision transformer of timm.
        several: whether it must take inputs of several sizes.

    Raises:
        ConfigError: it is no such network, or cannot be trained here.
        ArtifactError: its weights are missing or damaged.
    """
    where = f"pretraining.teachers.{name}.encoder"
    network = build.make_network(name, cfg, weights_dir)
    row = network.row
    if cfg.source == "open_clip" or (row is not None and row.loader != "timm"):
        raise ConfigError(f"{where}: only networks of timm can be trained here; choose another")
    source = weights.find(network.module, name, cfg, row, weights_dir)
    network = build.load_weights(network, name, cfg, source)
    px = network.transform.crop
    transform = dataclasses.replace(network.transform, resize=px)
    arch = row.arch if row else str(cfg.model)
    kwargs = dict(row.kwargs) if row else {"num_classes": 0}
    module = network.module
    vit = isinstance(module, VisionTransformer)
    if tokens and not vit:
        raise ConfigError(f"{where}: this method masks patches and needs a vision transformer")
    if vit and not row:
        kwargs["img_size"] = px
    if vit and several and not kwargs.get("dynamic_img_size"):
        kwargs["dynamic_img_size"] = True
        other = build.seeded(arch, cfg.seed, **kwargs)
        other.load_state_dict(module.state_dict(), strict=True)
        module = other
    restricted = row.derivative_restricted if row else False
    return Start(module, arch, kwargs, transform, row.licence if row else "", restricted)


def row_of(
    name: str, module: nn.Module, begun: Start, *, title: str, pooling: str, mpp: float
) -> Model:
    """The registry row of an encoder.

    Args:
        name: the teacher's.
        module: the encoder.
        begun: what it started as, with the transform that it was trained with.
        title: for people.
        pooling: how its features are read.
        mpp: µm per pixel of its input.
    """
    anything: Any = module
    taps = find_taps(module, pooling)
    px = begun.transform.crop
    with torch.no_grad():
        blank = torch.zeros(1, 3, px, px, device=next(module.parameters()).device)
        dim = forward_levels(module.eval(), blank, taps, ("high",))["high"].shape[1]
    patch = getattr(getattr(anything, "patch_embed", None), "patch_size", 0)
    return Model(
        name=name,
        title=title,
        loader="timm",
        arch=begun.arch,
        kwargs=begun.kwargs,
        poolings={taps.pooling: int(dim)},
        resize=px,
        crop=px,
        interp=begun.transform.interp,
        mean=begun.transform.mean,
        std=begun.transform.std,
        mpp=(round(mpp, 6),),
        depth=len(getattr(anything, "blocks", ())),
        taps=(taps.low, taps.mid),
        tokens=taps.prefix or 0,
        patch=patch[0] if isinstance(patch, tuple) else int(patch),
        params=weights.count_parameters(module),
        dtype="bf16",
        licence=begun.licence,
        gated=False,
        derivative_restricted=begun.restricted,
    )


def family(arch: str) -> str:
    """The word for an architecture, for titles."""
    return str(timm.get_pretrained_cfg(arch).architecture) if timm.is_model(arch) else arch
