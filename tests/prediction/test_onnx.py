"""ONNX files give what PyTorch gives, and what does not is not written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ArtifactError
from pipeline.files.artifacts import read_json
from pipeline.prediction import onnx_export
from pipeline.prediction.encoders import open_encoder
from pipeline.prediction.onnx_export import Levels, write_onnx
from tests.prediction.conftest import handed

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("model", ["v2", pytest.param("linear", marks=pytest.mark.slow), "single"])
def test_encoders_and_models_are_the_same_in_both(study: Path, tmp_path: Path, model: str) -> None:
    file = handed(study, "subtype", model, tmp_path / "m.safetensors")
    found = write_onnx(file, tmp_path / "onnx")
    names = [f"{one.name}.onnx" for one in file.card.encoders]
    assert [one.file for one in found] == [*names, "fold_0.seed_0.onnx", "fold_1.seed_0.onnx"]
    assert all(one.difference < 1e-4 for one in found)
    assert len(read_json(tmp_path / "onnx/onnx.json")) == len(found)
    encoder = open_encoder(file, file.card.encoders[0], None, torch.device("cpu"))
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / names[0]))
    images = torch.rand(5, 3, encoder.transform.crop, encoder.transform.crop)
    for here, there in zip(
        Levels(encoder)(images), session.run(None, {"images": images.numpy()}), strict=True
    ):
        np.testing.assert_allclose(here.numpy(), there, rtol=1e-3, atol=1e-4)


def test_what_differs_is_not_written(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = handed(study, "subtype", "single", tmp_path / "m.safetensors")
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(ArtifactError, match="other numbers than PyTorch"):
        write_onnx(file, tmp_path / "onnx")
    assert not list(tmp_path.glob("onnx/*.onnx"))
