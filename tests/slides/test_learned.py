"""Networks that the user brings: what they are given, what comes back, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.tiling import TilingConfig
from pipeline.errors import ConfigError
from pipeline.slides.learned import segment_learned
from pipeline.tiling.stage import run_slide
from tests.slides import files

# TorchScript is old, but what people have.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")


class Pinkness(torch.nn.Module):
    """Tissue where red and blue exceed green; a map, or one answer per window."""

    def __init__(self, windows: bool) -> None:
        super().__init__()
        self.windows = windows

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        pink = 40 * (pixels[:, 0] + pixels[:, 2] - 2 * pixels[:, 1] - 0.15)[:, None]
        if self.windows:
            pink = pink.mean(dim=(2, 3))
        return torch.cat([-pink, pink], dim=1)


PLAIN = {"mean": [0, 0, 0], "std": [1, 1, 1]}


def write(folder: Path, windows: bool = False, **note) -> str:
    path = folder / "net.pt"
    torch.jit.script(Pinkness(windows)).save(str(path))
    text = {"library": "torchscript", "mpp": 8.0, "input_px": 64, **PLAIN, **note}
    (folder / "net.pt.json").write_text(json.dumps(text))
    return str(path)


def picture() -> tuple[np.ndarray, np.ndarray]:
    image = np.full((100, 150, 3), 243, np.uint8)
    image[20:70, 30:130] = (200, 120, 180)
    return image, (image[..., 1] == 120).astype(np.uint8)


def test_a_network_that_maps(tmp_path):
    image, truth = picture()
    assert np.array_equal(segment_learned(image, 8.0, write(tmp_path)), truth)


def test_a_network_that_classifies_windows(tmp_path):
    image, truth = picture()
    found = segment_learned(image, 8.0, write(tmp_path, windows=True, input_px=16))
    assert (found == truth).mean() > 0.85


@pytest.mark.slow
def test_an_exported_program(tmp_path):
    image, truth = picture()
    write(tmp_path, library="export")
    batch = {"pixels": {0: torch.export.Dim("batch")}}
    program = torch.export.export(
        Pinkness(False), (torch.zeros(2, 3, 64, 64),), dynamic_shapes=batch
    )
    (tmp_path / "net.pt").unlink()
    torch.export.save(program, tmp_path / "net.pt2")
    (tmp_path / "net.pt.json").rename(tmp_path / "net.pt2.json")
    assert np.array_equal(segment_learned(image, 8.0, str(tmp_path / "net.pt2")), truth)


def test_the_picture_is_brought_to_the_networks_scale(tmp_path):
    image, truth = picture()
    found = segment_learned(image, 4.0, write(tmp_path))
    assert found.shape == truth.shape and (found == truth).mean() > 0.95


def test_timm_with_weights(tmp_path):
    import timm

    model = timm.create_model("test_resnet", num_classes=2)
    with torch.no_grad():
        model.get_classifier().weight.zero_()
        model.get_classifier().bias.copy_(torch.tensor([-5.0, 5.0]))
    torch.save({"state_dict": model.state_dict()}, tmp_path / "net.pth")
    note = {"library": "timm", "model": "test_resnet", "mpp": 8.0, "input_px": 64}
    (tmp_path / "net.pth.json").write_text(json.dumps(note))
    image, _ = picture()
    assert segment_learned(image, 8.0, str(tmp_path / "net.pth")).all()


@pytest.mark.parametrize(
    ("note", "mpp", "word"),
    [
        ({"mpp": 1.0}, 8.0, "segmentation_mpp: 1"),
        ({"library": "keras"}, 8.0, "not a description"),
        ({"unknown": 1}, 8.0, "not a description"),
        ({"library": "timm", "model": "no_such_model"}, 8.0, "does not fit"),
    ],
)
def test_bad_descriptions_are_the_users(tmp_path, note, mpp, word):
    weights = write(tmp_path, **note)
    with pytest.raises(ConfigError, match=word):
        segment_learned(picture()[0], mpp, weights)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"net\.pt"):
        segment_learned(picture()[0], 8.0, str(tmp_path / "net.pt"))


def test_through_the_stage(tmp_path):
    slide = files.write_aperio(tmp_path / "a.svs", files.tissue_image(1000, 1200))
    tissue = {"method": "learned", "weights": write(tmp_path)}
    cfg = TilingConfig.model_validate({"tissue": tissue})
    record = run_slide(cfg=cfg, versions="", slide=slide, out_dir=tmp_path / "tiles")
    assert record.status == "ok" and record.facts["tissue_source"] == "learned"
    (tmp_path / "net.pt").unlink()
    with pytest.raises(ConfigError, match="does not exist"):
        run_slide(cfg=cfg, versions="new", slide=slide, out_dir=tmp_path / "tiles")


def test_other_methods_do_not_import_torch():
    code = "import sys, pipeline.tiling.stage, pipeline.tiling.overview as o; del o\n"
    code += "assert not {'torch', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
