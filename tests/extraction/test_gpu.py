"""What only a GPU can show; skipped without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.bags.files import open_features, read_level
from pipeline.config.extraction import TeacherConfig
from pipeline.encoders.build import Encoder, build, encode
from pipeline.extraction import devices
from pipeline.extraction.engine.encoding import encode_in_parts
from pipeline.extraction.engine.messages import Settings, SlideToRead
from pipeline.extraction.engine.run import extract
from pipeline.tile_reading.decoders import gpu_decodes
from pipeline.tile_reading.grid import read_grid
from tests.extraction.made import TINY, grid_coords, tissue, write_svs, write_tiles

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CPU, GPU = torch.device("cpu"), torch.device("cuda")
VIT = {
    "source": "timm",
    "model": "vit_tiny_patch16_224",
    "weights": "random",
    "seed": 1,
    "input_px": 224,
}


def _build(device: torch.device, precision: str = "fp32", **teacher: object) -> Encoder:
    cfg = TeacherConfig.model_validate(teacher or TINY)
    return build("tiny", cfg, device=device, precision=precision)


def _job(folder: Path, encoder: str) -> SlideToRead:
    slide = write_svs(folder / "slide.svs", tissue(400, 300))
    grid = read_grid(write_tiles(folder / "tiles.h5", grid_coords(400, 300, 32)))
    return SlideToRead("slide", slide, grid, {encoder: folder / "out.h5"}, {encoder: "print"})


def _extract(job: SlideToRead, encoder: Encoder, **settings: object) -> np.ndarray:
    records = extract([job], {encoder.device: [encoder]}, Settings(workers=2, **settings))  # type: ignore[arg-type]
    assert records[job.slide_id, encoder.name].status == "ok"
    return read_level(open_features(job.outputs[encoder.name])).astype(np.float32)


def test_a_gpu_gives_the_features_of_the_cpu(tmp_path: Path) -> None:
    job = _job(tmp_path, "tiny")
    expected = _extract(job, _build(CPU), batch_size=8)
    found = _extract(job, _build(GPU), batch_size=8)
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=5e-3)


def test_a_rerun_gives_the_same_bytes(tmp_path: Path) -> None:
    job = _job(tmp_path, "tiny")
    found = []
    for _ in range(2):
        _extract(job, _build(GPU, "bf16"), batch_size=8)
        found.append(job.outputs["tiny"].read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near(precision: str) -> None:
    tiles = torch.from_numpy(np.stack([tissue(256, 256, seed=i) for i in range(6)]))
    exact = encode(_build(CPU, **VIT), tiles)
    near = encode(_build(GPU, precision, **VIT), tiles.to(GPU))
    for level, values in exact.items():
        alike = torch.nn.functional.cosine_similarity(near[level].cpu().float(), values.float())
        assert alike.min() > 0.999, level


@pytest.mark.skipif(not gpu_decodes(), reason="needs nvImageCodec")
def test_blocks_decoded_by_the_gpu_give_nearly_the_same_features(tmp_path: Path) -> None:
    job = _job(tmp_path, "tiny")
    encoder = _build(GPU)
    here = _extract(job, encoder, batch_size=8)
    there = _extract(job, encoder, batch_size=8, decode_on_gpu=True)
    alike = torch.nn.functional.cosine_similarity(torch.tensor(here), torch.tensor(there))
    assert alike.min() > 0.99
    assert not np.array_equal(here, there)  # else the CPU decoded both


def test_a_batch_that_does_not_fit_is_split() -> None:
    """With a real allocator that really has no more memory."""
    encoder = _build(GPU, **VIT)
    tiles = torch.randint(0, 256, (256, 224, 224, 3), dtype=torch.uint8, device=GPU)
    expected = encode(encoder, tiles)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(GPU).total_memory
    room = torch.cuda.memory_reserved(GPU) + 120_000_000
    most: dict[str, int] = {}
    torch.cuda.set_per_process_memory_fraction(room / total, GPU)
    try:
        found = encode_in_parts(encoder, tiles, most)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)
    assert 0 < most[encoder.name] < len(tiles)
    for level, values in expected.items():
        torch.testing.assert_close(found[level], values, rtol=5e-3, atol=5e-3)


def test_the_batch_size_is_searched() -> None:
    size = devices.choose_batch_size("auto", [_build(GPU, **VIT)], 224, GPU)
    assert size in devices.GPU_BATCHES
