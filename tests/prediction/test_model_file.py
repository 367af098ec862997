"""One file holds the model, says what it is, and is refused when it is not whole."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from pipeline.config.reading import parse
from pipeline.contracts.model_card import ModelCard
from pipeline.errors import ArtifactError, ConfigError, UserError
from pipeline.prediction.encoders import open_encoder
from pipeline.prediction.export import export
from pipeline.prediction.markdown import model_card
from pipeline.prediction.model_file import CARD, ModelFile, models, read_model, write_model
from tests.prediction.conftest import CONFIG, NAME, handed, source

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file(study: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return handed(study, "survival", "v2", tmp_path_factory.mktemp("model") / "m.safetensors")


def test_the_card_says_what_the_model_is(file: ModelFile, study: Path) -> None:
    card = file.card
    assert [(m.fold, m.seed) for m in card.members] == [(0, 0), (1, 0)]
    assert [one.name for one in card.encoders] == ["one", "two"]
    assert {one.weights for one in card.encoders} == {"embedded"}
    assert card.cohort["cases"] == 14 and card.cohort["slides"] == len(card.seen) > 14
    table = pd.read_csv(study / "results" / NAME / "evaluation/survival/metrics.csv")
    own = table[(table["model"] == "v2") & (table["metric"] == "c_index")].iloc[0]
    said = next(row for row in card.metrics if row["metric"] == "c_index")
    assert said["value"] == pytest.approx(own["value"])
    assert said["low"] == pytest.approx(own["low"])
    assert set(card.calibration.cutoffs) == {"0", "1"}


def test_the_file_holds_no_python_objects_and_its_card_is_json(file: ModelFile) -> None:
    from safetensors import safe_open

    with safe_open(file.path, framework="pt") as opened:
        facts = json.loads(opened.metadata()[CARD])
    assert facts["checksum"] == file.card.checksum
    assert set(facts) == {field.name for field in dataclasses.fields(ModelCard)}


def test_equal_models_give_equal_files(file: ModelFile, tmp_path: Path) -> None:
    again = write_model(tmp_path / "m.safetensors", file.card, file.tensors)
    assert again == file.card
    assert (tmp_path / "m.safetensors").read_bytes() == file.path.read_bytes()


@pytest.mark.parametrize("what", ["tensor", "card"])
def test_a_changed_file_is_refused(file: ModelFile, tmp_path: Path, what: str) -> None:
    tensors = load_file(file.path)
    card = dataclasses.asdict(file.card)
    if what == "tensor":
        name = next(name for name in tensors if name.startswith("fold_0"))
        tensors[name] = tensors[name] + 1e-3
    else:
        card["cohort"]["cases"] = 1000
    bad = tmp_path / "bad.safetensors"
    save_file(tensors, bad, {CARD: json.dumps(card)})
    with pytest.raises(ArtifactError, match="checksum"):
        read_model(bad)


def test_other_files_are_refused(file: ModelFile, tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    with pytest.raises(ArtifactError, match="no such file"):
        read_model(bad)
    bad.write_bytes(file.path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="not a whole safetensors file"):
        read_model(bad)
    save_file({"x": torch.zeros(1)}, bad)
    with pytest.raises(ArtifactError, match="no model card"):
        read_model(bad)
    with pytest.raises(ArtifactError, match="has no fold 7, only 0, 1"):
        models(file, 7, CPU)


def test_an_encoder_gives_what_its_teacher_gave(file: ModelFile) -> None:
    from pipeline.config.extraction import TeacherConfig
    from pipeline.encoders.build import build, encode

    tile = torch.randint(0, 255, (2, 112, 112, 3), dtype=torch.uint8)
    for one in file.card.encoders:
        own = encode(open_encoder(file, one, None, CPU), tile)
        first = encode(build(one.name, TeacherConfig.model_validate(one.settings)), tile)
        for level, values in first.items():
            torch.testing.assert_close(own[level], values, rtol=0, atol=0)


def local(study: Path, weights: Path) -> Any:
    """The cohort's config as if its first teacher had a weights file of its own."""
    teachers = {**CONFIG["extraction"]["teachers"]}
    teachers["one"] = {**teachers["one"], "weights": "local"}
    return parse({**CONFIG, "extraction": {"teachers": teachers, "weights_dir": str(weights)}})


def test_weights_that_are_not_in_the_file_must_be_the_same(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    monkeypatch.chdir(study)
    place = tmp_path / "weights" / "one"
    place.mkdir(parents=True)
    state = timm.create_model("resnet10t", num_classes=0).state_dict()
    save_file(state, place / "model.safetensors")
    config = local(study, place.parent)
    given = dataclasses.replace(
        source(study, "survival", "single", config), weights_dir=str(place.parent)
    )
    out = tmp_path / "m.safetensors"
    export(given, out, "none")
    file = read_model(out)
    one = file.card.encoders[0]
    assert one.weights == "referenced" and len(one.sha256) == 64
    assert not any(name.startswith("encoder.") for name in file.tensors)
    assert open_encoder(file, one, str(place.parent), CPU).dims["high"] == one.dims["high"]
    with pytest.raises(ConfigError, match=r"Give them with --weights-dir DIR.*" + one.sha256):
        open_encoder(file, one, None, CPU)
    state["conv1.0.weight"] += 1
    save_file(state, place / "model.safetensors")
    with pytest.raises(ArtifactError, match="SHA-256"):
        open_encoder(file, one, str(place.parent), CPU)


def test_a_model_of_imported_features_is_refused(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(study)
    teachers = {**CONFIG["extraction"]["teachers"], "one": {"source": "import", "path": "x"}}
    config = parse({**CONFIG, "extraction": {"teachers": teachers}})
    with pytest.raises(UserError, match="reads imported features"):
        export(source(study, "survival", "single", config), tmp_path / "m.safetensors", "auto")


def test_a_model_that_reads_a_slide_encoder_is_refused(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(study)
    whole = {"source": "slide", "model": "hipt_vit4k", "input": "two", "weights": "random"}
    teachers = {**CONFIG["extraction"]["teachers"], "one": whole}
    config = parse({**CONFIG, "extraction": {"teachers": teachers}})
    out = tmp_path / "m.safetensors"
    with pytest.raises(UserError, match=r"`single` reads slide encoders \(one\)"):
        export(source(study, "survival", "single", config), out, "auto")
    assert not out.exists()


def test_unknown_models_and_unfinished_runs_are_refused(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(study)
    out = tmp_path / "m.safetensors"
    with pytest.raises(UserError, match="--task surival: the cohort has no such task"):
        export(source(study, "surival", "v2"), out, "auto")
    with pytest.raises(UserError, match="--model v3: the cohort has no such model"):
        export(source(study, "survival", "v3"), out, "auto")
    more = parse({**CONFIG, "training": {**CONFIG["training"], "seeds": [0, 1]}})
    with pytest.raises(UserError, match="seed_1: no finished training"):
        export(source(study, "survival", "v2", more), out, "auto")


def test_the_markdown_card_has_front_matter_and_the_numbers(file: ModelFile) -> None:
    text = model_card(file.card, "m.safetensors")
    _, front, body = text.split("---\n", 2)
    facts = yaml.safe_load(front)
    metric = facts["model-index"][0]["results"][0]["metrics"][0]
    assert metric["type"] == "c_index"
    assert f"| c_index | {metric['value']:.3f} |" in body
    assert file.card.checksum in body and "drawn slides" in body
    restricted = dataclasses.replace(file.card, restrictions=["uni: CC-BY-NC-ND 4.0 restricts"])
    text = model_card(restricted, "m.safetensors")
    assert "license: other" in text and "- uni: CC-BY-NC-ND 4.0 restricts" in text
