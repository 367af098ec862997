"""`report:`, what the page shows."""

from __future__ import annotations

from pydantic import Field

from pipeline.config.section import Section


class ReportConfig(Section):
    title: str = "Shazam report"
    thumbnails: int = Field(12, ge=0)
    attention_cases: int = Field(4, ge=0)
