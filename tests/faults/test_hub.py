"""A hub that does not answer: a message with the way round it, and no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import registry
from pipeline.encoders.weight_files import hub_file, local_file
from pipeline.errors import ConfigError
from tests.faults.stages import REPOSITORY

NAME = "phikon_v2"


class Unanswered(Exception):
    """What an HTTP library raises, which need be no error of the operating system's."""


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes every call and never says a word."""
    server = socket.create_server(("127.0.0.1", 0))
    calls: list[socket.socket] = []

    def take() -> None:
        while True:
            try:
                calls.append(server.accept()[0])
            except OSError:
                return

    threading.Thread(target=take, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    server.close()
    for call in calls:
        call.close()


@pytest.mark.slow
def test_a_hub_that_times_out(silent: str, tmp_path: Path) -> None:
    """As the preflight asks it; the limits are of the hub's own client."""
    script = (
        "import sys; from pipeline.encoders import registry\n"
        "from pipeline.config.extraction import TeacherConfig\n"
        "from pipeline.encoders.weight_files import hub_file\n"
        "from pipeline.errors import ConfigError\n"
        f"try: hub_file('{NAME}', TeacherConfig(), registry.resolve('{NAME}'))\n"
        "except ConfigError as error: sys.exit(str(error))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment |= {
        "HF_ENDPOINT": silent,
        "HF_HOME": str(tmp_path),
        "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, text=True, capture_output=True, timeout=400
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"extraction.weights_dir/{NAME}/ and set weights: local" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        Unanswered("The read operation timed out"),
        ConnectionError("[Errno 101] Network is unreachable"),
        TimeoutError("timed out"),
    ],
)
def test_a_download_that_breaks_off(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", broken)
    with pytest.raises(ConfigError, match=r"cannot be downloaded .*Try again .*weights: local"):
        hub_file(NAME, TeacherConfig(), registry.resolve(NAME))


def test_a_full_disk_is_not_the_hubs_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(OSError, match="No space left"):
        hub_file(NAME, TeacherConfig(), registry.resolve(NAME))


def test_the_way_round_it(tmp_path: Path) -> None:
    row = registry.resolve(NAME)
    with pytest.raises(ConfigError, match="put the teacher's weights file there"):
        local_file(NAME, row, str(tmp_path))
    (tmp_path / NAME).mkdir()
    weights = tmp_path / NAME / "model.safetensors"
    weights.write_bytes(b"")
    assert local_file(NAME, row, str(tmp_path)) == weights
