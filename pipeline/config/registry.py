"""What the files of a folder register, read without running them.

A class says its name and, by the keyword-only arguments of its constructor, its keys in the config:

    @register("gem")
    class GeM(Aggregator):
        '''Generalised mean of each feature over the tiles, then a linear layer.

        Source: Radenović, Tolias, Chum 2019.

        Args:
            power: where training starts; 1 is the mean, a large one the maximum.
        '''

        def __init__(self, dim: int, out: int, *, power: Positive = 3.0) -> None:

A function, such as a loss, says them by its own keyword-only arguments. A file that is dropped into
the folder is found; there is no list of names elsewhere. The file is parsed and not imported, since
it needs torch, which the reading of a config must not wait for. A type of an argument is a plain
one, a `Literal`, or one of those that `pipeline.config.section` names.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import typing
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config import section

T = TypeVar("T", bound=Callable[..., Any])
Definition = ast.ClassDef | ast.FunctionDef
TYPES = {**vars(typing), **vars(section)}  # what the type of an argument may be made of


def register(name: str, *, published: tuple[str, ...] = (), task: str = "") -> Callable[[T], T]:
    """Mark a class or a function as what the config calls `name`.

    Args:
        name: in the config.
        published: keys that `faithful: true` leaves no choice of, since the published form has its
            own; they are then not accepted.
        task: of a loss: the type of tasks that it is for.
    """

    def mark(registered: T) -> T:
        return registered

    return mark


@dataclasses.dataclass(frozen=True)
class Key:
    """An argument of what is registered, which is a key of the config.

    Attributes:
        name: of the argument.
        type: its annotation.
        default: its default.
        meaning: what the docstring says of it.
    """

    name: str
    type: Any
    default: Any
    meaning: str


@dataclasses.dataclass(frozen=True)
class Entry:
    """A registered class or function.

    Attributes:
        name: in the config.
        module: where it is.
        attribute: its name there.
        summary: what it is, the first paragraph of its docstring.
        source: where it was published.
        keys: its own keys.
        published: the keys that `faithful: true` leaves no choice of.
        task: of a loss: the type of tasks that it is for.
    """

    name: str
    module: str
    attribute: str
    summary: str
    source: str
    keys: tuple[Key, ...]
    published: tuple[str, ...]
    task: str

    def load(self) -> Any:
        """The class or the function."""
        return getattr(importlib.import_module(self.module), self.attribute)

    @property
    def defaults(self) -> dict[str, Any]:
        """Its keys with their defaults."""
        return {key.name: key.default for key in self.keys}


@lru_cache(maxsize=8)
def entries(package: str) -> dict[str, Entry]:
    """What the files of a package register, by name, in the order of the names.

    Raises:
        TypeError: a registration cannot be used; the message names the file and what is wrong.
    """
    found: dict[str, Entry] = {}
    folders = map(Path, importlib.import_module(package).__path__)
    for path in sorted(path for folder in folders for path in folder.glob("*.py")):
        for entry in _in_file(path, f"{package}.{path.stem}"):
            if entry.name in found:
                other = found[entry.name].module
                raise TypeError(f"{path}: `{entry.name}` is registered in {other} already")
            found[entry.name] = entry
    return dict(sorted(found.items()))


def _in_file(path: Path, module: str) -> list[Entry]:
    tree = ast.parse(path.read_text(), filename=str(path))
    found = []
    for node in tree.body:
        if isinstance(node, Definition):
            marks = [call for call in node.decorator_list if _is_register(call)]
            found += [_entry(node, typing.cast(ast.Call, mark), path, module) for mark in marks]
    return found


def _is_register(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == register.__name__
    )


def _entry(node: Definition, mark: ast.Call, path: Path, module: str) -> Entry:
    where = f"{path}:{node.lineno}: {node.name}"
    try:
        (name,) = (ast.literal_eval(value) for value in mark.args)
        given = {str(word.arg): ast.literal_eval(word.value) for word in mark.keywords}
    except ValueError:
        raise TypeError(f"{where}: `register` takes a written name, no expression") from None
    doc = inspect.cleandoc(ast.get_docstring(node) or "")
    source = re.search(r"^Source: (.*?)(?:\n\n|\Z)", doc, re.MULTILINE | re.DOTALL)
    if not doc or source is None:
        raise TypeError(f"{where}: its docstring must say what it is, and `Source: …` where from")
    keys = tuple(_keys(node, doc, where))
    published = tuple(given.get("published", ()))
    unknown = set(published) - {key.name for key in keys}
    if unknown:
        raise TypeError(f"{where}: published={published}: no argument `{min(unknown)}`")
    return Entry(
        name=name,
        module=module,
        attribute=node.name,
        summary=_line(doc.split("\n\n")[0]),
        source=_line(source[1]),
        keys=keys,
        published=published,
        task=given.get("task", ""),
    )


def _keys(node: Definition, doc: str, where: str) -> list[Key]:
    """The keyword-only arguments of the function, or of the class's own constructor."""
    makers = [node] if isinstance(node, ast.FunctionDef) else _constructors(node)
    if not makers:
        raise TypeError(f"{where}: it needs a constructor of its own, whose arguments are its keys")
    arguments = makers[0].args
    meanings = _meanings(doc)
    found = []
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        name = argument.arg
        if argument.annotation is None or default is None or name not in meanings:
            raise TypeError(
                f"{where}: `{name}` is a key of the config: it needs a type, a default and a line "
                "under `Args:`"
            )
        try:
            kind = eval(ast.unparse(argument.annotation), dict(TYPES))
            value = ast.literal_eval(default)
        except (NameError, ValueError) as error:
            raise TypeError(
                f"{where}: `{name}`: a type must be plain or one of pipeline.config.section, a "
                f"default a plain value ({error})"
            ) from None
        found.append(Key(name, kind, value, meanings[name]))
    return found


def _constructors(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]


def _meanings(doc: str) -> dict[str, str]:
    """Argument → what the `Args:` of a docstring say of it."""
    block = doc.partition("\nArgs:\n")[2].split("\n\n")[0]
    items = re.split(r"^    (?=\S)", block, flags=re.MULTILINE)[1:]
    return {
        name.strip(): _line(meaning)
        for names, _, meaning in (item.partition(":") for item in items)
        for name in names.split(",")
    }


def _line(text: str) -> str:
    return " ".join(text.split())
