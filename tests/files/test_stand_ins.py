"""Texts that stand in place of a large file are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.files.stand_ins import stand_in

TEXTS = {
    "version https://git-lfs.github.com/spec/v1\noid sha256:ab\n": "git lfs pull",
    "/annex/objects/SHA256E-s12--ab.h5\n": "git annex get",
    "<!doctype HTML><title>Sign in</title>": "web page",
    "\n <!-- proxy -->\n<html lang='en'>": "web page",
    "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>": "XML message",
    '{"error": "Repository not found"}': "server's error message",
    "": "empty",
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_stand_in_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.h5").write_text(text)
    assert TEXTS[text] in stand_in(tmp_path / "x.h5")


@pytest.mark.parametrize("head", [b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x93NUMPY", b"\x80\x02"])
def test_data_is_no_stand_in(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "x").write_bytes(head + bytes(2000))
    assert stand_in(tmp_path / "x") == ""
