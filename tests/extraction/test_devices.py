"""Devices, cores and batch sizes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders.build import build
from pipeline.errors import ConfigError
from pipeline.extraction import devices
from pipeline.tile_reading import decoders
from tests.extraction.made import TINY


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert devices.choose_devices("auto") == [torch.device("cpu")]
    assert devices.choose_devices("cpu") == [torch.device("cpu")]
    with pytest.raises(ConfigError, match="device `cuda`: torch sees 0 GPUs"):
        devices.choose_devices("cuda")
    with pytest.raises(ConfigError, match="device `gpu`"):
        devices.choose_devices("gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [d.index for d in devices.choose_devices("auto")] == [0, 1]
    assert devices.choose_devices("cuda:1") == [torch.device("cuda", 1)]
    assert len(devices.choose_devices("cuda:0, cuda:1")) == 2
    with pytest.raises(ConfigError, match="cuda:2"):
        devices.choose_devices("cuda:2")


def test_batch_grows_while_it_pays() -> None:
    speed = {32: 1000, 64: 1500, 128: 1900, 256: 1910, 512: 1900}
    assert devices.grow(list(speed), lambda n: n / speed[n]) == 128


def test_batch_stops_where_memory_ends() -> None:
    def seconds(size: int) -> float:
        if size > 64:
            raise torch.OutOfMemoryError("out of memory")
        return 1.0

    assert devices.grow((32, 64, 128), seconds) == 64
    assert devices.grow((128, 256), seconds) == 1


def test_batch_of_a_cpu_is_fixed() -> None:
    cpu = torch.device("cpu")
    assert devices.choose_batch_size("auto", [], 224, cpu) == devices.CPU_BATCH
    assert devices.choose_batch_size(7, [], 224, cpu) == 7


def _encoder(gflop: float, precision: str = "bf16") -> devices.Encoder:
    encoder = build("t", TeacherConfig.model_validate(TINY))
    facts = {**encoder.facts, "gflop_per_tile": str(gflop)}
    return dataclasses.replace(encoder, facts=facts, precision=precision)


def test_who_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large network waits for the CPU on few cores only; a small one soon."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    large, small = _encoder(600.0), _encoder(9.0)
    side = 448  # 700 tiles a second and core
    monkeypatch.setattr(decoders.importlib.util, "find_spec", lambda name: None)
    assert not devices.decodes_on_gpu("auto", [small], side, 1, gpu)
    with pytest.raises(ConfigError, match=r"decode: gpu needs nvImageCodec.*nvimgcodec-cu12"):
        devices.decodes_on_gpu("gpu", [small], side, 1, gpu)
    monkeypatch.setattr(decoders.importlib.util, "find_spec", lambda name: object())
    assert not devices.decodes_on_gpu("auto", [large], side, 8, gpu)  # 333 tiles a second
    assert devices.decodes_on_gpu("auto", [small], side, 8, gpu)  # 22,000
    assert not devices.decodes_on_gpu("auto", [small], side, 64, gpu)
    assert not devices.decodes_on_gpu("auto", [small, large], side, 1, gpu)
    assert devices.decodes_on_gpu("gpu", [large], side, 64, gpu)
    assert not devices.decodes_on_gpu("cpu", [small], side, 1, gpu)
    assert not devices.decodes_on_gpu("gpu", [small], side, 1, cpu)
