"""File names with accents: one letter may be one character or two. Standard library only.

Unicode has two spellings of `é`: one character (NFC: Windows, Linux, most sheets) or a letter and
an accent (NFD: names that come from a Mac). They look alike, and to a Linux disk they differ.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path


def as_on_disk(path: Path) -> Path:
    """The path as the disk spells it, where it is there in another spelling of the same letters.

    Args:
        path: a file or folder, whether or not it exists.

    Returns:
        an existing path of the same letters; `path` itself where there is none.
    """
    if str(path).isascii() or path.exists():
        return path
    found = Path(path.anchor)
    for part in path.parts[1 if path.anchor else 0 :]:
        spelt = _spelt(found, part)
        if spelt is None:
            return path
        found = found / spelt
    return found


def composed(name: str) -> str:
    """The name with each accented letter as one character, to compare names by."""
    return unicodedata.normalize("NFC", name)


def _spelt(folder: Path, name: str) -> str | None:
    """The name in that folder with these letters; None where there is none."""
    for form in (name, unicodedata.normalize("NFD", name), composed(name)):
        if (folder / form).exists():
            return form
    if name.isascii() or not folder.is_dir():
        return None
    alike = (p.name for p in folder.iterdir() if composed(p.name) == composed(name))
    return next(alike, None)
