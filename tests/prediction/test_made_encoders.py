"""Encoders that the pipeline made, handed over with a model that reads them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from pipeline.config.extraction import TeacherConfig
from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.encoder_distillation.student import Plan, row_of
from pipeline.encoders.build import build
from pipeline.encoders.registry import HUB_FILES, ROW
from pipeline.errors import ConfigError, UserError
from pipeline.files.artifacts import write_json
from pipeline.prediction.encoders import open_encoder
from pipeline.prediction.export import export
from pipeline.prediction.markdown import model_card
from pipeline.prediction.model_file import read_model
from pipeline.prediction.run import Options, run
from tests.prediction.conftest import CONFIG, NAME, TEACHER, source
from tests.prediction.test_predict import out_of_fold, slides_of

LICENCE = "CC-BY-NC-ND 4.0; MIT"


def made(folder: Path, restricted: bool) -> Config:
    """The cohort's config as if its first teacher were a student with the same weights."""
    encoder = build("one", TeacherConfig.model_validate(TEACHER))
    plan = Plan("resnet10t", {"num_classes": 0}, None, encoder.transform)
    row = row_of(
        "one", encoder.module, plan, title="a student of uni and another", licence=LICENCE,
        restricted=restricted, mpp=1.0,
    )  # fmt: skip
    folder.mkdir(parents=True)
    write_json(folder / ROW, dataclasses.asdict(row))
    state = {name: value.contiguous() for name, value in encoder.module.state_dict().items()}
    save_file(state, folder / HUB_FILES[0])
    teachers: dict[str, Any] = {**CONFIG["extraction"]["teachers"]}
    teachers["one"] = {
        "source": "folder", "path": str(folder), "acknowledge_licence": True, "input_px": 32,
    }  # fmt: skip
    return parse({**CONFIG, "extraction": {"teachers": teachers}})


def test_a_made_encoder_goes_into_the_file_and_needs_its_folder_no_more(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(study)
    folder = tmp_path / "teachers" / "one"
    given = source(study, "survival", "single", made(folder, restricted=False))
    out = tmp_path / "m.safetensors"
    export(given, out, "auto")
    shutil.rmtree(folder)
    file = read_model(out)
    one = file.card.encoders[0]
    assert one.weights == "embedded" and one.licence == LICENCE and not file.card.restrictions
    wanted = out_of_fold(study, "survival", "single", 1).iloc[:2]
    run(file, slides_of(study, list(wanted.index)), Options(tmp_path / "o", fold=1, maps=False))
    found = pd.read_parquet(tmp_path / "o/members.parquet").set_index("case_id")
    np.testing.assert_allclose(found.loc[wanted.index, "risk"], wanted["risk"], rtol=1e-4)


def test_what_its_teachers_ask_reaches_the_file_and_its_card(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restricted weights stay out, and are found again in a copy of the encoder's folder."""
    monkeypatch.chdir(study)
    folder = tmp_path / "teachers" / "one"
    given = source(study, "survival", "single", made(folder, restricted=True))
    out = tmp_path / "m.safetensors"
    card = export(given, out, "auto")
    assert card.restrictions and LICENCE in card.restrictions[0]
    text = model_card(card, "m.safetensors")
    assert "license: other" in text and f"- one: {LICENCE} restricts" in text
    file = read_model(out)
    one = file.card.encoders[0]
    assert one.weights == "referenced" and len(one.sha256) == 64
    with pytest.raises(ConfigError, match="copy of the folder teachers/one"):
        open_encoder(file, one, None, torch.device("cpu"))
    encoder = open_encoder(file, one, str(folder.parent), torch.device("cpu"))
    assert encoder.dims["high"] == one.dims["high"]


def test_the_encoders_of_the_results_folder_are_teachers(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that reads one is exported from wherever the results lie; one with an encoder for
    each fold is refused."""
    monkeypatch.chdir(study)
    made(tmp_path / "one", restricted=True)
    root = Path(shutil.copytree(study / "results" / NAME, tmp_path / "elsewhere"))
    shutil.copytree(tmp_path / "one", root / "teachers" / "pupil")
    model = root / "models" / "survival" / "single"
    for path in model.glob("fold_*/seed_*/meta.json"):
        path.write_text(path.read_text().replace('"one"', '"pupil"'))
    coverage = pd.read_parquet(root / "coverage.parquet")
    coverage.replace({"teacher": {"one": "pupil"}}).to_parquet(root / "coverage.parquet")

    def given(pool: str) -> Any:
        students = {"pupil": {"pool": pool, "teachers": ["two"]}}
        config = parse({**CONFIG, "encoder_distillation": {"students": students}})
        return dataclasses.replace(source(study, "survival", "single", config), root=root)

    card = export(given("separate"), tmp_path / "m.safetensors", "all")
    assert [one.name for one in card.encoders] == ["pupil"]
    assert card.encoders[0].weights == "embedded" and LICENCE in card.restrictions[0]
    with pytest.raises(UserError, match="another encoder in every fold"):
        export(given("training"), tmp_path / "m.safetensors", "all")
