"""Whether two results folders hold the same, and what of one was made again."""

from __future__ import annotations

import json
import re
from pathlib import Path

# What tells the time of its making, by file name: taken out before files are compared.
TIMES = {
    "meta.json": re.compile(rb'"(\w*seconds\w*|\w*memory\w*)": [\d.e+-]+'),
    "facts.json": re.compile(rb'"(seconds|waited)": [\d.e+-]+'),
    "out_of_fold.json": re.compile(rb'"seconds": [\d.e+-]+'),
    "report.html": re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC"),
}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by its path below the folder, without times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "jobs" not in path.parts:  # a record of each attempt
            data = path.read_bytes()
            times = TIMES.get(path.name)
            found[str(path.relative_to(folder))] = times.sub(b"", data) if times else data
    return found


def differences(expected: dict[str, bytes], found: dict[str, bytes]) -> list[str]:
    """Files that are missing, too many or of other content."""
    lines = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    lines += [f"left over {name}" for name in sorted(found.keys() - expected.keys())]
    shared = sorted(expected.keys() & found.keys())
    return lines + [f"differs {name}" for name in shared if expected[name] != found[name]]


def finished_pieces(folder: Path) -> dict[Path, tuple[int, int]]:
    """The pieces that a stage need not make twice: path -> (inode, time)."""
    pieces = [
        *folder.glob("resources/*/slides/*.svs"),
        *folder.glob("results/*/tiles/*.h5"),
        *folder.glob("results/*/features/*/*.h5"),
        *folder.glob("results/*/models/*/*/fold_*/seed_*/meta.json"),
        *folder.glob("results/*/models/*/*/fold_*/seed_*/out_of_fold.json"),
    ]
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in pieces
        if not path.name.startswith(".")
    }


def manifest(path: Path) -> dict[str, str]:
    """Slide -> status, of a chunk's manifest."""
    return {row["slide_id"]: row["status"] for row in json.loads(path.read_text())["slides"]}
