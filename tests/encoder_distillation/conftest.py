"""Students of a hundred tiles."""

from __future__ import annotations

import pytest

from pipeline.encoder_distillation import stage


@pytest.fixture(autouse=True)
def few_tiles_to_start_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny cohorts have a hundred tiles: to see these twenty times shows nothing more."""
    monkeypatch.setattr(stage, "REGRESSED", 128)
