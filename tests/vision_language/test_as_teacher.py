"""A teacher with a text tower is a teacher like any other: in fusions, students and the
distillation of an encoder. Its level `aligned`, which is for text alone, is read by none of them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config.extraction import ExtractionConfig, TeacherConfig
from pipeline.contracts.case_map import CaseMap, TeacherLevels, read_case_map, write_case_map
from pipeline.contracts.ledger import read_manifest
from pipeline.encoders.build import build, encode
from pipeline.encoders.registry import read_row
from pipeline.extraction import stage as extraction
from tests.encoder_distillation import made as distilled
from tests.training.conftest import results_folder
from tests.training.test_stage import train
from tests.vision_language.made import SMALL

LEVELS = ("low", "mid", "high")
MODELS: dict[str, dict[str, Any]] = {
    "single": {"kind": "single", "teacher": "spoken", "levels": LEVELS},
    "concat": {"kind": "concat", "levels": LEVELS},
    "mean": {"kind": "mean"},
    "linear": {"kind": "linear"},
    "shazam_v1": {"kind": "shazam_v1"},
    "shazam_v2": {"kind": "shazam_v2", "levels": LEVELS},
}
LONG = ("linear", "shazam_v1", "shazam_v2")


def teacher(where: Path) -> TeacherConfig:
    """A small CLIP with random weights."""
    path = where / "small.json"
    path.write_text(json.dumps({"model_cfg": SMALL}))
    return TeacherConfig(source="open_clip", model=str(path), weights="random", seed=3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Cases with a teacher more, whose features are those of random tiles."""
    root = results_folder(tmp_path)
    encoder = build("spoken", teacher(tmp_path), levels=(*LEVELS, "aligned"))
    mapping = read_case_map(root)
    generator = torch.Generator().manual_seed(0)
    cases: dict[str, dict[str, list[str]]] = {}
    for case, has in mapping.cases.items():
        name = f"features/spoken/{case}.h5"
        tiles = torch.randint(0, 255, (4, 16, 16, 3), dtype=torch.uint8, generator=generator)
        (root / name).parent.mkdir(exist_ok=True)
        with h5py.File(root / name, "w") as file:
            found = encode(encoder, tiles)
            for level, values in found.items():
                file["features" if level == "high" else level] = values.half().numpy()
            file.attrs["fingerprint"] = "x"
        cases[case] = {**has, "spoken": [name]}
    dims = {level: int(values.shape[1]) for level, values in found.items()}
    assert "aligned" in dims
    write_case_map(root, CaseMap({**mapping.teachers, "spoken": TeacherLevels(dims)}, cases))
    return root


@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=[pytest.mark.slow] * (m in LONG)) for m in MODELS]
)
def test_models_read_it_and_not_what_is_for_text(root: Path, model: str) -> None:
    first = train(root, MODELS[model], "kind")
    assert len(first[first["split"] == "test"]) == 24
    for meta in (root / "models/kind/model").rglob("meta.json"):
        facts = json.loads(meta.read_text())
        dims = facts["dims"][facts["teachers"].index("spoken")]
        assert set(dims) <= set(LEVELS) and "high" in dims
    _overwrite(root, "aligned")
    pd.testing.assert_frame_equal(train(root, MODELS[model], "kind"), first)
    _overwrite(root, "features")
    assert not np.allclose(train(root, MODELS[model], "kind")["prob_x"], first["prob_x"])


def _overwrite(root: Path, level: str) -> None:
    """Other numbers at one level, and nothing left of what was learned from the old ones."""
    shutil.rmtree(root / "models")
    rng = np.random.default_rng(0)
    for path in sorted((root / "features/spoken").glob("*.h5")):
        with h5py.File(path, "a") as file:
            file[level][:] = rng.normal(size=file[level].shape)


def test_an_encoder_learns_what_it_says(tmp_path: Path) -> None:
    """From features as the extraction stage leaves them."""
    root = distilled.results_folder(tmp_path)
    (root / "slides").mkdir()
    shutil.copy(root / "slides.parquet", root / "slides/0.parquet")
    out = root / "features/spoken/manifest/0.json"
    cfg = ExtractionConfig(teachers={"spoken": teacher(tmp_path)})
    extraction.run(
        cfg=cfg, teachers=["spoken"], versions={"spoken": "1"}, root=root, chunk=0, out=out,
        workers=1, device="cpu",
    )  # fmt: skip
    (first, *_) = read_manifest(out)
    with h5py.File(root / first.path) as file:
        assert {"features", "low", "mid", "aligned"} <= set(file)
        width = file["features"].shape[1]
    names = ("a", "spoken")
    facts = {n: {"title": n, "licence": "MIT", "restricted": False} for n in names}
    job = distilled.job_of(teachers={n: n for n in names}, facts=facts)
    folder = distilled.run(root, job=job)
    found = json.loads((folder / "facts.json").read_text())
    assert set(found["agreement"]) == set(names)
    curve = pd.read_csv(folder / "curve.csv")
    assert np.isfinite(curve["explained_spoken"]).all()
    assert np.isfinite(curve["loss_spoken"][1:]).all()  # of the start there is none
    assert read_row(folder).licence == "MIT" and width == 16
