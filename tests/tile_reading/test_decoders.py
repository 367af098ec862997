"""JPEG streams to pixels."""

from __future__ import annotations

import types
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch

from pipeline.tile_reading import decoders
from tests.extraction.made import tissue

CPU = torch.device("cpu")


def _stream(seed: int) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(tissue(32, 24, seed=seed), level=90))


def test_damaged_streams_are_none_in_their_place() -> None:
    good = [_stream(0), _stream(1)]
    found = decoders.decode_streams([good[0], b"no JPEG", good[1]], CPU)
    assert found[1] is None
    for stream, pixels in zip(good, (found[0], found[2]), strict=True):
        assert pixels is not None
        np.testing.assert_array_equal(pixels.numpy(), imagecodecs.jpeg8_decode(stream))


def test_the_library_of_a_gpu_keeps_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that behaves as nvImageCodec does: no header raises, no data gives None."""

    def code_stream(data: bytes) -> bytes:
        if not data.startswith(b"\xff\xd8"):
            raise RuntimeError("unsupported code stream")
        return data

    def decode(streams: list[bytes], cuda_stream: int) -> list[Any]:
        whole = [stream.endswith(b"\xff\xd9") for stream in streams]
        return [
            torch.from_numpy(imagecodecs.jpeg8_decode(stream)) if good else None
            for stream, good in zip(streams, whole, strict=True)
        ]

    library = types.SimpleNamespace(CodeStream=code_stream)
    decoder = types.SimpleNamespace(decode=decode)
    monkeypatch.setattr(decoders, "_decoder", lambda index: (library, decoder))
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda device: types.SimpleNamespace(cuda_stream=0)
    )
    first, second = _stream(0), _stream(1)
    found = decoders.decode_streams(
        [b"no header", first, second[:200], second], torch.device("cuda")
    )
    assert [pixels is not None for pixels in found] == [False, True, False, True]
    np.testing.assert_array_equal(found[1].numpy(), imagecodecs.jpeg8_decode(first))  # type: ignore[union-attr]
    np.testing.assert_array_equal(found[3].numpy(), imagecodecs.jpeg8_decode(second))  # type: ignore[union-attr]
