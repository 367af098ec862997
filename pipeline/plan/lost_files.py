"""Per-slide files that are gone or were changed since the manifest that speaks of them.

Snakemake tracks the manifests alone, so that a deleted or damaged file would be seen only by the
job that reads it, hours later. One listing a folder, at each start, finds it: the chunk is planned
again, and its stage makes again what is not whole, and leaves the rest. Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from pipeline.contracts.ledger import read_manifest
from pipeline.errors import ArtifactError
from pipeline.files.recall import Recall, file_state

Listing = dict[str, list[int]]  # name -> size in bytes, time of the last change in ns


def lost_files(root: Path, manifests: Iterable[Path], recall: Recall) -> dict[Path, list[str]]:
    """The files of each manifest that are gone, or other than when they were first looked at.

    Args:
        root: the cohort's results folder.
        manifests: of tiling and extraction; those that are missing are made in any case.
        recall: what the files were like after the manifest was written. Without it a deleted file
            is still found, and a changed one is not.

    Returns:
        manifest -> files relative to `root`; manifests that lost nothing are left out.
    """
    look = cache(_listing)
    lost = {}
    for manifest in manifests:
        if not manifest.is_file():
            continue
        state, _ = file_state(manifest)  # it is renamed into place: a new one is another inode
        key = f"files of {state}"
        if key not in recall.known:
            wanted = _files(manifest)
            there = {p: look(root / p.parent).get(p.name) for p in map(Path, wanted or ())}
            gone = [str(path) for path, found in there.items() if found is None]
            gone += [str(manifest.relative_to(root))] if wanted is None else []
            known = {str(path): found for path, found in there.items()}
            recall.answer(key, known.copy, keep=not gone)
        else:
            known = recall.answer(key, dict)
            now = {file: look((root / file).parent).get(Path(file).name) for file in known}
            gone = [file for file, found in now.items() if found != known[file]]
        if gone:
            lost[manifest] = sorted(gone)
    return lost


def told(lost: dict[Path, list[str]], root: Path) -> list[str]:
    """A line for the terminal on each folder with lost files."""
    by_folder: dict[str, list[str]] = {}
    for files in lost.values():
        for file in files:
            by_folder.setdefault(str(Path(file).parent), []).append(file)
    return [
        f"{root / folder}: {len(files)} file(s) are gone or were changed since they were made, "
        f"e.g. {Path(files[0]).name}: their chunks are looked at again, and what is not whole is "
        f"made again."
        for folder, files in sorted(by_folder.items())
    ]


def _files(manifest: Path) -> list[str] | None:
    """The results' own files that a manifest names; None where it is damaged itself."""
    try:
        records = read_manifest(manifest)
    except ArtifactError:
        return None
    return [r.path for r in records if r.path and not Path(r.path).is_absolute()]


def _listing(folder: Path) -> Listing:
    try:
        with os.scandir(folder) as entries:
            stats = ((entry.name, entry.stat()) for entry in entries if entry.name.endswith(".h5"))
            return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats}
    except FileNotFoundError:
        return {}
