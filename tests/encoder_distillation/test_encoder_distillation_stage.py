"""The stage on a few small slides: what it learns from and writes, and going on after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config.encoder_distillation import EncoderDistillationConfig as Section
from pipeline.config.encoder_distillation import EncoderDistillationJob, EncoderStudent
from pipeline.config.extraction import TeacherConfig
from pipeline.contracts import ledger
from pipeline.encoder_distillation import stage
from pipeline.encoder_distillation.targets import with_answers
from pipeline.encoders import registry
from pipeline.encoders.build import build, encode
from pipeline.errors import ConfigError, UserError
from pipeline.files.artifacts import new_hdf5
from pipeline.tile_training import trainer
from pipeline.tile_training.slides import tiled_slides
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


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six slides of as many cases, seen by two teachers; the last two cases have no label."""
    records: dict[str, list[ledger.Record]] = {"tiles": [], "a": [], "b": []}
    rows = []
    for number in range(6):
        slide = f"s{number}"
        path = write_svs(tmp_path / f"{slide}.svs", tissue(128, 96, number))
        coords = grid_coords(128, 96, 32)
        write_tiles(tmp_path / "tiles" / f"{slide}.h5", coords)
        records["tiles"].append(ledger.Record(slide, "tiling", "ok", path=f"tiles/{slide}.h5"))
        rng = np.random.default_rng(number)
        for teacher, width in (("a", 4), ("b", 12)):
            file = tmp_path / "features" / teacher / f"{slide}.h5"
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
        ledger.write_manifest(tmp_path / place / "manifest/0.json", folder, "f", found)
    pd.DataFrame(rows).to_parquet(tmp_path / "slides.parquet")
    return tmp_path


def _job(cfg: EncoderStudent = CFG, **more: object) -> EncoderDistillationJob:
    facts = {
        "a": {"title": "A", "licence": "MIT", "restricted": False},
        "b": {"title": "B", "licence": "CC-BY-NC-ND 4.0", "restricted": True},
    }
    return EncoderDistillationJob(
        encoder_distillation=Section(students={"small": cfg}),
        **({"teachers": {"a": "a", "b": "b"}, "facts": facts} | more),  # type: ignore[arg-type]
    )


def _run(root: Path, name: str = "small", job: EncoderDistillationJob | None = None) -> Path:
    stage.run(job=job or _job(), root=root, teacher=name, workers=1, device="cpu")
    return root / "teachers" / name


def test_a_student_becomes_a_teacher_with_its_teachers_licences(root: Path) -> None:
    folder = _run(root)
    row = registry.read_row(folder)
    assert row.derivative_restricted and row.licence == "MIT; CC-BY-NC-ND 4.0"
    settings = TeacherConfig(source="folder", path=str(folder))
    with pytest.raises(ConfigError, match="acknowledge_licence: true"):
        registry.check("mine", settings)
    settings = settings.model_copy(update={"acknowledge_licence": True})
    encoder = build("mine", settings)
    tiles = torch.randint(0, 255, (2, 40, 40, 3), dtype=torch.uint8)
    assert encode(encoder, tiles)["high"].shape == (2, 512)
    curve = pd.read_csv(folder / "curve.csv")
    assert curve["step"].tolist() == [2, 4, 6]
    assert {"explained_a", "explained_b", "weight_a", "loss_b", "score"} <= set(curve.columns)
    facts = json.loads((folder / "facts.json").read_text())
    assert set(facts["cases"]["learned"]).isdisjoint(facts["cases"]["held_out"])
    assert set(facts["agreement"]) == {"a", "b"}
    assert not (folder / "training.pt").exists()


def test_the_control_is_what_the_student_starts_as(root: Path) -> None:
    started = TeacherConfig(source="folder", path=str(_run(root, "c", _job(control=True))))
    tiles = torch.randint(0, 255, (2, 32, 32, 3), dtype=torch.uint8)
    mine, theirs = (encode(build("x", c), tiles)["high"] for c in (started, TINY))
    assert torch.equal(mine, theirs)


def test_killed_it_goes_on_to_the_same_bytes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _run(root, "whole")
    monkeypatch.setattr(trainer, "SAVE_SECONDS", -1.0)
    step, steps = trainer._Run.step, []

    def dies(run, ahead):  # type: ignore[no-untyped-def]
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(step(run, ahead))

    monkeypatch.setattr(trainer._Run, "step", dies)
    monkeypatch.setattr(stage, "digest", lambda *parts: "the same")
    with pytest.raises(KeyboardInterrupt):
        _run(root, "parts")
    assert not (root / "teachers/parts/facts.json").exists()
    monkeypatch.setattr(trainer._Run, "step", step)
    parts = _run(root, "parts")
    for file in ("model.safetensors", "curve.csv"):
        assert (parts / file).read_bytes() == (whole / file).read_bytes(), file


def test_a_separate_pool_is_of_cases_without_any_label(root: Path) -> None:
    cfg = CFG.model_copy(update={"pool": "separate"})
    facts = json.loads((_run(root, job=_job(cfg, labels=("gra*",))) / "facts.json").read_text())
    assert sorted(facts["cases"]["learned"] + facts["cases"]["held_out"]) == ["c4", "c5"]
    with pytest.raises(UserError, match="every case has a label"):
        _run(root, job=_job(cfg, labels=("case_id",)))


def test_answers_follow_their_tiles_whatever_the_files_order_and_gaps(root: Path) -> None:
    path = root / "features/b/s0.h5"
    with h5py.File(path) as file:
        features, coords = file["features"][()], file["coords"][()]
    order = np.random.default_rng(0).permutation(len(coords))[:-2]
    with new_hdf5(path, {"fingerprint": "f"}) as out:
        out.create_dataset("features", data=features[order])
        out.create_dataset("coords", data=coords[order])
    slides, answers = with_answers(tiled_slides(root), root, {"a": "a", "b": "b"})
    assert len(slides[0].grid.coords) == len(coords) - 2
    found = answers(0, np.array([3, 0]))
    for row, place in enumerate((3, 0)):
        at = np.flatnonzero((coords == slides[0].grid.coords[place]).all(1))[0]
        np.testing.assert_array_equal(found["b"][row].numpy(), features[at])
