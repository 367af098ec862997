"""Whether a file is still the same one, without reading gigabytes. Standard library only."""

from __future__ import annotations

import hashlib
from pathlib import Path

ENDS = 65_536


def file_identity(path: str | Path) -> str:
    """A digest of a slide's size and of its first and last 64 KiB; `missing` where it is not.

    A `.mrxs` or `.vms` file is the door to other files, and a folder is a series: the names and
    sizes of those count too. A single `.dcm` is taken for one level of the series in its folder.
    """
    path = Path(path)
    if path.is_dir():
        return _digest(*_listing(path))
    if not path.is_file():
        return "missing"
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


def content_digest(path: str | Path) -> str:
    """A digest of the whole of a small file (a mask); `missing` where it is not."""
    path = Path(path)
    return _digest(path.read_bytes()) if path.is_file() else "missing"


def _listing(folder: Path, start: str = "") -> list[bytes]:
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name.startswith(start))
    return [f"{p.name}:{p.stat().st_size}".encode() for p in files]


def _digest(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()[:16]
