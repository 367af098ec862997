"""A result that moves has a raised version: numbers of each stage for tiny inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.cases import GOLDEN
from tests.golden.record import COMMAND, moved, recorded

RECORDED = recorded()


@pytest.mark.parametrize("name", GOLDEN)
def test_numbers_are_as_recorded_or_the_version_is_another(name: str, tmp_path: Path) -> None:
    golden, old = GOLDEN[name], RECORDED.get(name)
    assert old is not None, f"no numbers of {name} are recorded: run `{COMMAND}`"
    assert old["versions"] == golden.versions, (
        f"{name}: versions {golden.versions}, recorded with {old['versions']}: run `{COMMAND}`"
    )
    others = moved(golden, golden.make(tmp_path), old["numbers"])
    assert not others, (
        f"{name}: {len(others)} number(s) moved ({'; '.join(others[:5])}), with versions "
        f"{golden.versions} as before. If they should move, raise the version of what makes them, "
        f"say why in the comment above it and run `{COMMAND}`; else correct the code."
    )


def test_nothing_is_recorded_that_no_longer_is() -> None:
    assert set(RECORDED) == set(GOLDEN), f"run `{COMMAND}`"


def test_a_number_that_moves_or_appears_is_noticed() -> None:
    golden = GOLDEN["painting"]
    assert not moved(golden, {"a": 100.05}, {"a": 100.0})
    assert moved(golden, {"a": 101.0, "b": 1.0}, {"a": 100.0}) == [
        "a: 100.0 -> 101.0",
        "b: None -> 1.0",
    ]
