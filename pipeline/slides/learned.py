"""Tissue by a network that the user brings: an exported program, timm, or segmentation-models.

Next to the weights lies a file of the same name with `.json` appended that says what they are:

    {"library": "export" | "torchscript" | "timm" | "smp", "mpp": 8.0, "input_px": 512,
     "tissue_classes": [1], "mean": [...], "std": [...], "threshold": 0.5,
     "model": "resnet18" | "Unet", "encoder": "efficientnet-b0", "classes": 2}

A network that returns a map (N, C, h, w) segments; one that returns (N, C) classifies windows. One
output channel means the probability of tissue by a sigmoid, more mean classes by a softmax. An
exported program (`torch.export.save`) needs a dynamic batch dimension. torch is imported here and
nowhere else on the way of tiling.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, ValidationError

from pipeline.config.section import Section
from pipeline.errors import ConfigError
from pipeline.files.identity import file_identity
from pipeline.slides.pixels import Image
from pipeline.slides.tile_coverage import Mask

SCALE_TOLERANCE = 1.5
BATCH = 8


class Network(Section):
    """The description next to the weights; see the module."""

    library: str = Field(pattern="^(export|torchscript|timm|smp)$")
    mpp: float = Field(gt=0)
    input_px: int = Field(512, ge=16, le=4096)
    tissue_classes: tuple[int, ...] = (1,)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    threshold: float = Field(0.5, gt=0, lt=1)
    model: str = ""
    encoder: str = ""
    classes: int = Field(2, ge=1)


def segment_learned(image: Image, mpp: float, weights: str) -> Mask:
    """Run the network over the picture in overlapping windows.

    Args:
        image: uint8 (H, W, 3) RGB.
        mpp: its µm per pixel.
        weights: the checkpoint.

    Returns:
        uint8 (H, W), 1 = tissue.

    Raises:
        ConfigError: the checkpoint or its description is missing or does not fit.
    """
    network, model, device = load(weights, file_identity(weights))
    scale = mpp / network.mpp
    if scale > SCALE_TOLERANCE:
        raise ConfigError(
            f"tiling.tissue.weights {weights} wants {network.mpp:g} µm/px, but the slide is "
            f"segmented at {mpp:g}; set tiling.tissue.segmentation_mpp: {network.mpp:g}"
        )
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    probability = _windows(scaled, network, model, device)
    probability = cv2.resize(
        probability, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR
    )
    return (probability >= network.threshold).astype(np.uint8)


def _windows(
    image: Image, network: Network, model: torch.nn.Module, device: torch.device
) -> npt.NDArray[np.float32]:
    """The probability of tissue, float32 (H, W); windows overlap by half and are averaged."""
    height, width = image.shape[:2]
    side, step = network.input_px, network.input_px // 2
    rows = max(1, math.ceil((height - side) / step) + 1)
    columns = max(1, math.ceil((width - side) / step) + 1)
    shape = ((rows - 1) * step + side, (columns - 1) * step + side)
    padded = np.full((*shape, 3), 255, np.uint8)
    padded[:height, :width] = image
    total, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    places = [(r * step, c * step) for r in range(rows) for c in range(columns)]
    mean = torch.tensor(network.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(network.std, device=device).view(1, 3, 1, 1)
    for start in range(0, len(places), BATCH):
        part = places[start : start + BATCH]
        stack = np.stack([padded[y : y + side, x : x + side] for y, x in part])
        pixels = torch.from_numpy(stack).to(device).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            found = _probability(model((pixels - mean) / std), network, side)
        for (y, x), window in zip(part, found.cpu().numpy(), strict=True):
            total[y : y + side, x : x + side] += window
            weight[y : y + side, x : x + side] += 1
    total /= weight
    return total[:height, :width]


def _probability(output: Any, network: Network, side: int) -> torch.Tensor:
    """The network's answer as (N, side, side)."""
    logits = output["out"] if isinstance(output, dict) else output
    if logits.ndim == 2:
        logits = logits[:, :, None, None]
    if logits.shape[1] == 1:
        tissue = torch.sigmoid(logits[:, 0].float())
    else:
        tissue = torch.softmax(logits.float(), dim=1)[:, list(network.tissue_classes)].sum(dim=1)
    if tissue.shape[-2:] == (1, 1):
        return tissue.expand(-1, side, side)
    return torch.nn.functional.interpolate(
        tissue[:, None], (side, side), mode="bilinear", align_corners=False
    )[:, 0]


@functools.lru_cache(maxsize=1)
def load(weights: str, identity: str) -> tuple[Network, torch.nn.Module, torch.device]:
    """The description, the network, and its device.

    Args:
        weights: the checkpoint.
        identity: what is in it, so that another file in its place is read again.

    Raises:
        ConfigError: a file is missing, damaged, or does not fit the other.
    """
    path = Path(weights)
    note = path.with_name(path.name + ".json")
    for needed in (path, note):
        if not needed.is_file():
            raise ConfigError(f"tiling.tissue.weights: {needed} does not exist")
    try:
        network = Network.model_validate(json.loads(note.read_text()))
    except (ValueError, ValidationError) as error:
        raise ConfigError(f"{note}: not a description of a network: {error}") from None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model = _build(network, path)
    except ImportError:
        raise ConfigError(
            f"{note}: library smp needs the package segmentation-models-pytorch; install it"
        ) from None
    except (RuntimeError, KeyError, ValueError, TypeError, OSError) as error:
        text = " ".join(str(error).split())[:300]
        raise ConfigError(f"{path}: does not fit its description: {text}") from None
    return network, model.to(device), device


def _build(network: Network, path: Path) -> torch.nn.Module:
    """The network in evaluation mode."""
    if network.library == "export":
        return torch.export.load(str(path)).module()  # its mode was fixed when it was exported
    if network.library == "torchscript":
        return torch.jit.load(str(path), map_location="cpu").eval()
    if network.library == "timm":
        import timm

        model = timm.create_model(network.model, pretrained=False, num_classes=network.classes)
    else:
        smp = importlib.import_module("segmentation_models_pytorch")  # not a dependency
        model = smp.create_model(
            network.model, network.encoder, encoder_weights=None, classes=network.classes
        )
    model.load_state_dict(_state(path))
    return model.eval()


def _state(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        state = state[key] if isinstance(state.get(key), dict) else state
    return state
