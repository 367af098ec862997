"""A teacher that is ready to run: its network, its transform, where it is read, its precision."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import registry, remote, weights
from pipeline.encoders.architectures import TOWERS
from pipeline.encoders.numerics import allow_tf32, autocast, choose_precision, compile_blocks
from pipeline.encoders.registry import ALIGNED, Model
from pipeline.encoders.taps import Taps, find_taps, forward_levels
from pipeline.encoders.transforms import Transform, prepare
from pipeline.encoders.weight_files import wanted_revision
from pipeline.errors import ArtifactError, ConfigError, nearest


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A network on its device, with all that is needed to turn tiles into features.

    Attributes:
        name: the teacher's name in the config.
        module: the network, in evaluation mode.
        transform: from uint8 tiles to its input.
        taps: where it is read.
        levels: which levels it gives.
        device: where it is.
        precision: fp32 or tf32 (for the whole process), bf16 or fp16 (autocast).
        dims: level to dimension.
        facts: what goes into the feature files' attributes: model_id, revision, weights, pooling,
            gflop_per_tile (multiply and add are two) …
    """

    name: str
    module: nn.Module
    transform: Transform
    taps: Taps
    levels: tuple[str, ...]
    device: torch.device
    precision: str
    dims: dict[str, int]
    facts: dict[str, str]


def build(
    name: str,
    cfg: TeacherConfig,
    *,
    levels: Sequence[str] = ("low", "mid", "high"),
    precision: str = "auto",
    compiled: bool = False,
    weights_dir: str | None = None,
    identity: str | None = None,
    device: torch.device | str = "cpu",
) -> Encoder:
    """Build a teacher, load its weights and put it on a device.

    Args:
        name: the teacher's name; with `source: registry` and no `model:` also its registry row.
        cfg: its config.
        levels: which of low, mid, high to give, and aligned, of a teacher with words.
        precision: auto, fp32, tf32, bf16 or fp16.
        compiled: whether to compile a transformer's blocks.
        weights_dir: folder of local weights, one subfolder per teacher.
        identity: of the weights file that the preflight checked; None takes any.
        device: where to run.

    Raises:
        ConfigError: the model is unknown, cannot be fed tiles of `input_px`, cannot be pooled so,
            needs an environment of its own, or its licence is not acknowledged.
        ArtifactError: its weights are missing, damaged, of another model, or not those checked.
    """
    network = make_network(name, cfg, weights_dir)
    source = weights.find(network.module, name, cfg, network.row, weights_dir)
    if identity is not None and source.identity != identity:
        raise ArtifactError(
            f"teacher `{name}`: {source.path} is not the weights file that was checked before; put "
            f"that one back, or remove features/{name}/check.json to check and extract again"
        )
    network = load_weights(network, name, cfg, source)
    return finish(network, name, cfg, source, levels, precision, compiled, device)


@dataclasses.dataclass(frozen=True)
class Network:
    """A network before its weights: without memory, on the meta device, if they are to be loaded.

    Attributes:
        row: its registry row, if it has one.
        module: the network.
        transform: from uint8 tiles to its input.
    """

    row: Model | None
    module: nn.Module
    transform: Transform


def make_network(name: str, cfg: TeacherConfig, weights_dir: str | None = None) -> Network:
    """The network of a teacher with seeded random parameters, or without any.

    Args:
        name: the teacher's name in the config.
        cfg: its settings.
        weights_dir: folder of local weights, where a model of open_clip may be described.

    Raises:
        ConfigError: as in `build`.
    """
    row = registry.check(name, cfg)
    if row is not None and row.loader == "remote":
        module = remote.load(row, wanted_revision(cfg, row))
        return Network(row, module, registry_transform(row, cfg, fixed=True))
    if cfg.source == "open_clip":
        return from_open_clip(name, cfg, weights_dir)
    with contextlib.nullcontext() if cfg.weights == "random" else torch.device("meta"):
        module, transform = from_registry(row, cfg) if row else from_timm(name, cfg)
    return Network(row, module, transform)


def load_weights(
    network: Network, name: str, cfg: TeacherConfig, source: weights.Source
) -> Network:
    """Load a network's weights, if it has any to load.

    Args:
        network: without weights.
        name: the teacher's name in the config.
        cfg: its settings.
        source: where its weights lie.

    Raises:
        ArtifactError: the file is damaged or of another model.
    """
    if source.path is None:
        return network
    layout = "open_clip" if cfg.source == "open_clip" else "timm"
    weights.fill(network.module, source.path, network.row.layout if network.row else layout)
    return _with_memory(network, name, cfg)


def with_state(
    network: Network, name: str, cfg: TeacherConfig, state: Mapping[str, Tensor]
) -> Network:
    """A network with the parameters that another one of its kind had.

    Args:
        network: without weights.
        name: the teacher's name in the config.
        cfg: its settings.
        state: parameters and buffers by the network's own names.

    Raises:
        ArtifactError: they are of another network.
    """
    try:
        network.module.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise ArtifactError(f"teacher `{name}`: its weights do not fit it ({error})") from None
    return _with_memory(network, name, cfg)


def _with_memory(network: Network, name: str, cfg: TeacherConfig) -> Network:
    """Buffers that are computed and not saved (Swin's position index) need memory."""
    if not any(buffer.is_meta for buffer in network.module.buffers()):
        return network
    whole, _ = from_registry(network.row, cfg) if network.row else from_timm(name, cfg)
    whole.load_state_dict(network.module.state_dict(), strict=True)
    return dataclasses.replace(network, module=whole)


def finish(
    network: Network,
    name: str,
    cfg: TeacherConfig,
    source: weights.Source,
    levels: Sequence[str],
    precision: str,
    compiled: bool,
    device: torch.device | str,
) -> Encoder:
    """Put a network that has its weights on a device, and say what it gives.

    Args:
        network: with its weights.
        name: the teacher's name in the config.
        cfg: its settings.
        source: where its weights came from.
        levels: which levels it is to give.
        precision: `auto`, fp32, tf32, bf16 or fp16.
        compiled: whether to compile its blocks.
        device: where it runs.

    Raises:
        ConfigError: it cannot be pooled so.
    """
    device = torch.device(device)
    row, transform = network.row, network.transform
    pooling = cfg.pooling or (row.pooling if row else None)
    taps = find_taps(network.module, pooling, row.taps if row else None)
    module = network.module.eval().requires_grad_(False).to(device)
    if taps.prefix is None:
        module = module.to(memory_format=torch.channels_last)
    chosen = choose_precision(precision, device, row.dtype if row else "")
    allow_tf32(chosen)
    facts = {
        "model_id": cfg.model or name,
        "pooling": taps.pooling,
        "transform": describe(transform),
        "weights": source.weights,
        "revision": source.revision,
    }
    if ALIGNED in levels:
        projected = taps.pooling == "proj"
        facts["features"] = "projected" if projected else "before the projection to text"
        facts[ALIGNED] = "projected, of length 1, for comparison with text"
    encoder = Encoder(name, module, transform, taps, tuple(levels), device, chosen, {}, facts)
    blank = torch.zeros(1, transform.crop, transform.crop, 3, dtype=torch.uint8, device=device)
    # Fused attention is not counted by every version of torch; its plain form is.
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        dims = {level: int(values.shape[1]) for level, values in encode(encoder, blank).items()}
    facts["gflop_per_tile"] = f"{counted.get_total_flops() / 1e9:.6g}"
    facts["compiled"] = "yes" if compiled and compile_blocks(module, device) else "no"
    return dataclasses.replace(encoder, dims=dims)


@torch.inference_mode()
def encode(encoder: Encoder, tiles: Tensor) -> dict[str, Tensor]:
    """Features of a batch of tiles at every level, from one forward pass.

    Args:
        encoder: from `build`.
        tiles: uint8 (B, S, S, 3) on the encoder's device.

    Returns:
        level to float16 (B, dimension) on the same device.
    """
    images = prepare(tiles, encoder.transform)
    if encoder.taps.prefix is None:
        images = images.contiguous(memory_format=torch.channels_last)
    with autocast(encoder.precision, encoder.device):
        features = forward_levels(encoder.module, images, encoder.taps, encoder.levels)
    return {level: values.to(torch.float16) for level, values in features.items()}


def from_registry(row: Model, cfg: TeacherConfig) -> tuple[nn.Module, Transform]:
    """The architecture of a registry row, without weights, and its transform.

    Raises:
        ConfigError: `input_px` does not fit it.
    """
    module = architecture(row, cfg.seed)
    fixed = bool(row.tokens) and not row.kwargs.get("dynamic_img_size")
    transform = registry_transform(row, cfg, fixed)
    check_patch(row.name, module, transform.crop)
    return module, transform


def registry_transform(row: Model, cfg: TeacherConfig, fixed: bool) -> Transform:
    """The transform of a registry row, for the authors' input size or the config's.

    Args:
        row: of the registry.
        cfg: the teacher's settings.
        fixed: whether the network takes its own input size alone.

    Raises:
        ConfigError: `input_px` is another size, and the network takes no other (`fixed`).
    """
    transform = Transform(row.resize, row.crop, row.interp, row.mean, row.std)
    if not cfg.input_px or cfg.input_px == row.crop:
        return transform
    if fixed:
        raise ConfigError(
            f"teacher `{row.name}`: {row.title} takes tiles of {row.crop} px only; remove input_px"
        )
    return dataclasses.replace(transform, resize=cfg.input_px, crop=cfg.input_px)


def architecture(row: Model, seed: int = 0) -> nn.Module:
    """The network of a registry row with seeded random parameters, on the current device."""
    kwargs = {k: _layer(v) for k, v in row.kwargs.items()}
    return seeded(row.arch, seed, **kwargs)


def from_timm(name: str, cfg: TeacherConfig) -> tuple[nn.Module, Transform]:
    """Any timm model by name, without weights, and its transform.

    A tile is a tissue section without a margin to cut off, so that it is resized to the input and
    not cropped.

    Raises:
        ConfigError: timm knows no such model, or `input_px` does not fit it.
    """
    arch = str(cfg.model)
    if not timm.is_model(arch):
        raise ConfigError(
            f"extraction.teachers.{name}.model: timm has no model `{arch}`"
            f"{nearest(arch, timm.list_models())}"
        )
    px, size = timm_size(cfg)
    try:
        module = seeded(arch, cfg.seed, num_classes=0, **size)
    except TypeError:
        raise ConfigError(
            f"extraction.teachers.{name}.input_px: {arch} takes tiles of its own size only"
        ) from None
    check_patch(name, module, px)
    data = resolve_model_data_config(module)
    interp = "bilinear" if data["interpolation"] == "bilinear" else "bicubic"
    return module, Transform(px, px, interp, tuple(data["mean"]), tuple(data["std"]))  # type: ignore[arg-type]


def from_open_clip(name: str, cfg: TeacherConfig, weights_dir: str | None) -> Network:
    """The image tower of a model of open_clip, and its transform.

    Args:
        name: the teacher's name in the config.
        cfg: its settings.
        weights_dir: folder of local weights, where the model may be described.

    Raises:
        ConfigError: open_clip knows no such model, or it takes no such input.
    """
    from pipeline.encoders import open_clip_models

    recipe = open_clip_models.find_recipe(name, cfg, weights_dir)
    module = open_clip_models.image_tower(recipe, cfg.seed)
    transform = open_clip_models.transform_of(recipe)
    if cfg.input_px and cfg.input_px != transform.crop:
        raise ConfigError(
            f"extraction.teachers.{name}.input_px: {cfg.model or name} takes tiles of "
            f"{transform.crop} px only; remove input_px"
        )
    return Network(None, module, transform)


def timm_size(cfg: TeacherConfig) -> tuple[int, dict[str, Any]]:
    """The input of a timm model in pixels, and the arguments that make it take that size."""
    given = timm.get_pretrained_cfg(str(cfg.model))
    native = int(given.input_size[-1]) if given else 224
    px = cfg.input_px or native
    if px == native or not given or not given.fixed_input_size:
        return px, {}
    # Without weights a network is made for its input. With weights it stays as it was trained
    # and its positions are interpolated in each pass, never resampled at load.
    return px, {"img_size": px} if cfg.weights == "random" else {"dynamic_img_size": True}


def seeded(arch: str, seed: int, **kwargs: Any) -> nn.Module:
    """An architecture of timm or `towers`; equal seeds give equal random parameters."""
    make = TOWERS.get(arch) or partial(timm.create_model, arch, pretrained=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(**kwargs)


def check_patch(name: str, module: nn.Module, px: int) -> None:
    """Refuse an input that is not a whole number of patches.

    Args:
        name: the teacher's name, for the message.
        module: the network.
        px: side of the input in pixels.

    Raises:
        ConfigError: it is not.
    """
    size = getattr(getattr(module, "patch_embed", None), "patch_size", None)
    patch = size[0] if isinstance(size, tuple) else size
    if patch and px % patch:
        raise ConfigError(
            f"extraction.teachers.{name}.input_px: {px} is not a multiple of the patch, {patch} px"
        )


def describe(transform: Transform) -> str:
    """A transform as one line for file attributes."""
    steps = f"resize {transform.resize} {transform.interp}"
    if transform.crop != transform.resize:
        steps += f", centre crop {transform.crop}"
    numbers = "/".join(f"{v:g}" for v in (*transform.mean, *transform.std))
    return f"{steps}, normalise {numbers}"


def _layer(value: Any) -> Any:
    """Layers that a row names, e.g. `SwiGLUPacked`; anything else as it is."""
    layers = {"SwiGLUPacked": timm.layers.SwiGLUPacked, "SiLU": nn.SiLU}
    return layers.get(value, value) if isinstance(value, str) else value
