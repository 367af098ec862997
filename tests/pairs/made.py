"""A cohort of dark and pale slides whose tiles are captioned so, and tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from pipeline.config.pairs import PairsJob
from pipeline.contracts.ledger import read_manifest
from tests.extraction.made import tissue, write_svs

VISION = {"image_size": 16, "layers": 1, "width": 16, "patch_size": 8, "head_width": 8}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
CLIP: dict[str, Any] = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}
COCA: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": VISION
    | {
        "attentional_pool": "parallel",
        "attn_pooler_queries": 5,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
    "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True},
    "multimodal_cfg": TEXT | {"attn_pooler_heads": 2},
}


def results_folder(where: Path) -> Path:
    """Four slides of four cases, tiled, and a file of captions."""
    from pipeline.config.tiling import TilingConfig
    from pipeline.contracts.ledger import write_manifest
    from pipeline.tiling.stage import run_slide

    root = where / "results"
    (root / "tiles/manifest").mkdir(parents=True)
    cfg = TilingConfig(tile_px=32, target_mpp=1.0, min_tissue_fraction=0.0)
    rows, records, said = [], [], []
    for i in range(4):
        path = write_svs(where / f"s{i}.svs", tissue(256, 192, i))
        record = run_slide(cfg=cfg, versions="", slide=path, out_dir=root / "tiles")
        records.append(record)
        rows.append({"slide_id": f"s{i}", "case_id": f"c{i}", "path": str(path), "chunk": 0})
        with h5py.File(root / f"tiles/s{i}.h5") as file:
            for x, y in np.asarray(file["coords"]):
                text = "dark" if i % 2 else "pale"
                said.append({"slide_id": f"s{i}", "x": x, "y": y, "caption": text})
    pd.DataFrame(rows).to_parquet(root / "slides.parquet")
    pd.DataFrame(said).to_csv(root / "captions.csv", index=False)
    write_manifest(root / "tiles/manifest/0.json", "tiling", "x", records)
    assert read_manifest(root / "tiles/manifest/0.json")
    return root


def job(root: Path, where: Path, config: dict[str, Any], **cfg: Any) -> PairsJob:
    """What the stage is told, for a model from scratch."""
    model = where / "model.json"
    model.write_text(json.dumps({"model_cfg": config}))
    steps, held_out = cfg.pop("steps", 2), cfg.pop("held_out", 0.25)
    section = {
        "start": {"source": "open_clip", "model": str(model), "weights": "random"},
        "captions": "captions.csv",
        "objective": "coca" if "multimodal_cfg" in config else "clip",
        "decoded": 3,
        "course": {
            "steps": steps,
            "batch_size": 8,
            "tiles_per_visit": 2,
            "validate_every": steps // 2,
            "held_out": held_out,
            "held_out_tiles": 8,
            "learning_rate": 0.001,
            "ema": 0.5,
        },
        **cfg,
    }
    return PairsJob.model_validate(
        {
            "pairs": section,
            "weights_dir": None,
            "captions": "",
            "tiles": "tiles",
            "embedded": "",
            "slides": "",
        }
    )
