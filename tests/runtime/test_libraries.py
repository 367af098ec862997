"""What is written down about the libraries."""

from __future__ import annotations

from importlib import metadata

import pytest

from pipeline.runtime import libraries


def test_installed_versions_are_told_and_a_missing_library_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libraries, "LIBRARIES", ("numpy", "not-a-library"))
    assert libraries.installed() == {"numpy": metadata.version("numpy"), "not-a-library": "-"}
