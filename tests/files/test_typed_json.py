"""A dataclass as JSON between two stages."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipeline.errors import ArtifactError
from pipeline.files.typed_json import read_typed, write_typed


@dataclasses.dataclass(frozen=True)
class Part:
    width: int


@dataclasses.dataclass(frozen=True)
class Whole:
    name: str
    parts: dict[str, Part]
    note: str | None = None


def test_what_was_written_is_read(tmp_path: Path) -> None:
    whole = Whole("a", {"x": Part(3)})
    write_typed(tmp_path / "whole.json", whole)
    assert read_typed(tmp_path / "whole.json", Whole) == whole


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "missing; run the stage that makes it"),
        ("{", "not valid JSON"),
        ("[]", "the whole: "),
        ('{"name": "a"}', "parts: Field required"),
        ('{"name": "a", "parts": {"x": {"width": "wide"}}}', "parts.x.width: .* integer"),
        ('{"parts": {"x": {}}}', r"name: Field required \(and 1 more\)"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "whole.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ArtifactError, match=rf"whole\.json: {said}"):
        read_typed(path, Whole)
