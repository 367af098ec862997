"""What the numeric modules compute, as one hash each, with the versions that they were seen at.

`python -m tests.numeric_modules` writes `numeric_modules.txt` again. A line whose hash changes and
whose version stands says that the change moves no number.

The hash is of the code without imports, comments, docstrings, annotations of functions, and texts
with a space in them, which are for people.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from pipeline import ROOT
from pipeline.contracts.versions import versions_in
from pipeline.runtime.stages import ROOMS

FILE = Path(__file__).with_suffix(".txt")
COMMAND = "python -m tests.numeric_modules"

# Folder or module -> the module whose version covers it, where it has none of its own. The most
# specific entry counts; what stands under none of them makes no numbers.
COVERED_BY = {
    **{room: f"{room}/stage" for room in ROOMS if room != "report"},
    **{f"config/{room}": f"{room}/stage" for room in ROOMS if room != "report"},
    "cohort/synthetic": "cohort/synthetic/painting",
    "slides": "tiling/stage",
    "encoders": "extraction/stage",
    "tile_reading": "extraction/stage",
    "tile_training": "encoder_distillation/stage",
    "pretraining": "pretraining/stage",
    "config/tile_training": "encoder_distillation/stage",
    "bags": "training/stage",
    "aggregators": "training/stage",
    "distillation": "distillation/shazam_v2",
    "contracts/columns": "mapping/stage",
    "contracts/folds": "folds/stage",
    "contracts/labels": "folds/stage",
    "contracts/ledger": "mapping/stage",
    "config/models": "training/stage",
    "config/tasks": "training/stage",
}


def found() -> dict[str, str]:
    """Module -> its line: name, versions, hash."""
    lines = {}
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        name = path.relative_to(ROOT / "pipeline").with_suffix("").as_posix()
        owner = covered_by(name)
        if owner and path.stat().st_size:
            stated = versions(name) or versions(owner)
            text = ",".join(f"{key}={n}" if key else f"{n}" for key, n in sorted(stated.items()))
            lines[name] = f"{name} {text} {code_hash(path.read_text())}"
    return lines


def recorded() -> dict[str, str]:
    """The same, as it was written down."""
    return {line.split()[0]: line for line in FILE.read_text().splitlines() if line.strip()}


def covered_by(name: str) -> str:
    """The module whose version covers one that has none; empty where there are no numbers."""
    places = [name, *(parent.as_posix() for parent in Path(name).parents)]
    return next((COVERED_BY[place] for place in places if place in COVERED_BY), "")


def versions(name: str) -> dict[str, int]:
    return versions_in("pipeline." + name.replace("/", "."))


def code_hash(source: str) -> str:
    """12 hex digits of what a module's text computes; the same under every version of Python."""
    return hashlib.sha256("\n".join(_plain(ast.parse(source))).encode()).hexdigest()[:12]


def _plain(node: ast.AST) -> Iterator[str]:
    """The tree as lines, without what computes nothing."""
    yield type(node).__name__
    for field, value in ast.iter_fields(node):
        if field in ("ctx", "type_comment", "returns", "kind", "type_params"):
            continue
        if field == "annotation" and isinstance(node, ast.arg):
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.Import | ast.ImportFrom) or _is_text(item) or _is_version(item):
                continue
            if isinstance(item, ast.AST):
                yield field
                yield from _plain(item)
            elif item is not None:
                yield f"{field} {item!r}"
    yield "end"


def _is_text(node: object) -> bool:
    """A sentence, or a statement that is one: a docstring."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.JoinedStr):
        return any(_is_text(part) for part in node.values)
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value


def _is_version(node: object) -> bool:
    """The numbers themselves stand in the line already."""
    return isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id in ("VERSION", "VERSIONS")
        for target in node.targets
    )


def main() -> None:
    old = recorded() if FILE.exists() else {}
    new = found()
    FILE.write_text("".join(f"{line}\n" for line in new.values()))
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, "").split(), new.get(name, "").split()
        if before and after and before[1] == after[1] and before != after:
            print(f"{name}: version {after[1]} stands: declared to move no number")
        elif before != after:
            print(f"{name}: {'gone' if not after else f'version {after[1]}'}")


if __name__ == "__main__":
    main()
