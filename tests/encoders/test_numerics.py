"""Precision, and compiled blocks."""

from __future__ import annotations

import pytest
import torch

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import numerics
from pipeline.encoders.build import build, encode
from pipeline.encoders.numerics import choose_precision, compile_blocks
from pipeline.errors import ConfigError

VIT = {"source": "timm", "model": "vit_tiny_patch16_224", "weights": "random", "input_px": 32}


def test_auto_is_the_authors_precision_where_the_gpu_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert choose_precision("auto", cpu) == "fp32"
    assert choose_precision("bf16", cpu) == "bf16"
    for generation, expected in ((9, "fp16 tf32 bf16 bf16"), (7, "fp16 fp32 fp16 fp16")):
        monkeypatch.setattr(
            torch.cuda, "get_device_capability", lambda device, g=generation: (g, 0)
        )
        chosen = [choose_precision("auto", gpu, row) for row in ("fp16", "fp32", "bf16", "")]
        assert chosen == expected.split()
    assert choose_precision("fp32", gpu, "bf16") == "fp32"


def test_fp32_stays_fp32_in_a_process_that_had_tf32() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        cfg = TeacherConfig.model_validate(VIT)
        build("t", cfg, precision="tf32")
        assert torch.get_float32_matmul_precision() == "high"
        build("t", cfg, precision="bf16")
        assert torch.get_float32_matmul_precision() == "high"
        build("t", cfg, precision="fp32")
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)


def test_without_a_compiler_the_config_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = build("t", TeacherConfig.model_validate(VIT)).module
    monkeypatch.setattr(numerics.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"extraction\.compile: needs Triton"):
        compile_blocks(module, torch.device("cuda"))


@pytest.mark.slow
def test_compiled_blocks_give_the_same_features() -> None:
    cfg = TeacherConfig.model_validate(VIT)
    plain, compiled = build("t", cfg), build("t", cfg, compiled=True)
    assert (plain.facts["compiled"], compiled.facts["compiled"]) == ("no", "yes")
    tiles = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    for count in (5, 3, 1):  # the last batch of a slide is smaller
        expected, found = encode(plain, tiles[:count]), encode(compiled, tiles[:count])
        for level, values in expected.items():
            torch.testing.assert_close(found[level], values, rtol=2e-3, atol=2e-3)
