"""What became of one slide."""

from __future__ import annotations

import dataclasses

from pipeline.contracts.ledger import Record
from pipeline.prediction.familiarity import Doubt
from pipeline.prediction.slides import SlideGiven


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one slide.

    Attributes:
        slide: as it was given.
        record: of its tiling, or of the encoder that failed.
        doubts: the comparisons with the training cohort; empty where there is no prediction.
        seen: the models have learned from this slide.
        seconds: for its tiles and features; of a case's slides together.
    """

    slide: SlideGiven
    record: Record
    doubts: tuple[Doubt, ...] = ()
    seen: bool = False
    seconds: float = 0.0

    @property
    def unfamiliar(self) -> bool:
        return any(doubt.outside for doubt in self.doubts)
