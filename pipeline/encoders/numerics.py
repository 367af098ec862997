"""In which precision a network computes, and whether its blocks are compiled."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import Any

import torch
from torch import nn

from pipeline.errors import ConfigError

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def choose_precision(requested: str, device: torch.device, default: str = "") -> str:
    """What `auto` means: fp32 on a CPU; on a GPU the row's choice, else bf16 if it has it.

    Where the authors computed in fp32, a GPU that can takes TF32: products of 10 bits, as many as
    the float16 that features are stored in, added up in fp32, at several times the speed.

    Args:
        requested: `extraction.precision` of the config.
        device: where the network runs.
        default: what its authors computed in; empty: not known.
    """
    if requested != "auto":
        return requested
    if device.type != "cuda":
        return "fp32"
    recent = torch.cuda.get_device_capability(device) >= (8, 0)
    if default == "fp32":
        return "tf32" if recent else "fp32"
    if default == "bf16" and not recent:
        return "fp16"
    return default or ("bf16" if recent else "fp16")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context of a forward pass."""
    kind = DTYPES[precision]
    return torch.autocast(device.type, kind, enabled=kind != torch.float32)


def allow_tf32(precision: str) -> None:
    """Let this process multiply float32 matrices in TF32, or not; half precision is not touched."""
    if precision in ("fp32", "tf32"):
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def compile_blocks(module: nn.Module, device: torch.device) -> bool:
    """Compile a transformer block by block, in place.

    Blocks of one network are alike, so that one compilation serves all of them; what is gained is
    in the norms, activations and casts between the products. The batch stays a free number.

    Args:
        module: the network.
        device: where it will run.

    Returns:
        whether it has blocks.

    Raises:
        ConfigError: a GPU's code cannot be compiled here.
    """
    blocks: Any = getattr(module, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList):
        return False
    compilers = (os.environ.get("CC", "gcc"), "cc", "clang")
    if device.type == "cuda" and not (
        importlib.util.find_spec("triton") and any(map(shutil.which, compilers))
    ):
        raise ConfigError(
            "extraction.compile: needs Triton, which comes with torch on Linux, and a C compiler "
            "(gcc, cc, clang or $CC) on the node; install one, or set compile: false"
        )
    for block in blocks:
        block.compile(dynamic=True)
    return True
