"""What decides that a result is stale: the config of its stage, and the code that the stage runs.

Snakemake sees neither a change inside an imported package nor a config key that is not in a rule's
params, so every rule carries two params made here: `cfg` (canonical JSON) and `code` (a digest of
the stage's static import closure, without comments and docstrings, plus the versions of the
libraries that decide its numbers). Standard library only: this is imported at every parse.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import json
import os
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.files.recall import Recall

PACKAGE = "pipeline"
ROOT = Path(__file__).resolve().parent.parent

# Files in a package that are data to its code: a change of them is a change of the code. The
# registry of teachers is not among them: a row is part of its own teacher's `cfg`, so that a new
# row makes no other teacher stale.
DATA_SUFFIXES = (".html", ".css")

# Libraries whose version changes a stage's numbers. An upgrade makes the stage stale.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "tiling": ("openslide-python", "tifffile", "imagecodecs", "opencv-python-headless"),
    "extraction": ("torch", "timm"),
    "training": ("torch",),
    "probing": ("scikit-learn",),
    "evaluation": ("scikit-learn", "scikit-survival", "lifelines"),
}


def digest(*parts: Any) -> str:
    """16 hex digits of the SHA-256 of the parts' canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stage_code(stage: str, *modules: str) -> str:
    """The code fingerprint of a stage: closure of `pipeline.<stage>.stage`, modules, libraries."""
    versions = {name: _version(name) for name in LIBRARIES.get(stage, ())}
    return digest(code_fingerprint(f"{PACKAGE}.{stage}.stage", *modules), versions)


def code_fingerprint(*modules: str) -> str:
    """Digest of the code that the modules import inside this package, found without running it.

    Comments, docstrings, formatting and file times do not count. Imports inside functions count.

    Raises:
        ModuleNotFoundError: a module is not in the package.
    """
    for name in modules:
        if _module_path(name) is None:
            raise ModuleNotFoundError(f"{name} is not a module of {PACKAGE}")
    return digest(sorted((name, _facts(name).content) for name in closure(*modules)))


def closure(*modules: str) -> set[str]:
    """The names of all package modules that the given ones import, themselves included."""
    seen: set[str] = set()
    todo = [name for name in modules if _module_path(name)]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += _facts(name).imports
    return seen


def export_package() -> None:
    """Let the processes that this one starts import this very package, wherever it lies."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys(os.pathsep.join(paths).split(os.pathsep))
    )


def versions(*names: str) -> dict[str, str]:
    """Installed versions by distribution name (`-` where one is not installed)."""
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "-"


def _module_path(name: str) -> Path | None:
    return _look(ROOT, name)


@lru_cache(maxsize=8192)
def _look(root: Path, name: str) -> Path | None:
    base = root.joinpath(*name.split("."))
    if (base / "__init__.py").is_file():
        return base / "__init__.py"
    file = base.with_suffix(".py")
    return file if file.is_file() else None


@dataclasses.dataclass(frozen=True)
class _Facts:
    """What a module contributes: the digest of its code and data, and what it imports."""

    content: str
    imports: tuple[str, ...]


def recall_code(recall: Recall) -> None:
    """Take what a module's text says from earlier parses; a text that is not known is parsed."""
    global _recall
    _recall = recall


_recall: Recall | None = None


@lru_cache(maxsize=1024)
def _facts(name: str) -> _Facts:
    path = _module_path(name)
    assert path is not None
    source = path.read_bytes()
    parsed = functools.partial(_parse, source, name, path)
    if _recall is None:
        tree, named = parsed()
    else:
        # `ast.dump` differs between versions of Python.
        key = f"{name} {sys.version_info[:2]} {hashlib.sha256(source).hexdigest()}"
        tree, named = _recall.answer(key, parsed)
    found = {m for m in named if _module_path(m) is not None}
    imports = (found | {name.rpartition(".")[0]}) - {""}
    content = [tree]
    if path.name == "__init__.py":
        data = sorted(p for p in path.parent.iterdir() if p.suffix in DATA_SUFFIXES)
        content += [p.name + hashlib.sha256(p.read_bytes()).hexdigest() for p in data]
    return _Facts(digest(content), tuple(sorted(imports)))


def _parse(source: bytes, name: str, path: Path) -> tuple[str, list[str]]:
    """Digest of a module's code, and the names in it that may be modules of the package."""
    tree = ast.parse(source)
    return _tree_digest(tree), _imports(tree, name, path)


def _imports(tree: ast.AST, name: str, path: Path) -> list[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return sorted({m for m in found if m == PACKAGE or m.startswith(PACKAGE + ".")})


def _tree_digest(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            if (
                body
                and isinstance(body[0], ast.Expr)
                and isinstance(body[0].value, ast.Constant)
                and isinstance(body[0].value.value, str)
            ):
                node.body = body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
