"""What a results folder holds, and what of it the same command would make again.

A per-slide file goes together with the manifests that speak of it: Snakemake then knows that it is
missing, and the next run that needs it makes it again. What cannot be made again is never listed:
the user's slides and imported features, tables, predictions' evaluation and the report.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.errors import UserError

# A temporary file of a job that still runs is younger than this: none writes a file for so long.
ABANDONED_SECONDS = 24 * 3600.0
LOCKS = Path(".snakemake") / "locks"


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the results that can go.

    Attributes:
        name: as the command line has it.
        files: what it consists of.
        size: bytes, of all of them.
        again: what it takes to have it again.
    """

    name: str
    files: tuple[Path, ...]
    size: int
    again: str


def parts(root: Path) -> list[Part]:
    """What of a results folder can be made again, the largest first.

    Raises:
        UserError: there is no such folder, or it is not a cohort's results.
    """
    if not (root / "slides").is_dir():
        raise UserError(f"{root}: not a results folder (no slides/); give results/<cohort>")
    found = [
        _part(f"features/{folder.name}", _files(folder), "extraction: GPU time; then what follows")
        for folder in sorted((root / "features").glob("*"))
        if any(folder.glob("*.h5"))
    ]
    found += [
        _part(folder.name, _files(folder), "tiling: reads the slides' overviews; then what follows")
        for folder in sorted(root.glob("tiles*"))
        if folder.is_dir()
    ]
    found.append(_part("models", _files(root / "models"), "training"))
    found.append(_part("attention", _files(root / "attention"), "python -m pipeline attention"))
    logs = [path for name in ("logs", "benchmarks", "jobs") for path in _files(root / name)]
    found.append(_part("logs", logs, "not at all: logs, timings and job records of past runs"))
    found.append(_part("temporary", _abandoned(root), "nothing: left by jobs that were killed"))
    return sorted((part for part in found if part.files), key=lambda part: -part.size)


def table(root: Path, found: Sequence[Part]) -> str:
    """The parts as text, with the size of the whole folder."""
    whole = sum(path.stat().st_size for path in _files(root))
    width = max([len(part.name) for part in found] + [5])
    lines = [f"{root}: {size(whole)} in all. What can go:"]
    lines += [
        f"  {part.name:<{width}}  {size(part.size):>9}  {len(part.files):>7} files"
        f"  to have it again: {part.again}"
        for part in found
    ]
    return "\n".join(lines)


def remove(root: Path, names: Iterable[str]) -> int:
    """Remove parts of a results folder.

    Args:
        root: the results folder.
        names: as `parts` names them; `features` stands for all teachers'.

    Returns:
        bytes freed.

    Raises:
        UserError: there is no such part, or a Snakemake works from the current folder.
    """
    if any(LOCKS.glob("*.lock")):
        raise UserError(f"{LOCKS.parent}: locked; a Snakemake works here. Wait for its end")
    known = {part.name: part for part in parts(root)}
    chosen: dict[str, Part] = {}
    for name in names:
        wanted = {k: p for k, p in known.items() if k == name or k.startswith(f"{name}/")}
        if not wanted:
            raise UserError(f"{root}: nothing called `{name}`; there is {', '.join(known)}")
        chosen |= wanted
    freed = 0
    for part in chosen.values():
        for path in _manifests_first(part.files):
            path.unlink(missing_ok=True)
        freed += part.size
    return freed


def size(count: float) -> str:
    """Bytes for people: `12.3 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _part(name: str, files: Iterable[Path], again: str) -> Part:
    found = tuple(files)
    return Part(name, found, sum(path.stat().st_size for path in found), again)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def _abandoned(root: Path) -> list[Path]:
    now = time.time()
    return [
        path
        for path in _files(root)
        if path.name.startswith(".")
        and ".tmp" in path.name
        and now - path.stat().st_mtime > ABANDONED_SECONDS
    ]


def _manifests_first(files: Iterable[Path]) -> list[Path]:
    """So that an interruption leaves files without a manifest, which are recognised, and never a
    manifest without its files, which would be believed."""
    return sorted(files, key=lambda path: (path.suffix != ".json", path))
