"""What the docstring of a public function says of its arguments."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import ROOT

PACKAGE = ROOT / "pipeline"
FEWEST = 3  # a function with fewer arguments may say it in a sentence
# Commands say it in the help of their options.
COMMANDS = PACKAGE / "commands"


def public(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Public functions and methods of public classes, with their names; constructors too."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, f"{node.name}.")
        if isinstance(node, ast.FunctionDef) and (
            node.name == "__init__" or not node.name.startswith("_")
        ):
            yield owner + node.name, node


def arguments(node: ast.FunctionDef) -> list[str]:
    """Names of its arguments, without that of the object or class itself."""
    given = node.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def documented(doc: str) -> set[str]:
    """The names that stand under `Args:`."""
    found: set[str] = set()
    lines = iter(doc.splitlines())
    for line in lines:
        if line.strip() == "Args:":
            break
    for line in lines:
        if not line.strip() or not line.startswith(" "):
            break
        name, colon, _ = line.partition(":")
        if colon and len(line) - len(line.lstrip()) == 4:
            found |= {part.strip(" *") for part in name.split(",")}
    return found


def missing(path: Path) -> list[str]:
    """`line name: arguments` of each function whose docstring leaves arguments out."""
    tree = ast.parse(path.read_text())
    classes = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
    found = []
    for name, node in public(tree.body):
        names = arguments(node)
        if len(names) < FEWEST:
            continue
        if (ast.get_docstring(node) or "").startswith("See `"):
            continue  # the same as what is named there
        holder = classes[name.split(".")[0]] if node.name == "__init__" else node
        left_out = [n for n in names if n not in documented(ast.get_docstring(holder) or "")]
        if left_out and not _inherited(name, node, classes):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno} {name}: {', '.join(left_out)}")
    return found


def _inherited(name: str, node: ast.FunctionDef, classes: dict[str, ast.ClassDef]) -> bool:
    """A method without a docstring fulfils its base class, whose docstring counts."""
    owner = classes.get(name.split(".")[0])
    return (
        "." in name
        and node.name != "__init__"
        and bool(owner and owner.bases)
        and not (ast.get_docstring(node))
    )


ROOMS = sorted(path for path in PACKAGE.iterdir() if path.is_dir() and path != COMMANDS)


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.name)
def test_each_argument_of_a_public_function_has_a_line(room: Path) -> None:
    wrong = [line for path in sorted(room.rglob("*.py")) for line in missing(path)]
    assert not wrong, "without a line under `Args:`:\n" + "\n".join(wrong)
