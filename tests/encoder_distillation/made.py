"""A small cohort seen by two teachers, and a student of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config.encoder_distillation import EncoderDistillationConfig as Section
from pipeline.config.encoder_distillation import EncoderDistillationJob, EncoderStudent
from pipeline.config.extraction import TeacherConfig
from pipeline.contracts import ledger
from pipeline.encoder_distillation import stage
from pipeline.files.artifacts import new_hdf5
from tests.extraction.made import grid_coords, tissue, write_svs, write_tiles

TINY = TeacherConfig(source="timm", model="resnet10t", weights="random", seed=1, input_px=32)
CFG = EncoderStudent.model_validate(
    {
        "encoder": TINY.model_dump(),
        "pool": "all",
        "head_width": 8,
        "weights": "balanced",
        "teacher_dropout": 0.3,
        "course": {
            "steps": 6, "batch_size": 8, "tiles_per_visit": 4, "validate_every": 2,
            "held_out_tiles": 16, "learning_rate": 0.001,
        },
    }
)  # fmt: skip


def results_folder(where: Path) -> Path:
    """Six slides of as many cases, seen by two teachers; the last two cases have no label."""
    records: dict[str, list[ledger.Record]] = {"tiles": [], "a": [], "b": []}
    rows = []
    for number in range(6):
        slide = f"s{number}"
        path = write_svs(where / f"{slide}.svs", tissue(128, 96, number))
        coords = grid_coords(128, 96, 32)
        write_tiles(where / "tiles" / f"{slide}.h5", coords)
        records["tiles"].append(ledger.Record(slide, "tiling", "ok", path=f"tiles/{slide}.h5"))
        rng = np.random.default_rng(number)
        for teacher, width in (("a", 4), ("b", 12)):
            file = where / "features" / teacher / f"{slide}.h5"
            features = rng.normal(size=(len(coords), width)) + coords[:, :1] / 40
            with new_hdf5(file, {"fingerprint": "f"}) as out:
                out.create_dataset("features", data=features.astype(np.float16))
                out.create_dataset("coords", data=coords)
            records[teacher].append(
                ledger.Record(
                    slide, f"extraction/{teacher}", "ok", path=f"features/{teacher}/{slide}.h5"
                )
            )
        label = "" if number > 3 else "x"
        rows.append({"slide_id": slide, "case_id": f"c{number}", "path": str(path), "chunk": 0,
                     "grade": label})  # fmt: skip
    for folder, found in records.items():
        place = "tiles" if folder == "tiles" else f"features/{folder}"
        ledger.write_manifest(where / place / "manifest/0.json", folder, "f", found)
    pd.DataFrame(rows).to_parquet(where / "slides.parquet")
    return where


def job_of(cfg: EncoderStudent = CFG, **more: object) -> EncoderDistillationJob:
    facts = {
        "a": {"title": "A", "licence": "MIT", "restricted": False},
        "b": {"title": "B", "licence": "CC-BY-NC-ND 4.0", "restricted": True},
    }
    return EncoderDistillationJob(
        encoder_distillation=Section(students={"small": cfg}),
        **({"teachers": {"a": "a", "b": "b"}, "facts": facts} | more),  # type: ignore[arg-type]
    )


def run(root: Path, name: str = "small", job: EncoderDistillationJob | None = None) -> Path:
    stage.run(job=job or job_of(), root=root, teacher=name, workers=1, device="cpu")
    return root / "teachers" / name
