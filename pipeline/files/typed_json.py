"""JSON that one stage writes and another reads, as a dataclass: checked, and whole or absent."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ArtifactError
from pipeline.files.artifacts import read_json, write_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind")


def write_typed(path: str | Path, value: DataclassInstance) -> None:
    """Write a dataclass as canonical JSON, atomically."""
    write_json(path, dataclasses.asdict(value))


def read_typed(path: str | Path, kind: type[Kind]) -> Kind:
    """Read a dataclass that `write_typed` wrote.

    Raises:
        ArtifactError: the file is missing, is not JSON, or lacks a field or has one of another
            type; the message names the first such field.
    """
    return typed(read_json(path), kind, path)


def typed(data: Any, kind: type[Kind], path: str | Path) -> Kind:
    """Parsed JSON as a dataclass.

    Args:
        data: what the file holds.
        kind: the dataclass.
        path: the file, for messages.

    Raises:
        ArtifactError: a field is missing or has another type.
    """
    try:
        checked: Kind = _adapter(kind).validate_python(data)  # type: ignore[arg-type]
        return checked
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        more = "" if error.error_count() == 1 else f" (and {error.error_count() - 1} more)"
        raise ArtifactError(
            f"{path}: {field}: {first['msg']}{more}; it was made by another version or edited: "
            f"delete it and run again"
        ) from None


@cache  # making one takes longer than using it
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
