"""The list of teachers and the preflight."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import teachers, timm_names
from pipeline.encoders.teachers import check_teacher, list_teachers, outlook, table
from pipeline.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "_token", lambda: False)
    monkeypatch.setattr(teachers, "_cached", lambda row, revision=None: False)


def test_list_says_what_is_ready(tmp_path: Path) -> None:
    folder = tmp_path / "phikon"
    folder.mkdir()
    (folder / "pytorch_model.bin").touch()
    found = {t.name: t for t in list_teachers(str(tmp_path))}
    assert found["phikon"].ready == "weights_dir"
    assert found["phikon_v2"].ready == "on the hub"
    assert found["uni2_h"].ready == "needs a token"
    assert found["rudolfv_2"].ready == "needs envs/rudolfv_2.yaml"
    assert found["hipt_vit256"].ready == "download by hand"
    text = table(list(found.values()))
    assert len(text.splitlines()) == len(found) + 1
    row = next(line for line in text.splitlines() if line.startswith("virchow2 "))
    for part in ("2560 or 1280", "631.2 M", "gated", "CC-BY-NC-ND 4.0 (restricts students)"):
        assert part in row


def test_preflight_passes_with_random_weights() -> None:
    checks = list(check_teacher("kaiko_s16", TeacherConfig(weights="random")))
    assert [c.name for c in checks] == [
        *("registry", "licence", "parameters", "prefix tokens", "patch"),
        *("transform", "access", "weights", "output"),
    ]
    assert not any(c.ok is False for c in checks)
    assert "high 384" in checks[-1].detail


def test_preflight_with_local_weights(tmp_path: Path) -> None:
    folder = tmp_path / "lunit_s16"
    folder.mkdir()
    state = timm.create_model("vit_small_patch16_224", num_classes=0).state_dict()
    torch.save(state, folder / "pytorch_model.bin")
    cfg = TeacherConfig(weights="local")
    checks = {c.name: c for c in check_teacher("lunit_s16", cfg, str(tmp_path))}
    assert checks["keys"].ok and checks["output"].ok
    assert checks["hash"].detail.startswith("SHA-256 ")
    del state["norm.weight"]
    torch.save(state, folder / "pytorch_model.bin")
    last = list(check_teacher("lunit_s16", cfg, str(tmp_path)))[-1]
    assert (last.name, last.ok) == ("weights", False)
    assert "missing norm.weight" in last.detail


@pytest.mark.parametrize(
    ("name", "step", "says"),
    [
        ("uni", "registry", "acknowledge_licence"),
        ("unii", "registry", "did you mean `uni`"),
        ("hibou_b", "access", "HF_TOKEN"),
        ("hipt_vit256", "weights", "weights_dir/hipt_vit256"),
    ],
)
def test_preflight_stops_with_the_remedy(name: str, step: str, says: str) -> None:
    last = list(check_teacher(name, TeacherConfig()))[-1]
    assert (last.name, last.ok) == (step, False)
    assert says in last.detail


@pytest.mark.parametrize(
    ("name", "cfg", "says"),
    [
        (
            "uni2_h",
            {"acknowledge_licence": True},
            "UNI2-h; licence: .*, acknowledged; NOT READY.*HF_T",
        ),
        ("phikon_v2", {}, "on the hub, open to all"),
        ("hipt_vit256", {}, "NOT READY: download its weights from http"),
        ("rudolfv_2", {"acknowledge_licence": True}, r"needs envs/rudolfv_2\.yaml"),
        ("kaiko_s16", {"weights": "random", "seed": 4}, "random weights from seed 4"),
        ("t", {"source": "timm", "model": "resnet10t"}, "timm's resnet10t; .*there is no token"),
    ],
)
def test_outlook_says_what_is_there(name: str, cfg: dict[str, Any], says: str) -> None:
    assert re.search(says, outlook(name, TeacherConfig(**cfg)))


def test_outlook_never_shows_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(teachers, "_cached", lambda row, revision=None: False)
    said = outlook("uni2_h", TeacherConfig(acknowledge_licence=True))
    assert "gated; there is a token" in said and "secret" not in said


def test_outlook_of_local_weights_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "last.pth").touch()
    said = outlook("t", TeacherConfig(source="timm", model="a", weights="local"), str(tmp_path))
    assert str(tmp_path / "t" / "last.pth") in said


def test_timms_names_are_known_without_importing_it() -> None:
    known = timm_names.timm_models()
    assert set(timm.list_models()) <= known
    for model in ("resnet10t", "resnet10t.c3_in1k", "vit_tiny_patch16_224_in21k"):
        assert timm.is_model(model)
        timm_names.check_timm_name("a", TeacherConfig(source="timm", model=model))
    with pytest.raises(ConfigError, match="no model `resnet10tt`; did you mean `resnet10t`"):
        timm_names.check_timm_name("a", TeacherConfig(source="timm", model="resnet10tt"))


def test_preflight_of_imported_features() -> None:
    (check,) = check_teacher("x", TeacherConfig(source="import", path="features"))
    assert check.ok is None
