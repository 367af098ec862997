"""The preflight as a job: what it writes, what it refuses, and how it holds a teacher still."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from pipeline.config.extraction import ExtractionConfig, TeacherConfig
from pipeline.config.whole import Config
from pipeline.contracts.teacher_check import read_teacher_check
from pipeline.encoders import registry, weight_files
from pipeline.encoders.build import build
from pipeline.errors import ArtifactError, ConfigError
from pipeline.extraction import check
from pipeline.extraction.check import pinned
from pipeline.extraction.stage import teacher_fingerprint
from pipeline.files.artifacts import read_json
from pipeline.plan import stage_params

COMMIT, NEWER = "a" * 40, "b" * 40


def _settings(**more: Any) -> TeacherConfig:
    return TeacherConfig.model_validate({"source": "timm", "model": "resnet10t", **more})


def _weights(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(timm.create_model("resnet10t", num_classes=0).state_dict(), path)
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A hub whose `main` moves; returns what it points to."""
    import huggingface_hub

    for seed, commit in enumerate((COMMIT, NEWER)):
        _weights(tmp_path / "hub" / "snapshots" / commit / "pytorch_model.bin", seed)
    branches = {"main": COMMIT}

    def download(repo: str, file: str, revision: str) -> str:
        commit = branches.get(revision, revision)
        return str(tmp_path / "hub" / "snapshots" / commit / "pytorch_model.bin")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return branches


def test_random_weights(tmp_path: Path) -> None:
    settings = _settings(weights="random", seed=3, input_px=64)
    out = tmp_path / "check.json"
    check.run(teacher="t", settings=settings, weights_dir=None, out=out)
    found = read_json(out)
    assert (found["weights"], found["revision"], found["identity"]) == ("random", "seed 3", "")
    assert found["dims"] == {"low": 128, "mid": 256, "high": 512}
    assert {"parameters", "transform", "output"} <= set(found["verified"])
    first = out.read_bytes()
    check.run(teacher="t", settings=settings, weights_dir=None, out=out)
    assert out.read_bytes() == first
    assert str(tmp_path) not in out.read_text()


def test_a_failure_names_the_step_and_the_remedy_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "check.json"
    with pytest.raises(ConfigError, match=r"`uni` is not ready \(registry\).*acknowledge_licence"):
        check.run(teacher="uni", settings=TeacherConfig(), weights_dir=None, out=out)
    assert not out.exists()


def test_what_main_was_is_what_every_chunk_gets(tmp_path: Path, hub: dict[str, str]) -> None:
    out = tmp_path / "features" / "t" / "check.json"
    check.run(teacher="t", settings=_settings(), weights_dir=None, out=out)
    found = read_teacher_check(tmp_path, "t")
    assert found is not None
    assert found.revision == COMMIT
    assert len(str(found.sha256)) == 64 and not found.sha256_expected
    hub["main"] = NEWER
    settings = pinned(_settings(), found)
    encoder = build("t", settings, identity=found.identity)
    assert encoder.facts["revision"] == COMMIT
    with pytest.raises(ArtifactError, match=r"not the weights file that was checked.*check\.json"):
        build("t", _settings(), identity=found.identity)
    assert read_teacher_check(tmp_path, "other") is None


def test_hash_that_the_config_pins(tmp_path: Path, hub: dict[str, str]) -> None:
    out = tmp_path / "check.json"
    check.run(teacher="t", settings=_settings(), weights_dir=None, out=out)
    right = read_json(out)["sha256"]
    settings = _settings(revision=COMMIT, sha256=right)
    check.run(teacher="t", settings=settings, weights_dir=None, out=out)
    assert {"hash", "revision"} <= set(read_json(out)["verified"])
    with pytest.raises(ConfigError, match=r"\(weights\).*SHA-256.*expected is 0000"):
        check.run(teacher="t", settings=_settings(sha256="0" * 64), weights_dir=None, out=out)


def test_another_revision_sets_the_rows_hash_aside() -> None:
    row = registry.Model(**{**vars(_row()), "sha256": "f" * 64, "revision": COMMIT})
    assert weight_files.wanted_hash(TeacherConfig(), row) == "f" * 64
    assert weight_files.wanted_hash(TeacherConfig(revision=COMMIT), row) == "f" * 64
    assert weight_files.wanted_hash(TeacherConfig(revision=NEWER), row) == ""
    assert weight_files.wanted_hash(TeacherConfig(revision=NEWER, sha256="e" * 64), row) == "e" * 64


def _row() -> weight_files.Model:
    from pipeline.encoders import registry

    return registry.resolve("phikon")


def test_fingerprint_follows_the_file_and_not_its_name() -> None:
    def of(settings: TeacherConfig, identity: str | None) -> str:
        cfg = ExtractionConfig(teachers={"t": settings})
        return teacher_fingerprint(cfg, "t", "code", identity)

    same = of(_settings(), "file 1")
    assert of(_settings(revision=COMMIT, sha256="0" * 64), "file 1") == same
    assert of(_settings(), "file 2") != same
    assert of(_settings(revision=COMMIT), None) != of(_settings(revision=NEWER), None)
    assert of(_settings(input_px=64), "file 1") != same


def test_other_local_weights_make_the_teachers_jobs_stale(tmp_path: Path) -> None:
    teachers = {"t": _settings(weights="local"), "u": _settings(weights="random")}
    config = Config.model_validate(
        {
            "extraction": {
                "teachers": {k: v.model_dump() for k, v in teachers.items()},
                "weights_dir": str(tmp_path),
            }
        }
    )

    def texts() -> list[str]:
        made = [stage_params.check(config, "t"), stage_params.extraction(config, "t", "digest")]
        return [job.canonical() for job in [*made, stage_params.check(config, "u")]]

    _weights(tmp_path / "t" / "model.pth", seed=0)
    before = texts()
    assert texts() == before
    _weights(tmp_path / "t" / "model.pth", seed=1)
    after = texts()
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]
