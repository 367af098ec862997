"""Fabricates the files of a run: 40 cases, 46 slides, three teachers, three tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from pipeline.config.folds import FoldsJob
from pipeline.config.whole import Config
from pipeline.contracts import slide_warnings
from pipeline.contracts.cohort_facts import write_cohort_facts
from pipeline.contracts.ledger import Record, chunk_of, write_manifest
from pipeline.contracts.slide_warnings import SlideWarning
from pipeline.evaluation import stage as evaluation
from pipeline.files.parquet import write_table
from pipeline.folds import stage as folds
from pipeline.mapping import stage as mapping
from tests.contracts.test_cohort_facts import cohort_facts
from tests.report import fabricate_models

CASES = 40
TILE = 448
HOSTILE = "S<i>08&\"'"  # a slide id that would break the page if it were not escaped
ASSUMED = slide_warnings.as_facts([SlideWarning("scale_assumed", "0.5 µm/px was assumed")])
CLASSES = ("basal", "luminal", "<mixed>")

PLANTED = {"S02": "truncated", "S06": "no_mpp", "S30": "no one finds this"}
ORACLE = {"survival": {"c_index": 0.912}, "score": {"r2": 0.83}}

CONFIG: dict[str, Any] = {
    "cohort": {"name": "demo", "chunks": 2},
    "extraction": {
        "teachers": {
            "vit_tiny": {
                "source": "timm",
                "model": "vit_tiny_patch16_224",
                "weights": "random",
                "seed": 1,
            },
            "resnet10t": {"source": "timm", "model": "resnet10t", "weights": "random", "seed": 2},
            "convnext_atto": {
                "source": "timm",
                "model": "convnext_atto",
                "weights": "random",
                "seed": 3,
            },
        }
    },
    "folds": {"k": 2},
    "tasks": {
        "survival": {"type": "survival", "time": "time", "event": "event", "loss": "cox"},
        "subtype": {"type": "classification", "label": "subtype"},
        "score": {"type": "regression", "targets": ["score"]},
    },
    "training": {
        "models": {
            "single": {"kind": "single", "teacher": "each"},
            "concat": {"kind": "concat"},
            "shazam_v2": {"kind": "shazam_v2"},
        },
        "ablations": {
            "v2_no_distillation": {
                "kind": "shazam_v2",
                "distillation": {"weight": 0.0, "plain": 0.0},
            },
        },
    },
    "evaluation": {"bootstraps": 60},
    "report": {"title": "Shazam: the embedded cohort", "thumbnails": 12, "attention_cases": 4},
}


def results(config: Config, root: Path) -> None:
    """Write a whole results folder at `root`."""
    rng = np.random.default_rng(0)
    slides = _slides(rng)
    root.mkdir(parents=True)
    write_table(root / "slides.parquet", slides)
    write_cohort_facts(root, cohort_facts(oracle=ORACLE, planted_faults=PLANTED))
    tiling = _tiling(root, slides, rng)
    features = _features(config, root, slides, tiling)
    joined = mapping.join(
        teachers=list(config.extraction.teachers), root=root, tiling=tiling, features=features
    )
    mapping.run(cfg=config.mapping, joined=joined, root=root)
    mapping.check(cfg=config.mapping, joined=joined, root=root)
    cases = pd.read_parquet(root / "cases.parquet").query("complete")
    for name, task in config.tasks.items():
        job = FoldsJob(folds=config.folds, cases=config.mapping.cases, task=task)
        folds.run(job=job, root=root, task=name)
        fabricate_models.models(config, root, name, cases)
        evaluation.run(
            cfg=config.evaluation,
            task_name=name,
            task=task,
            models=list(config.model_specs()),
            root=root,
            controls=config.controls(),
        )
    fabricate_models.attention(config, root, cases, rng)
    _benchmarks(config, root, rng)


def _slides(rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for i in range(CASES):
        for j in range(2 if i % 7 == 0 else 1):
            slide = HOSTILE if (i, j) == (8, 0) else f"S{i:02d}{'ab'[j] if i % 7 == 0 else ''}"
            rows.append(
                {
                    "slide_id": slide,
                    "case_id": f"C{i:02d}",
                    "path": f"resources/demo/slides/S{i:02d}.svs",
                    "mpp": np.nan,
                    "site": "",
                    "mask": "",
                    "coordinates": "",
                    "chunk": chunk_of(slide, 2),
                    "identity": "x",
                    "time": float(np.round(rng.exponential(30) + 1, 1)),
                    "event": int(rng.random() < 0.65),
                    "subtype": CLASSES[i % 3],
                    "score": float(np.round(rng.normal(), 3)),
                }
            )
    table = pd.DataFrame(rows)
    labels = ["time", "event", "subtype", "score"]
    table[labels] = table.groupby("case_id")[labels].transform("first")
    return table


def _tiling(root: Path, slides: pd.DataFrame, rng: np.random.Generator) -> list[Path]:
    records: dict[int, list[Record]] = {0: [], 1: []}
    for i, row in enumerate(slides.itertuples()):
        slide = str(row.slide_id)
        chunk = int(row.chunk)
        if i == 3:
            record = Record(slide, "tiling", "failed", "unreadable", "TIFF directory is truncated")
        elif i == 5:
            record = Record(slide, "tiling", "empty", "no_tissue", "no tissue was found")
        elif i == 7:
            record = Record(
                slide, "tiling", "failed", "no_mpp", "no microns per pixel in the file; give `mpp`"
            )
        else:
            record = _tiled(root, slide, i, rng)
        records[chunk].append(record)
    paths = []
    for chunk, found in records.items():
        paths.append(root / "tiles" / "manifest" / f"{chunk}.json")
        write_manifest(paths[-1], "tiling", "f", found)
    return paths


def _tiled(root: Path, slide: str, i: int, rng: np.random.Generator) -> Record:
    """One slide: tiles on a blob of tissue, a thumbnail and a QC picture."""
    mpp = 0.25 if slide.endswith("b") else 0.499
    columns, rows = 14 + i % 5, 10 + i % 4
    width, height = columns * TILE, rows * TILE
    gy, gx = np.mgrid[0:rows, 0:columns]
    blob = ((gx - columns / 2) / columns) ** 2 + ((gy - rows / 2) / rows) ** 2
    inside = blob + rng.normal(0, 0.02, blob.shape) < 0.14
    coords = np.stack([gx[inside], gy[inside]], 1).astype(np.int32) * TILE
    path = root / "tiles" / f"{slide}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["coords"] = coords
        file.attrs["patch_size_level0"] = TILE
        file.attrs["level0_width"], file.attrs["level0_height"] = width, height
    scale = 600 / max(width, height)
    noise = np.kron(rng.integers(-26, 26, (rows * 3, columns * 3)), np.ones((12, 12)))
    tissue = np.kron(inside, np.ones((36, 36)))
    red = np.where(tissue, 214 + noise, 244)
    green = np.where(tissue, 150 + noise, 242)
    blue = np.where(tissue, 190 + noise, 245)
    picture = np.clip(np.stack([red, green, blue], -1), 0, 255).astype(np.uint8)
    image = Image.fromarray(picture).resize((round(width * scale), round(height * scale)))
    folder = root / "tiles" / "thumbnails"
    folder.mkdir(exist_ok=True)
    image.save(folder / f"{slide}.jpg", quality=70)
    draw = ImageDraw.Draw(image)
    for x, y in coords:
        box = [x * scale, y * scale, (x + TILE) * scale, (y + TILE) * scale]
        draw.rectangle(box, outline=(0, 114, 178))
    folder = root / "tiles" / "qc"
    folder.mkdir(exist_ok=True)
    image.save(folder / f"{slide}.jpg", quality=70)
    pen = 0.06 if i % 11 == 2 else 0.0
    return Record(
        slide,
        "tiling",
        "ok",
        path=f"tiles/{slide}.h5",
        facts={
            "n_tiles": len(coords),
            "width": width,
            "height": height,
            "mpp": mpp,
            "mpp_source": "openslide" if i % 9 else "tiff resolution",
            "backend": "openslide",
            "format": "aperio",
            "tissue_mm2": round(len(coords) * (TILE * mpp / 1000) ** 2, 2),
            "pen_fraction": pen,
            "blur_fraction": 0.03 if i % 13 == 4 else 0.0,
            slide_warnings.FACT: ASSUMED if i % 9 == 0 else [],
        },
    )


def _features(config: Config, root: Path, slides: pd.DataFrame, tiling: list[Path]) -> list[Path]:
    tiled = {r["slide_id"]: r for path in tiling for r in json.loads(path.read_text())["slides"]}
    paths = []
    for t, teacher in enumerate(config.extraction.teachers):
        folder = root / "features" / teacher
        (folder / "manifest").mkdir(parents=True)
        dims = {"low": 32 * (t + 1), "mid": 48 * (t + 1), "high": 64 * (t + 1)}
        for chunk in (0, 1):
            records = []
            for slide in slides.loc[slides["chunk"] == chunk, "slide_id"]:
                before = tiled[slide]
                stage = f"extraction/{teacher}"
                if before["status"] != "ok":
                    records.append(
                        Record(slide, stage, before["status"], before["kind"], before["reason"])
                    )
                    continue
                n = before["facts"]["n_tiles"]
                with h5py.File(folder / f"{slide}.h5", "w") as file:
                    file["features"] = np.zeros((1, 1), np.float16)
                    file.attrs["model_id"] = config.extraction.teachers[teacher].model or ""
                    file.attrs["weights"] = "random"
                    file.attrs["gflop_per_tile"] = f"{0.5 * (t + 1)}"
                records.append(
                    Record(
                        slide,
                        stage,
                        "ok",
                        path=f"features/{teacher}/{slide}.h5",
                        facts={"n_tiles": n, "dims": dims, "format": "trident"},
                    )
                )
            paths.append(folder / "manifest" / f"{chunk}.json")
            write_manifest(paths[-1], f"extraction/{teacher}", "f", records)
    return paths


def _benchmarks(config: Config, root: Path, rng: np.random.Generator) -> None:
    header = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    teachers, models = config.extraction.teachers, config.model_specs()
    files = ["cohort_synthesise", "cohort", "mapping", "tiling/0", "tiling/1"]
    files += [f"extraction/{t}/{chunk}" for t in teachers for chunk in (0, 1)]
    for task in config.tasks:
        files += [f"folds/{task}", f"evaluation/{task}"]
        files += [f"training/{task}/{model}" for model in models]
    for name in files:
        path = root / "benchmarks" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        s = float(rng.uniform(2, 30))
        path.write_text(
            header + f"{s:.4f}\t0:00:10\t{300 + 20 * s:.2f}\tNA\t-\t-\t0\t0\t90\t{s:.2f}\n"
        )
