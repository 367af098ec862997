"""The memory budget."""

from __future__ import annotations

import pytest

from pipeline.bags import memory


def test_the_tightest_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_available", lambda: 8_000)
    monkeypatch.setattr(memory, "_control_group", lambda: 1_000)
    assert memory.host_budget(0.5) == 500
    monkeypatch.setattr(memory, "_control_group", lambda: None)
    assert memory.host_budget(0.5) == 4_000


def test_without_knowledge_there_is_a_modest_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_available", lambda: None)
    monkeypatch.setattr(memory, "_control_group", lambda: None)
    assert memory.host_budget() == memory.FALLBACK_BYTES
