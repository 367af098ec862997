"""A results folder with slides that went through tiling, and a config with a tiny teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pipeline.config.extraction import ExtractionConfig
from pipeline.contracts import ledger
from tests.extraction.made import TINY, grid_coords, write_tiles


@pytest.fixture
def cohort(tmp_path: Path) -> Callable[..., Path]:
    """A results folder with a chunk of slides that went through tiling."""

    def make(slides: dict[str, Path], skipped: dict[str, ledger.Record] | None = None) -> Path:
        root = tmp_path / "results"
        records = list((skipped or {}).values())
        for slide_id in slides:
            write_tiles(root / "tiles" / f"{slide_id}.h5", grid_coords(320, 200, 32))
            records.append(
                ledger.Record(slide_id, "tiling", "ok", path=f"tiles/{slide_id}.h5", facts={})
            )
        ledger.write_manifest(root / "tiles/manifest/0.json", "tiling", "f", records)
        everything = {**slides, **dict.fromkeys(skipped or {}, Path("nowhere.svs"))}
        rows = [
            {"slide_id": s, "case_id": s, "path": str(p), "chunk": 0} for s, p in everything.items()
        ]
        (root / "slides").mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_parquet(root / "slides" / "0.parquet")
        return root

    return make


@pytest.fixture
def config() -> ExtractionConfig:
    return ExtractionConfig.model_validate({"teachers": {"tiny": TINY}, "batch_size": 16})
