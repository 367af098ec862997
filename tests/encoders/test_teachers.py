"""The list of teachers and the preflight."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import teachers
from pipeline.encoders.teachers import check_teacher, list_teachers, table


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


def test_preflight_of_imported_features() -> None:
    (check,) = check_teacher("x", TeacherConfig(source="import", path="features"))
    assert check.ok is None
