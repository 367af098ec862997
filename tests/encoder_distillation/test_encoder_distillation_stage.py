"""The stage on a few small slides: what it learns from and writes, and going on after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from pipeline.config.extraction import TeacherConfig
from pipeline.encoder_distillation import stage
from pipeline.encoder_distillation.targets import with_answers
from pipeline.encoders import registry
from pipeline.encoders.build import build, encode
from pipeline.errors import ConfigError, UserError
from pipeline.files.artifacts import new_hdf5
from pipeline.tile_training import trainer
from pipeline.tile_training.slides import tiled_slides
from tests.encoder_distillation.made import CFG, TINY, job_of, results_folder, run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return results_folder(tmp_path)


def test_a_student_becomes_a_teacher_with_its_teachers_licences(root: Path) -> None:
    folder = run(root)
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
    assert curve["step"].tolist() == [0, 2, 4, 6]
    assert {"explained_a", "explained_b", "weight_a", "loss_b", "score"} <= set(curve.columns)
    facts = json.loads((folder / "facts.json").read_text())
    assert set(facts["cases"]["learned"]).isdisjoint(facts["cases"]["held_out"])
    assert set(facts["agreement"]) == {"a", "b"}
    assert not (folder / "training.pt").exists()


def test_the_control_is_what_the_student_starts_as(root: Path) -> None:
    started = TeacherConfig(source="folder", path=str(run(root, "c", job_of(control=True))))
    tiles = torch.randint(0, 255, (2, 32, 32, 3), dtype=torch.uint8)
    mine, theirs = (encode(build("x", c), tiles)["high"] for c in (started, TINY))
    assert torch.equal(mine, theirs)


def test_killed_it_goes_on_to_the_same_bytes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(root, "whole")
    monkeypatch.setattr(trainer, "SAVE_SECONDS", -1.0)
    step, steps = trainer._Run.step, []

    def dies(this, ahead):  # type: ignore[no-untyped-def]
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(step(this, ahead))

    monkeypatch.setattr(trainer._Run, "step", dies)
    monkeypatch.setattr(stage, "digest", lambda *parts: "the same")
    with pytest.raises(KeyboardInterrupt):
        run(root, "parts")
    assert not (root / "teachers/parts/facts.json").exists()
    monkeypatch.setattr(trainer._Run, "step", step)
    parts = run(root, "parts")
    for file in ("model.safetensors", "curve.csv"):
        assert (parts / file).read_bytes() == (whole / file).read_bytes(), file


def test_a_separate_pool_is_of_cases_without_any_label(root: Path) -> None:
    cfg = CFG.model_copy(update={"pool": "separate"})
    facts = json.loads((run(root, job=job_of(cfg, labels=("gra*",))) / "facts.json").read_text())
    assert sorted(facts["cases"]["learned"] + facts["cases"]["held_out"]) == ["c4", "c5"]
    with pytest.raises(UserError, match="every case has a label"):
        run(root, job=job_of(cfg, labels=("case_id",)))


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


def test_a_student_that_only_gets_worse_stays_as_it_was(root: Path) -> None:
    course = CFG.course.model_copy(update={"learning_rate": 0.3, "ema": 0.0})
    folder = run(root, "bad", job_of(CFG.model_copy(update={"course": course})))
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["best_step"] == 0
    started = run(root, "c", job_of(control=True))
    before, after = (load_file(one / "model.safetensors") for one in (started, folder))
    assert all(torch.equal(after[name], value) for name, value in before.items())
