"""The extraction section: groups of teachers, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.extraction import ExtractionConfig
from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.encoders.tile_scales import groups
from pipeline.errors import ConfigError

TEACHERS = {
    "a": {"source": "timm", "model": "resnet10t"},
    "b": {"source": "timm", "model": "resnet10t"},
    "c": {"source": "timm", "model": "resnet10t"},
    "d": {"source": "import", "path": "features"},
}


def _parse(**extraction: Any) -> Config:
    return parse({"extraction": {"teachers": TEACHERS, **extraction}})


def test_groups() -> None:
    assert groups(_parse()) == [("a",), ("b",), ("c",)]
    assert groups(_parse(together=[["c", "a"]])) == [("c", "a"), ("b",)]


@pytest.mark.parametrize(
    ("together", "says"),
    [
        ([["a", "e"]], "extraction.together: `e` is not in extraction.teachers"),
        ([["a", "d"]], "`d` is not run on tiles"),
        ([["a", "b"], ["b", "c"]], "`b` is in it twice"),
    ],
)
def test_wrong_groups_are_refused(together: list[list[str]], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        _parse(together=together)


def test_levels_need_the_last() -> None:
    with pytest.raises(ConfigError, match="levels: `high`"):
        _parse(levels=["low", "mid"])
    assert ExtractionConfig(levels=("high",)).levels == ("high",)
