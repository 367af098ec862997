"""What a distillation of an encoder has come to: written by that stage, read by the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline.contracts.made_encoder import FACTS, MadeFacts
from pipeline.files.typed_json import read_typed, write_typed


@dataclasses.dataclass(frozen=True)
class Slides:
    """How many slides it learned from, and how many were held out."""

    learned: int = 0
    held_out: int = 0


@dataclasses.dataclass(frozen=True)
class Cases:
    """The cases that it learned from, and those that were held out."""

    learned: list[str] = dataclasses.field(default_factory=list)
    held_out: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A slide, or a tile of it, that could not be learned from."""

    slide: str
    reason: str
    tile: int | None = None


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How alike a student and one teacher see held-out tiles.

    Attributes:
        explained: variance of the standardised features.
        cka_student, cka_before: centred kernel alignment of the student, and of what it started as.
        overlap_student, overlap_before: share of a tile's nearest tiles that both have.
    """

    explained: float
    cka_student: float
    cka_before: float
    overlap_student: float
    overlap_before: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilledFacts(MadeFacts):
    """`teachers/<name>/facts.json` of a student, or of what it starts as.

    Attributes:
        teachers: that it learned from.
        slides, cases: that it learned from, and that were held out.
        unreadable: tiles that were drawn and could not be read.
        left_out: slides that could not be learned from.
        agreement: teacher -> how alike it and the student are.
    """

    teachers: list[str] = dataclasses.field(default_factory=list)
    slides: Slides = Slides()
    cases: Cases = Cases()
    unreadable: list[LeftOut] = dataclasses.field(default_factory=list)
    left_out: list[LeftOut] = dataclasses.field(default_factory=list)
    agreement: dict[str, Agreement] = dataclasses.field(default_factory=dict)


def write_distilled(folder: Path, facts: DistilledFacts) -> None:
    """Write what became of a distillation.

    Args:
        folder: `teachers/<name>`.
        facts: all of it.
    """
    write_typed(folder / FACTS, facts)


def read_distilled(root: Path, teacher: str) -> DistilledFacts:
    """What became of a distillation.

    Args:
        root: the results folder.
        teacher: its name.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    return read_typed(root / "teachers" / teacher / FACTS, DistilledFacts)
