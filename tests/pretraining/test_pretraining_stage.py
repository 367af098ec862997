"""The stage on a few small slides: what it learns from and writes, and going on after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import TypeAdapter

from pipeline.config.extraction import TeacherConfig
from pipeline.config.pretraining import AnyTeacher, PretrainedTeacher, PretrainingConfig
from pipeline.config.pretraining import PretrainingJob as Job
from pipeline.contracts import ledger
from pipeline.contracts.pretrained import read_pretrained
from pipeline.encoders import registry
from pipeline.encoders.build import build, encode
from pipeline.errors import ConfigError, UserError
from pipeline.pretraining import stage
from pipeline.tile_training import trainer
from tests.extraction.made import grid_coords, tissue, write_svs, write_tiles

COURSE = {
    "steps": 6, "batch_size": 8, "tiles_per_visit": 4, "validate_every": 2,
    "held_out_tiles": 16, "learning_rate": 0.001, "held_out": 0.3,
}  # fmt: skip
HEADS: dict[str, dict[str, Any]] = {
    "clusiam": {"projection": 16, "hidden": 16, "clusters": 4},
    "dinov2": {"prototypes": 16, "hidden": 16, "bottleneck": 8, "small_crops": 2},
}


def config(method: str = "clusiam", **keys: Any) -> PretrainedTeacher:
    vit = method == "dinov2"
    encoder = {
        "source": "timm", "model": "vit_tiny_patch16_224" if vit else "resnet10t",
        "weights": "random", "input_px": 32,
    }  # fmt: skip
    given = {
        "method": method, "encoder": encoder, "course": COURSE, "maps": 2,
        "alarms": {"then": "go_on"}, "views": {"small_px": 16}, **HEADS[method], **keys,
    }  # fmt: skip
    found: PretrainedTeacher = TypeAdapter(AnyTeacher).validate_python(given)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return six_slides(tmp_path)


def six_slides(folder: Path) -> Path:
    """A results folder with six slides of as many cases; the last two have no label."""
    records, rows = [], []
    for number in range(6):
        slide = f"s{number}"
        path = write_svs(folder / f"{slide}.svs", tissue(128, 96, number))
        write_tiles(folder / "tiles" / f"{slide}.h5", grid_coords(128, 96, 32))
        records.append(ledger.Record(slide, "tiling", "ok", path=f"tiles/{slide}.h5"))
        rows.append(
            {"slide_id": slide, "case_id": f"c{number}", "path": str(path), "chunk": 0,
             "grade": "" if number > 3 else "x"}
        )  # fmt: skip
    ledger.write_manifest(folder / "tiles/manifest/0.json", "tiling", "f", records)
    pd.DataFrame(rows).to_parquet(folder / "slides.parquet")
    return folder


def run(root: Path, cfg: PretrainedTeacher, name: str = "mine", **keys: Any) -> Path:
    job = Job(pretraining=PretrainingConfig(teachers={"mine": cfg}), **keys)
    stage.run(job=job, root=root, teacher=name, workers=1, device="cpu")
    return root / "teachers" / name


@pytest.mark.parametrize("method", ["clusiam", "dinov2"])
def test_what_comes_out_is_a_teacher(root: Path, method: str) -> None:
    folder = run(root, config(method))
    row = registry.read_row(folder)
    settings = TeacherConfig(source="folder", path=str(folder), weights="local")
    encoder = build("mine", settings)
    tiles = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    found = encode(encoder, tiles)
    assert found["high"].shape == (3, row.dim) and encoder.facts["weights"] == "local"
    # Its own mean and deviation: the slides are pink.
    assert row.mean != (0.485, 0.456, 0.406) and row.mean[0] > row.mean[1]
    facts = read_pretrained(root, "mine")
    assert (facts.steps, facts.slides, facts.held_out, facts.images) == (6, 4, 2, 48)
    curve = pd.read_csv(folder / "curve.csv")
    assert curve["step"].tolist() == [2, 4, 6]
    assert {"loss", "spread", "rank", "found_again", "score"} <= set(curve)
    assert not (folder / "training.pt").exists()
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert kept[-1] == "00000006.safetensors" and len(kept) == 3


def test_clusters_are_painted_over_held_out_slides(root: Path) -> None:
    folder = run(root, config(maps=3))
    facts = read_pretrained(root, "mine")
    assert len(facts.maps) == 3
    for slide in facts.maps:
        picture = cv2.imread(str(folder / "clusters" / f"{slide}.png"))
        assert picture.shape[1] == 2 * 128 + 12
        squares = json.loads((folder / "clusters" / f"{slide}.geojson").read_text())["features"]
        assert len(squares) == 12
        kinds = {tuple(f["properties"]["classification"]["color"]) for f in squares}
        # Where a square is, its colour is: the tile's middle is nearer to it than the bare slide.
        ring = squares[0]["geometry"]["coordinates"][0]
        colour = np.array(squares[0]["properties"]["classification"]["color"][::-1])
        x, y = ring[0][0] + 16, ring[0][1] + 16
        bare, painted = picture[y, x].astype(float), picture[y, x + 128 + 12].astype(float)
        assert np.abs(painted - (0.55 * colour + 0.45 * bare)).max() < 3
        assert kinds


def test_a_kill_changes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(root, config(), "whole")
    job = Job(pretraining=PretrainingConfig(teachers={"mine": config()}))
    monkeypatch.setattr(trainer, "SAVE_SECONDS", -1.0)
    fit = stage.fit
    monkeypatch.setattr(stage, "fit", lambda *a, **k: fit(*a, **k, stop_after=3) and _die())
    with pytest.raises(KeyboardInterrupt):
        stage.run(job=job, root=root, teacher="parts", workers=1, device="cpu")
    monkeypatch.setattr(stage, "fit", fit)
    parts = run(root, config(), "parts")
    for name in ("model.safetensors", "curve.csv"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def _die() -> None:
    raise KeyboardInterrupt


def test_the_control_is_the_encoder_as_it_starts(root: Path) -> None:
    """The same weights and the same normalisation, so that only the training is between them."""
    trained, control = run(root, config()), run(root, config(), "mine_untrained", control=True)
    a, b = registry.read_row(trained), registry.read_row(control)
    assert (a.mean, a.std, a.kwargs) == (b.mean, b.std, b.kwargs)
    facts = read_pretrained(root, "mine_untrained")
    assert facts.control and facts.steps == 0 and "as it starts" in facts.title
    begun = build("x", config().encoder)
    made = build("x", TeacherConfig(source="folder", path=str(control), weights="local"))
    for one, other in zip(begun.module.parameters(), made.module.parameters(), strict=True):
        assert torch.equal(one, other)


def test_separate_slides_have_no_label(root: Path) -> None:
    run(root, config(pool="separate"), labels=("grade",))
    facts = read_pretrained(root, "mine")
    assert facts.slides + facts.held_out == 2
    with pytest.raises(UserError, match="every case has a label"):
        run(root, config(pool="separate"), labels=("slide_id",))


def test_a_training_that_is_never_sound_is_none(root: Path) -> None:
    bad = {"then": "go_back", "least_spread": 100.0, "after": 1.0}
    with pytest.raises(UserError, match="never sound"):
        run(root, config(alarms=bad))


def test_masking_needs_patches(root: Path) -> None:
    encoder = {"source": "timm", "model": "resnet10t", "weights": "random", "input_px": 32}
    with pytest.raises(ConfigError, match="needs a vision transformer"):
        run(root, config("dinov2", encoder=encoder))
