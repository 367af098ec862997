"""`cohort:`, which slides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.section import Fraction, Name, Section
from pipeline.config.tasks import TaskConfig

# What looks like a mistake in a sheet and may be right; the user says so.
Accept = Literal[
    "similar_case_ids",
    "float_ids",
    "shared_slides",
    "role_columns",
    "censorship_column",
    "long_times",
]


# How a covariate counts; `auto` is a number where all of its values are.
Covariate = Literal["auto", "number", "category"]


class SyntheticConfig(Section):
    """The embedded cohort: H&E-like slides drawn from a hidden state per case."""

    cases: int = Field(100, ge=12, le=1000)
    two_slide_fraction: Fraction = 0.2
    pen_fraction: Fraction = 0.08
    censoring: Fraction = 0.3
    slide_px: tuple[int, int] = (2000, 3200)
    broken_slides: bool = True
    seed: int = 7
    hospital: Literal["first", "second"] = "first"

    @model_validator(mode="after")
    def _sensible(self) -> SyntheticConfig:
        low, high = self.slide_px
        if not 256 <= low <= high <= 20_000:
            raise ValueError("slide_px: smallest and largest side, from 256 to 20000 pixels")
        if self.censoring > 0.95:
            raise ValueError("censoring: at most 0.95, or there is no event to learn from")
        return self


class ColumnsConfig(Section):
    """The sheet's column names for what the pipeline needs to know of a slide."""

    slide_id: str = "slide_id"
    case_id: str = "case_id"
    path: str = "path"
    mpp: str = "mpp"
    site: str = "site"
    mask: str = "mask"
    coordinates: str = "coordinates"


class CohortConfig(Section):
    name: Name = "demo"
    source: Literal["synthetic", "sheet"] = "synthetic"
    sheet: str | None = None
    slide_root: str | None = None
    columns: ColumnsConfig = ColumnsConfig()
    missing_files: Literal["error", "ledger"] = "error"
    accept: tuple[Accept, ...] = ()
    covariates: dict[str, Covariate] = Field(default_factory=dict)
    chunks: int = Field(2, ge=1, le=10_000)
    synthetic: SyntheticConfig = SyntheticConfig()

    @field_validator("covariates", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return dict.fromkeys(given, "auto") if isinstance(given, list | tuple) else given

    @model_validator(mode="before")
    @classmethod
    def _a_sheet_is_the_source(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("sheet") and "source" not in data:
            data = {**data, "source": "sheet"}
        return data

    @model_validator(mode="after")
    def _sheet_given(self) -> CohortConfig:
        if self.source == "sheet" and not self.sheet:
            raise ValueError("source: sheet needs `sheet:`, the path of the slide table")
        if self.source == "synthetic" and self.sheet:
            raise ValueError("sheet: not read with source: synthetic; remove one of the two")
        return self


class CohortJob(Section):
    """The sheet and its labels.

    Attributes:
        sheet: digest of all rows: a sheet that was copied with an old time is seen too.
    """

    cohort: CohortConfig
    tasks: dict[str, TaskConfig]
    sheet: str = ""
