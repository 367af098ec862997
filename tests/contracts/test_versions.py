"""Version numbers, read from the text of the modules that state them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import ROOT
from pipeline.contracts import versions

STATED = [
    path
    for path in sorted((ROOT / "pipeline").rglob("*.py"))
    if re.search(r"^VERSIONS?\b", path.read_text(), re.MULTILINE)
]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    versions.versions_in.cache_clear()
    yield tmp_path / "some.py"
    versions.versions_in.cache_clear()


@pytest.mark.parametrize("path", STATED, ids=lambda path: path.stem)
def test_what_is_read_from_the_text_is_what_the_module_has(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    found = versions.versions_in(name)
    module = importlib.import_module(name)
    stated = getattr(module, "VERSIONS", {}) | (
        {"": module.VERSION} if hasattr(module, "VERSION") else {}
    )
    assert found == stated
    assert all(isinstance(number, int) and number > 0 for number in found.values())


def test_a_history_may_stand_in_comments(module: Path) -> None:
    module.write_text(
        "import torch\n\n# 2: another seed.\nVERSION = 2  # of all\n\n"
        "VERSIONS = {\n    # 3: as published\n    'a': 3,\n    'b': 1,\n}\n\n\nX = 1\n"
    )
    assert versions.versions_in("some") == {"": 2, "a": 3, "b": 1}
    assert versions.version_of("some", "a") == 3


def test_a_version_that_is_not_stated_is_an_error(module: Path) -> None:
    module.write_text("X = 1\n")
    with pytest.raises(KeyError, match="some has no VERSION; see"):
        versions.version_of("some")
    with pytest.raises(KeyError, match=r"some has no VERSIONS\['a'\]"):
        versions.version_of("some", "a")
