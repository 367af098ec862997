"""What a pre-training has come to: written by that stage, read by the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline.files.typed_json import read_typed, write_typed

FACTS = "facts.json"
CURVE = "curve.csv"
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


@dataclasses.dataclass(frozen=True)
class PretrainedFacts:
    """`teachers/<name>/facts.json`.

    Attributes:
        teacher: its name.
        control: it is an encoder as it starts, without any training.
        title: for people.
        method: how it learned.
        pool: which slides it saw: all of the cohort, or separate ones without labels.
        licence: of it.
        parameters: of the encoder.
        slides, cases, tiles: that it learned from.
        held_out: slides that it did not.
        steps: steps done.
        best_step: the step whose averages were kept.
        images: tiles seen, as often as they were.
        seconds: of the training, without validation.
        waited: seconds of these for which no tiles were ready.
        device: where it was trained.
        alarms: signs of a collapse.
        collapsed: an alarm ended the training, and the last sound step was kept.
        unreadable: tiles that could not be read.
        maps: slides of which there is a map of clusters.
    """

    teacher: str
    control: bool
    title: str
    method: str
    pool: str
    licence: str
    parameters: int
    slides: int = 0
    cases: int = 0
    tiles: int = 0
    held_out: int = 0
    steps: int = 0
    best_step: int = 0
    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    device: str = ""
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
