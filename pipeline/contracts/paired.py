"""What a training on captioned tiles has come to: written by that stage, read by the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline.files.typed_json import read_typed, write_typed

FACTS = "facts.json"
CURVE = "curve.csv"
WRITTEN = "written.csv"
START, LEARNED = "start", "learned"


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A tile that could not be read.

    Attributes:
        slide: its slide.
        tile: its place in the slide's tiles.
        reason: why.
    """

    slide: str
    tile: int
    reason: str


@dataclasses.dataclass(frozen=True)
class PairedFacts:
    """`teachers/<name>/facts.json`.

    Attributes:
        teacher: its name.
        objective: clip or coca.
        train: all or heads.
        parameters, trained_parameters: of the model, and those that the training changed.
        learned_cases, held_out_cases: no case is among both.
        learned_tiles, held_out_tiles: with captions.
        texts: different captions.
        captions_cut: captions longer than the text tower takes.
        captions_without_tiles: captions of places where no tile is.
        steps, best_step: steps done, and the one whose averages were kept.
        judged_tiles, judged_texts: held-out tiles that are looked at, and their captions.
        held_out: `start` and `learned` -> numbers on these: score, recall in both directions and
            of a CoCa the caption loss.
        chance: recall of an order at random, by the same names.
        unreadable: tiles that could not be read.
    """

    teacher: str
    objective: str
    train: str
    parameters: int
    trained_parameters: int
    learned_cases: list[str]
    held_out_cases: list[str]
    learned_tiles: int
    held_out_tiles: int
    texts: int
    captions_cut: int
    captions_without_tiles: int
    steps: int
    best_step: int
    judged_tiles: int
    judged_texts: int
    held_out: dict[str, dict[str, float]]
    chance: dict[str, float]
    unreadable: list[Unreadable] = dataclasses.field(default_factory=list)


def write_paired(folder: Path, facts: PairedFacts) -> None:
    """Write what became of a training.

    Args:
        folder: `teachers/<name>`.
        facts: all of it.
    """
    write_typed(folder / FACTS, facts)


def read_paired(root: Path, teacher: str) -> PairedFacts:
    """What became of a training.

    Args:
        root: the results folder.
        teacher: its name.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    return read_typed(root / "teachers" / teacher / FACTS, PairedFacts)
