"""Whether a file is still the same one, without reading gigabytes. Standard library only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import MachineError
from pipeline.files.recall import Recall, file_state

ENDS = 65_536
BLOCK = 1 << 24
MISSING, FORBIDDEN = "missing", "forbidden"
DOORS = (".mrxs", ".vms", ".vmu", ".dcm")  # a slide of several files


def file_identity(path: str | Path, recall: Recall | None = None) -> str:
    """A digest of a slide's size and of its first and last 64 KiB; `missing` where it is not.

    `forbidden` where there is no right to read it, which is that slide's own problem.

    A `.mrxs` or `.vms` file is the door to other files, and a folder is a series: the names and
    sizes of those count too. A single `.dcm` is taken for one level of the series in its folder.

    Args:
        path: the slide.
        recall: earlier answers, good as long as the file has not been touched. A slide of several
            files is looked at each time.
    """
    path = Path(path)
    if path.is_dir():
        return _digest(*_listing(path))
    if not path.is_file():
        return MISSING
    known = None if path.suffix.lower() in DOORS else recall
    try:
        return _recalled(path, _read_identity, known)
    except PermissionError:
        return FORBIDDEN


def check_unchanged(path: str | Path, known: str, thorough: bool = False) -> None:
    """Make sure that a slide is still the file that it was; asked around every reading of it.

    Args:
        path: the slide.
        known: its identity before.
        thorough: read all of it once: whether it is the disk that does not give its bytes.

    Raises:
        MachineError: it is gone, or another file stands in its place.
        OSError: the disk or network path does not answer.
    """
    now = file_identity(path)
    if now == MISSING != known:
        raise MachineError(
            f"{path}: was there when it was last looked at and is gone; see whether its disk is "
            "mounted, or take it out of the sheet"
        )
    if now != known:
        raise MachineError(
            f"{path}: was replaced by another file during the run; what was read of it is not used"
        )
    if thorough and Path(path).is_file() and now != FORBIDDEN:
        with Path(path).open("rb") as file:
            while file.read(BLOCK):
                pass


def _read_identity(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        parts = [str(size).encode(), file.read(ENDS)]
        if size > ENDS:
            file.seek(max(ENDS, size - ENDS))
            parts.append(file.read(ENDS))
    companion = path.with_suffix("")
    if path.suffix.lower() == ".mrxs" and companion.is_dir():
        parts += _listing(companion)
    elif path.suffix.lower() in (".vms", ".vmu"):
        parts += _listing(path.parent, path.stem)
    elif path.suffix.lower() == ".dcm":
        parts += _listing(path.parent)
    return _digest(*parts)


def content_digest(path: str | Path, recall: Recall | None = None) -> str:
    """A digest of the whole of a small file (a mask); `missing` where it is not."""
    path = Path(path)
    return _recalled(path, _read_content, recall) if path.is_file() else MISSING


def _recalled(path: Path, read: Callable[[Path], str], recall: Recall | None) -> str:
    if recall is None:
        return read(path)
    state, unchanging = file_state(path)
    return str(recall.answer(f"{read.__name__} {state}", lambda: read(path), keep=unchanging))


def _read_content(path: Path) -> str:
    return _digest(path.read_bytes())


def _listing(folder: Path, start: str = "") -> list[bytes]:
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name.startswith(start))
    return [f"{p.name}:{p.stat().st_size}".encode() for p in files]


def _digest(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()[:16]
