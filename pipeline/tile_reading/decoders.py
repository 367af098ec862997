"""JPEG streams to pixels on the device that needs them.

On a GPU this is nvImageCodec, which has nvJPEG interpolate subsampled chroma as libjpeg-turbo does.
torchvision's own way through nvJPEG repeats it, which is another picture at every edge of a stain.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Sequence
from typing import Any

import imagecodecs
import torch
from torch import Tensor

from pipeline.errors import ConfigError

PACKAGE = "nvidia.nvimgcodec"
INTERPOLATE = ":fancy_upsampling=1"


def gpu_decodes() -> bool:
    """Whether the package that decodes on a GPU is installed."""
    try:
        return importlib.util.find_spec(PACKAGE) is not None
    except ModuleNotFoundError:  # nothing else of `nvidia` either
        return False


def require_gpu_decoder() -> None:
    """Say what to install.

    Raises:
        ConfigError: the package is missing.
    """
    if not gpu_decodes():
        raise ConfigError(
            "extraction.decode: gpu needs nvImageCodec for your CUDA; install "
            "`nvidia-nvimgcodec-cu12[nvjpeg]` or `nvidia-nvimgcodec-cu13[nvjpeg]`, or use "
            "decode: cpu"
        )


def decode_streams(streams: Sequence[bytes], device: torch.device) -> list[Tensor | None]:
    """JPEG streams as RGB.

    Args:
        streams: whole JPEG files in memory.
        device: a GPU, or the CPU.

    Returns:
        for each uint8 (rows, columns, 3) on the device; None if it cannot be decoded.
    """
    if device.type == "cpu":
        return [_on_cpu(stream) for stream in streams]
    codec, decoder = _decoder(device.index or 0)
    opened: dict[int, Any] = {}
    for place, data in enumerate(streams):
        with contextlib.suppress(RuntimeError):  # not even a header
            opened[place] = codec.CodeStream(data)
    waiting = torch.cuda.current_stream(device).cuda_stream
    images = decoder.decode(list(opened.values()), cuda_stream=waiting)
    found: list[Tensor | None] = [None] * len(streams)
    for place, image in zip(opened, images, strict=True):
        found[place] = None if image is None else torch.from_dlpack(image)
    return found


def _on_cpu(stream: bytes) -> Tensor | None:
    try:
        return torch.from_numpy(imagecodecs.jpeg8_decode(stream))
    except Exception:  # the library's own, of no common kind
        return None


@functools.cache
def _decoder(index: int) -> tuple[Any, Any]:
    """The library, and its decoder on one GPU; the CPU's decoders in it stay out."""
    codec: Any = importlib.import_module(PACKAGE)
    kinds = codec.BackendKind
    backends = [codec.Backend(k) for k in (kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU)]
    return codec, codec.Decoder(device_id=index, backends=backends, options=INTERPOLATE)
