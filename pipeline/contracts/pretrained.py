"""What a pre-training has come to: written by that stage, read by the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline.contracts.made_encoder import FACTS, MadeFacts
from pipeline.files.typed_json import read_typed, write_typed

MAPS = "clusters"


@dataclasses.dataclass(frozen=True)
class Raised:
    """An alarm.

    Attributes:
        step: when.
        name: features, rank, dominant or uniform.
        text: what was seen.
    """

    step: int
    name: str
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedFacts(MadeFacts):
    """`teachers/<name>/facts.json` of an encoder that learned without labels or teachers.

    Attributes:
        method: how it learned.
        slides, cases: that it learned from.
        held_out: slides that it did not.
        images: tiles seen, as often as they were.
        alarms: signs of a collapse.
        collapsed: an alarm ended the training, and the last sound step was kept.
        unreadable: tiles that could not be read.
        maps: slides of which there is a map of clusters.
    """

    method: str
    slides: int = 0
    cases: int = 0
    held_out: int = 0
    images: int = 0
    alarms: list[Raised] = dataclasses.field(default_factory=list)
    collapsed: bool = False
    unreadable: int = 0
    maps: list[str] = dataclasses.field(default_factory=list)


def write_pretrained(folder: Path, facts: PretrainedFacts) -> None:
    """Write what became of a training.

    Args:
        folder: `teachers/<name>`.
        facts: all of it.
    """
    write_typed(folder / FACTS, facts)


def read_pretrained(root: Path, teacher: str) -> PretrainedFacts:
    """What became of a training.

    Args:
        root: the results folder.
        teacher: its name.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    return read_typed(root / "teachers" / teacher / FACTS, PretrainedFacts)
