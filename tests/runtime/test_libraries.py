"""What is written down about the libraries."""

from __future__ import annotations

from importlib import metadata

from pipeline.runtime import libraries


def test_installed_versions_are_told_and_a_missing_library_is_no_error() -> None:
    found = libraries.installed(["numpy", "not-a-library"])
    assert list(found) == [*libraries.OURS, "numpy", "not-a-library"]
    assert (found["numpy"], found["not-a-library"]) == (metadata.version("numpy"), "-")
