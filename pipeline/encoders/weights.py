"""Weights into networks, without surprises.

Checkpoints are read as safetensors or with `weights_only`, so that no file can run code. Every
parameter must be there with its shape and nothing may be left over: positions or patch kernels are
never resampled to make a checkpoint fit.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import pickle
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import weight_files
from pipeline.encoders.checkpoint_layouts import convert, shared_prefixes, unwrap
from pipeline.encoders.registry import Row
from pipeline.errors import ArtifactError
from pipeline.files.identity import file_identity
from pipeline.files.stand_ins import stand_in
from pipeline.runtime.machine_errors import is_machines


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a network's parameters are from.

    Attributes:
        weights: hub, package, local or random.
        revision: the hub's commit; the package and its version; the file's identity; or the seed.
        identity: of the file, cheap to compute again, or a commit; empty for random parameters.
        path: the file, if there is one.
    """

    weights: str
    revision: str
    identity: str = ""
    path: Path | None = None


def find(
    module: nn.Module, name: str, cfg: TeacherConfig, row: Row | None, weights_dir: str | None
) -> Source:
    """Find a teacher's weights file, downloading it if it must be.

    Args:
        module: the network, for timm's own facts where there is no row.
        name: the teacher's name in the config.
        cfg: its config: `weights` is hub, local or random.
        row: its registry row, if it has one.
        weights_dir: folder of local weights, one subfolder per teacher.

    Raises:
        ConfigError: there is no place to load from, or access is not granted.
    """
    if cfg.weights == "random":
        return Source("random", f"seed {cfg.seed}")
    if cfg.weights == "local":
        path = weight_files.file_here(name, cfg, row, weights_dir)
        identity = file_identity(path)
        return Source("local", identity, identity, path)
    if cfg.weights == "package":
        assert row is not None  # `TeacherConfig` and `registry.check` see to that
        path = weight_files.package_file(name, row)
        version = importlib.metadata.version(row.distribution)
        return Source("package", f"{row.distribution} {version}", file_identity(path), path)
    if row is not None and row.loader == "remote":  # came with its code, at that commit
        revision = weight_files.wanted_revision(cfg, row)
        return Source("hub", revision, revision)
    path, commit = weight_files.hub_file(name, cfg, row, getattr(module, "pretrained_cfg", None))
    return Source("hub", commit, file_identity(path), path)


def fill(module: nn.Module, path: Path, layout: str) -> None:
    """Load a checkpoint file into a network, strictly; its parameters may be on the meta device.

    Args:
        module: the network.
        path: the checkpoint file.
        layout: how the checkpoint's names map to the network's, a key of
            `checkpoint_layouts.LAYOUTS`.

    Raises:
        ArtifactError: the file is damaged; or a parameter is missing, left over, or of another
            shape: the first of each are listed.
    """
    state, problems = _converted(read_checkpoint(path), layout, module)
    if problems:
        more = f", and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ArtifactError(f"{path}: of another model: {'; '.join(problems[:8])}{more}")
    wanted = module.state_dict()
    # The checkpoint's tensors become the parameters: nothing is initialised or held twice.
    same = {k: v.to(wanted[k].dtype).contiguous() for k, v in state.items()}
    module.load_state_dict(same, strict=True, assign=True)


def _converted(
    checkpoint: dict[str, Any], layout: str, module: nn.Module
) -> tuple[dict[str, Any], list[str]]:
    """The parameters under the network's names, and what does not fit.

    Trainers put a word before all names (`module.`, `model.`, `backbone.`): where a checkpoint does
    not fit as it is, it is tried without.
    """
    state, problems = _try(checkpoint, layout, module)
    names = unwrap(checkpoint)
    for prefix in shared_prefixes(names) if problems else ():
        bare = {name.removeprefix(prefix): values for name, values in names.items()}
        stripped, others = _try(bare, layout, module)
        if not others:
            return stripped, []
        if len(others) < len(problems):
            state, problems = stripped, others
    return state, [*_partly_prefixed(names, module), *problems] if problems else []


def _partly_prefixed(names: Mapping[str, Any], module: nn.Module) -> list[str]:
    """Says so where a part of a larger model's parameters would fit without their first word."""
    wanted = module.state_dict().keys()
    words = Counter(name.partition(".")[0] for name in names if name.partition(".")[2] in wanted)
    if not words or words.most_common(1)[0][1] < len(wanted) / 2:
        return []
    word, count = words.most_common(1)[0]
    return [
        f"{count} of its names would fit without the `{word}.` before them; save those alone, "
        f"without it, as a state_dict"
    ]


def _try(
    checkpoint: dict[str, Any], layout: str, module: nn.Module
) -> tuple[dict[str, Any], list[str]]:
    try:
        state = convert(checkpoint, layout, module)
    except KeyError as error:
        return {}, [f"not a checkpoint of layout `{layout}`: no {error}"]
    wanted = module.state_dict()
    return state, [
        *(f"missing {k}" for k in sorted(wanted.keys() - state.keys())),
        *(f"left over {k}" for k in sorted(state.keys() - wanted.keys())),
        *(
            f"{k} is {tuple(state[k].shape)}, the model has {tuple(wanted[k].shape)}"
            for k in sorted(wanted.keys() & state.keys())
            if state[k].shape != wanted[k].shape
        ),
    ]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents: safetensors, or torch's with `weights_only`.

    Raises:
        ArtifactError: it is damaged or no checkpoint, or holds anything but tensors and plain
            values.
    """
    if instead := stand_in(path):
        raise ArtifactError(f"{path}: {instead}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"{path}: holds Python objects, which are not loaded because they can run code; save "
            f"its state_dict as safetensors ({str(error).splitlines()[0]})"
        ) from None
    except Exception as error:  # safetensors and zip errors have no common class
        if is_machines(error):
            raise
        raise ArtifactError(f"{path}: not a readable checkpoint ({error})") from None


def count_parameters(module: nn.Module) -> int:
    """Parameters, buffers not counted."""
    return sum(p.numel() for p in module.parameters())
