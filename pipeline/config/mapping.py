"""`mapping:`, which cases have enough features."""

from __future__ import annotations

from typing import Literal

from pipeline.config.section import Fraction, Section


class MappingConfig(Section):
    max_failed_fraction: Fraction = 0.2
    max_empty_fraction: Fraction = 0.2
    cases: Literal["intersection", "union"] = "intersection"
