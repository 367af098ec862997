"""Low, mid and high features from one forward pass.

`high` is the network's own output. `low` and `mid` are what leaves an earlier block or stage, as
it is (not normalised), pooled like `high`. Nothing is registered on the network and nothing is kept
between calls: timm's `forward_intermediates` hands out the values as it passes them.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.encoders.pooling import TOKEN_POOLINGS, pool_map, pool_tokens
from pipeline.encoders.registry import ALIGNED
from pipeline.errors import ConfigError

STAGED = 6  # a network with at most so many feature maps has stages rather than blocks


@dataclasses.dataclass(frozen=True)
class Taps:
    """Where a network is read.

    Attributes:
        low, mid: 0-based index of the block or stage after which each is taken.
        pooling: `stage` (the last stage's maps, before a head makes them wider); `cls`, `mean`,
            `cls_mean`, `registers`; `proj` (the network's head); or `model` (its own).
        prefix: tokens before the patch tokens; None for networks that have feature maps.
    """

    low: int
    mid: int
    pooling: str
    prefix: int | None


def tap_blocks(depth: int) -> tuple[int, int]:
    """The low and mid taps of a network of so many blocks, or of feature maps per stage.

    Blocks: floor(0.33 L) and floor(0.66 L), 0-based (Shazam's rule: 7 and 15 of 24, 13 and 26 of
    40). Stages: the third and second from the end, so that a stem does not count as a stage.
    """
    if depth <= STAGED:
        return max(depth - 3, 0), max(depth - 2, 0)
    return int(0.33 * depth), int(0.66 * depth)


def find_taps(
    module: nn.Module, pooling: str | None = None, taps: tuple[int, int] | None = None
) -> Taps:
    """Where to read a timm network.

    Args:
        module: the network.
        pooling: as in `Taps`; None is the network's own.
        taps: low and mid; None takes `tap_blocks`.

    Raises:
        ConfigError: the network cannot be tapped, or has no tokens for this pooling.
    """
    name = type(module).__name__
    forward = getattr(module, "forward_intermediates", None)
    if forward is None and taps is None:
        raise ConfigError(
            f"{name} has no forward_intermediates in timm, so its levels cannot be read; "
            "choose another model, or levels: [high]"
        )
    has_tokens = forward is not None and (
        "return_prefix_tokens" in inspect.signature(forward).parameters
    )
    prefix = int(getattr(module, "num_prefix_tokens", 0)) if has_tokens else 0
    if pooling not in (None, "stage", "proj", "model", *TOKEN_POOLINGS):
        raise ConfigError(
            f"pooling `{pooling}` is not one of {', '.join(TOKEN_POOLINGS)}, stage, proj, model"
        )
    if pooling in ("cls", "cls_mean", "registers") and not prefix:
        raise ConfigError(f"{name} has no class token: pooling `{pooling}` is not possible")
    if pooling == "stage" and has_tokens:
        raise ConfigError(f"{name} has no stages: pooling `stage` is not possible")
    low, mid = taps or tap_blocks(len(_entries(module)))
    return Taps(low, mid, pooling or "model", prefix or None)


def forward_levels(
    module: nn.Module, images: Tensor, taps: Taps, levels: Sequence[str]
) -> dict[str, Tensor]:
    """One forward pass, read at several depths.

    Args:
        module: a timm network, or one that offers the same methods.
        images: float (B, 3, H, W).
        taps: from `find_taps`.
        levels: which of `low`, `mid`, `high`, and, of a vision-language network, `aligned`: its
            projection, to length 1, which is compared with text.

    Returns:
        level to (B, dimension).
    """
    network: Any = module
    if taps.pooling == "stage":
        return _stages(network, images, taps, levels)
    wanted = [(level, getattr(taps, level)) for level in ("low", "mid") if level in levels]
    if not wanted:
        return _outputs(network, network.forward_features(images), taps, levels)
    indices = sorted({index for _, index in wanted})
    result: dict[str, Tensor] = {}
    if taps.prefix:
        final, inner = network.forward_intermediates(
            images,
            indices=indices,
            return_prefix_tokens=True,
            output_fmt="NLC",
            stop_early=False,
        )
        pooled = {
            index: pool_tokens(prefix, patches, _inner_pooling(network, taps))
            for index, (patches, prefix) in zip(indices, inner, strict=True)
        }
    else:
        final, inner = network.forward_intermediates(images, indices=indices, stop_early=False)
        pooled = {index: pool_map(maps) for index, maps in zip(indices, inner, strict=True)}
    for level, index in wanted:
        result[level] = pooled[index]
    return result | _outputs(network, final, taps, levels)


def forward_maps(module: nn.Module, images: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
    """The output, and the patch tokens or maps that it is pooled from, of one forward pass.

    Args:
        module: as in `forward_levels`.
        images: float (B, 3, H, W).
        taps: from `find_taps`.

    Returns:
        (B, dimension), as `forward_levels` gives it at `high`; and (B, C, h, w).

    Raises:
        ValueError: its tokens lie on no square grid.
    """
    network: Any = module
    if taps.pooling == "stage":
        last = len(_entries(network)) - 1
        (maps,) = network.forward_intermediates(images, indices=[last], intermediates_only=True)
        return pool_map(maps), maps
    features = network.forward_features(images)
    return _pool_output(network, features, taps), as_maps(network, features, taps)


def as_maps(module: nn.Module, features: Tensor, taps: Taps) -> Tensor:
    """What `forward_features` gives, as maps: (B, C, h, w), of tokens those of patches.

    Args:
        module: the network.
        features: of it.
        taps: from `find_taps`.

    Raises:
        ValueError: its tokens lie on no square grid.
    """
    if features.ndim == 4:
        nhwc = getattr(module, "output_fmt", "NCHW") == "NHWC"
        return features.permute(0, 3, 1, 2) if nhwc else features
    patches = features[:, taps.prefix or 0 :]
    side = math.isqrt(patches.shape[1])
    if side * side != patches.shape[1]:
        raise ValueError(f"{patches.shape[1]} tokens lie on no square grid")
    return patches.transpose(1, 2).unflatten(2, (side, side))


def _outputs(
    network: Any, features: Tensor, taps: Taps, levels: Sequence[str]
) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    if "high" in levels:
        result["high"] = _pool_output(network, features, taps)
    if ALIGNED in levels:
        result[ALIGNED] = F.normalize(network.forward_head(features).float(), dim=-1)
    return result


def _stages(network: Any, images: Tensor, taps: Taps, levels: Sequence[str]) -> dict[str, Tensor]:
    """All levels from the stages themselves; what comes after the last one is not run."""
    at = {"low": taps.low, "mid": taps.mid, "high": len(_entries(network)) - 1}
    at = {level: at[level] for level in ("low", "mid", "high") if level in levels}
    indices = sorted(set(at.values()))
    maps = network.forward_intermediates(images, indices=indices, intermediates_only=True)
    pooled = {index: pool_map(one) for index, one in zip(indices, maps, strict=True)}
    return {level: pooled[index] for level, index in at.items()}


def _pool_output(network: Any, features: Tensor, taps: Taps) -> Tensor:
    if taps.pooling == "model":
        return network.forward_head(features, pre_logits=True)
    if taps.pooling == "proj":
        return network.forward_head(features)
    if taps.prefix is None and features.ndim == 4:
        return pool_map(features)
    prefix = taps.prefix or 0
    return pool_tokens(features[:, :prefix], features[:, prefix:], taps.pooling)


def _inner_pooling(network: Any, taps: Taps) -> str:
    """Inner tokens are pooled like the output; where a head does that, like its input."""
    if taps.pooling in TOKEN_POOLINGS:
        return taps.pooling
    return "cls" if getattr(network, "global_pool", "") == "token" else "mean"


def _entries(module: Any) -> Sequence[Any]:
    """The network's blocks or stages, as timm counts them."""
    info = module.feature_info
    return info if isinstance(info, list) else info.info
