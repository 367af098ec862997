"""`folds:`, how the cases are split."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config.section import Section
from pipeline.config.tasks import TaskConfig


class FoldsConfig(Section):
    k: int = Field(5, ge=2, le=50)
    validation_fraction: float = Field(0.2, gt=0, lt=0.9)
    group_by: Literal["case", "site"] = "case"
    inner: int | None = Field(None, ge=2, le=50)
    seed: int = 1
    import_dir: str | None = None
    allow_validation_is_test: bool = False


class FoldsJob(Section):
    """One task's folds.

    Attributes:
        cases: `mapping.cases`.
        imported: digest of the fold files in `folds.import_dir`; empty: none.
    """

    folds: FoldsConfig
    cases: str
    task: TaskConfig
    imported: str = ""
