"""`teachers/<name>/facts.json` of an encoder that the workflow made: what all kinds share."""

from __future__ import annotations

import dataclasses

FACTS = "facts.json"
CURVE = "curve.csv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MadeFacts:
    """An encoder that the workflow made.

    Attributes:
        teacher: its name.
        control: it is an encoder as it starts, without any training.
        title: for people.
        pool: which slides it saw.
        licence: of it.
        parameters: of the encoder.
        tiles: that it learned from.
        steps: steps done.
        best_step: the step whose averages were kept.
        seconds: of the training, without validation.
        waited: seconds of these for which no tiles were ready.
        device: where it was trained.
    """

    teacher: str
    control: bool
    title: str
    pool: str
    licence: str
    parameters: int
    tiles: int = 0
    steps: int = 0
    best_step: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    device: str = ""
