"""Weights: from the hub at a revision, from a local folder, or random; loaded without surprises.

Checkpoints are read as safetensors or with `weights_only`, so that no file can run code. Every
parameter must be there with its shape and nothing may be left over: positions or patch kernels are
never resampled to make a checkpoint fit.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.config import TeacherConfig
from pipeline.encoders.layouts import convert
from pipeline.encoders.registry import HUB_FILES, WEIGHT_SUFFIXES, Model
from pipeline.errors import ArtifactError, ConfigError

ENDS = 1 << 20  # bytes at each end of a local file that identify it


def load(
    module: nn.Module,
    name: str,
    cfg: TeacherConfig,
    row: Model | None,
    weights_dir: str | None,
) -> dict[str, str]:
    """Load a teacher's weights into its network.

    Args:
        module: the network, with random parameters.
        name: the teacher's name in the config.
        cfg: its config: `weights` is hub, local or random.
        row: its registry row, if it has one.
        weights_dir: folder of local weights, one subfolder per teacher.

    Returns:
        where they are from: `weights` and `revision`.

    Raises:
        ConfigError: there is no place to load from, or access is not granted.
        ArtifactError: the file is damaged, or of another model.
    """
    if cfg.weights == "random":
        return {"weights": "random", "revision": f"seed {cfg.seed}"}
    if cfg.weights == "local":
        path = local_file(name, row, weights_dir)
        fill(module, path, row.layout if row else "timm")
        return {"weights": "local", "revision": file_identity(path)}
    path, commit = hub_file(name, cfg, row, module)
    if row and row.sha256:
        check_hash(path, row)
    fill(module, path, row.layout if row else "timm")
    return {"weights": "hub", "revision": commit}


def identity(name: str, cfg: TeacherConfig, row: Model | None, weights_dir: str | None) -> str:
    """What tells a teacher's local weights from others, cheaply; empty for the hub and random.

    Raises:
        ConfigError: the local weights are missing.
    """
    if cfg.weights != "local":
        return ""
    return file_identity(local_file(name, row, weights_dir))


def file_identity(path: Path) -> str:
    """Size and a digest of both ends of a file: 16 hex digits."""
    size = path.stat().st_size
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        found.update(file.read(ENDS))
        file.seek(max(0, size - ENDS))
        found.update(file.read(ENDS))
    return found.hexdigest()[:16]


def local_file(name: str, row: Model | None, weights_dir: str | None) -> Path:
    """A teacher's weights file below `weights_dir`.

    Raises:
        ConfigError: the folder is not set or missing, or has no file or several candidates.
    """
    if not weights_dir:
        raise ConfigError(
            f"extraction.teachers.{name}.weights is local, but extraction.weights_dir is not set"
        )
    folder = Path(weights_dir).expanduser() / name
    if not folder.is_dir():
        raise ConfigError(
            f"extraction.teachers.{name}: no folder {folder}; put the teacher's weights file there "
            f"({', '.join(WEIGHT_SUFFIXES)})"
        )
    for wanted in ([row.file] if row and row.file else []) + list(HUB_FILES):
        if (folder / Path(wanted).name).is_file():
            return folder / Path(wanted).name
    files = sorted(p for p in folder.iterdir() if p.suffix in WEIGHT_SUFFIXES)
    if len(files) != 1:
        raise ConfigError(
            f"extraction.teachers.{name}: {folder} has {len(files)} weights files "
            f"({', '.join(p.name for p in files) or 'none'}); leave one, or name it "
            f"{HUB_FILES[0]}"
        )
    return files[0]


def hub_file(
    name: str, cfg: TeacherConfig, row: Model | None, module: nn.Module
) -> tuple[Path, str]:
    """Download a teacher's weights from the hub, or find them in its cache.

    Returns:
        the file, and the commit it is from.

    Raises:
        ConfigError: the model is not on the hub, access is not granted, or there is no network.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
    )

    repo, files = _hub_place(row, module)
    if not repo:
        url = f" Its weights are at {row.url}." if row and row.url else ""
        raise ConfigError(
            f"teacher `{name}` has no weights on the hub.{url} Put them into "
            f"extraction.weights_dir/{name}/ and set weights: local, or weights: random"
        )
    revision = cfg.revision or (row.revision if row else "main")
    for file in files:
        try:
            path = Path(hf_hub_download(repo, file, revision=revision))
        except GatedRepoError:
            raise ConfigError(
                f"teacher `{name}`: access to {repo} is not granted. Ask for it at "
                f"https://huggingface.co/{repo}, then set HF_TOKEN or run `hf auth login`"
            ) from None
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):
                raise _unreachable(name, repo, revision, error) from None
            continue
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise _unreachable(name, repo, revision, error) from None
        return path, _commit(path, revision)
    raise ConfigError(f"teacher `{name}`: {repo} at {revision} has none of {', '.join(files)}")


def _unreachable(name: str, repo: str, revision: str, error: Exception) -> ConfigError:
    said = " ".join(str(error).split())
    return ConfigError(
        f"teacher `{name}`: {repo} at revision {revision} cannot be downloaded ({said}). Without "
        f"network, put the file into extraction.weights_dir/{name}/ and set weights: local"
    )


def check_hash(path: Path, row: Model | None) -> str:
    """The SHA-256 of a weights file, compared with the row's if it has one.

    Raises:
        ArtifactError: they differ.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if row and row.sha256 and found != row.sha256:
        raise ArtifactError(
            f"{path}: has SHA-256 {found}, the registry expects {row.sha256}; download it again, "
            "or check the revision"
        )
    return found


def fill(module: nn.Module, path: Path, layout: str) -> None:
    """Load a checkpoint file into a network, strictly.

    Raises:
        ArtifactError: the file is damaged; or a parameter is missing, left over, or of another
            shape: the first of each are listed.
    """
    state = read_checkpoint(path)
    try:
        state = convert(state, layout, module)
    except KeyError as error:
        raise ArtifactError(f"{path}: not a checkpoint of layout `{layout}`: no {error}") from None
    wanted = module.state_dict()
    problems = [
        *(f"missing {k}" for k in sorted(wanted.keys() - state.keys())),
        *(f"left over {k}" for k in sorted(state.keys() - wanted.keys())),
        *(
            f"{k} is {tuple(state[k].shape)}, the model has {tuple(wanted[k].shape)}"
            for k in sorted(wanted.keys() & state.keys())
            if state[k].shape != wanted[k].shape
        ),
    ]
    if problems:
        more = f", and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ArtifactError(f"{path}: of another model: {'; '.join(problems[:8])}{more}")
    module.load_state_dict(state, strict=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents: safetensors, or torch's with `weights_only`.

    Raises:
        ArtifactError: it is damaged or holds anything but tensors and plain values.
    """
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
        raise ArtifactError(f"{path}: not a readable checkpoint ({error})") from None


def _hub_place(row: Model | None, module: nn.Module) -> tuple[str, tuple[str, ...]]:
    if row is not None:
        return row.hf_id, (row.file,) if row.file else HUB_FILES
    given: Mapping[str, Any] = getattr(module, "pretrained_cfg", None) or {}
    file = given.get("hf_hub_filename")
    return str(given.get("hf_hub_id") or ""), (file,) if file else HUB_FILES


def _commit(path: Path, revision: str) -> str:
    """The commit in the hub's cache path, `…/snapshots/<commit>/…`."""
    parts = path.parts
    if "snapshots" in parts:
        return parts[parts.index("snapshots") + 1]
    return revision


def count_parameters(module: nn.Module) -> int:
    """Parameters, buffers not counted."""
    return sum(p.numel() for p in module.parameters())
