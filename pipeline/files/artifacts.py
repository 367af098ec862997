"""Files that are either whole or absent: atomic writes, canonical JSON, verified HDF5.

Every writer here makes a temporary file next to the target, flushes it to disk and renames it into
place, so that a crash at any moment leaves the old file or the new one. HDF5 files carry the
fingerprint of what made them; `is_complete` opens and checks one before it is reused.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError
from pipeline.files.hdf5 import read_hdf5, write_hdf5
from pipeline.runtime.machine_errors import is_machines

FINGERPRINT = "fingerprint"
COMPLETE = "complete"
# A temporary file says who writes it: two machines may have the same process number.
_TEMPORARY = re.compile(r"\..+\.(?P<host>[^/]*)-(?P<pid>\d+)-[0-9a-f]{8}\.tmp(\.\w+)?")
ABANDONED_SECONDS = 86_400


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """A temporary path next to `target` that replaces it when the block ends without an error."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = target.with_name(f".{target.name}.{writer}.tmp{target.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):  # the error that ended the block says more
            temporary.unlink(missing_ok=True)


def sweep(*folders: Path) -> None:
    """Take away the temporary files of writers that were killed.

    Those of living processes are left alone, and those of other machines, which cannot be asked,
    for a day. Called once per stage and folder, since listing a folder of a cohort costs.
    """
    here = socket.gethostname()
    for folder in folders:
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                match = _TEMPORARY.fullmatch(entry.name)
                if match is None:
                    continue
                with contextlib.suppress(OSError):  # gone meanwhile, or not ours to take away
                    if match["host"] == here:
                        abandoned = not _lives(int(match["pid"]))
                    else:
                        abandoned = time.time() - entry.stat().st_mtime > ABANDONED_SECONDS
                    if abandoned:
                        Path(entry.path).unlink()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def write_json(path: str | Path, data: Any) -> None:
    """Canonical JSON: sorted keys, two-space indent, no NaN. Equal data gives equal bytes."""
    write_text(path, json.dumps(data, sort_keys=True, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        ArtifactError: the file is missing or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; run the stage that makes it") from None
    except ValueError as error:
        raise ArtifactError(f"{path}: not valid JSON ({error}); delete it and run again") from None


@contextlib.contextmanager
def new_hdf5(target: str | Path, attributes: Mapping[str, Any]) -> Iterator[Any]:
    """An open HDF5 file that becomes `target` when the block ends without an error.

    Args:
        target: the file to make.
        attributes: root attributes, which must include `fingerprint`. `complete` is set last.
    """

    if FINGERPRINT not in attributes:
        raise ValueError("an artefact needs the fingerprint of what made it")
    with atomic_path(target) as temporary, write_hdf5(temporary, "v110") as file:
        for key, value in attributes.items():
            file.attrs[key] = value
        yield file
        file.attrs[COMPLETE] = True


def is_complete(path: str | Path, fingerprint: str) -> bool:
    """Whether an HDF5 artefact exists, opens, is complete and was made from `fingerprint`.

    Raises:
        OSError: the disk does not answer, which says nothing of the file.
    """

    try:
        with read_hdf5(path) as file:
            return bool(file.attrs.get(COMPLETE)) and file.attrs.get(FINGERPRINT) == fingerprint
    except OSError as error:
        if is_machines(error):
            raise
        return False
