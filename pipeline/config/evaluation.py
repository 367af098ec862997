"""`evaluation:`, how the models are measured and compared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config.section import Section


class EvaluationConfig(Section):
    student: str = "shazam_v2"
    attribution: bool = True
    bootstraps: int = Field(1000, ge=50)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    cutoff: Literal["median", "tertiles"] = "median"
    horizons: tuple[float, ...] = ()
    seed: int = 0
