"""Small texts that stand where a large file should: what they are, and how the file is had.

A clone without Git LFS holds pointers, and a download without a login holds the login's page.
Standard library only.
"""

from __future__ import annotations

import re
from pathlib import Path

HEAD = 1024  # bytes that are looked at
# The first that fits the start of the file names it.
KINDS = (
    (
        rb"version https://git-lfs",
        "is a Git LFS pointer, not the file itself: run `git lfs pull` in the repository that it "
        "is from, or download the file from the hub",
    ),
    (
        rb"(/annex/objects/|\.git/annex/|\.\./.*/annex/objects/)",
        "is a git-annex pointer, not the file itself: run `git annex get` on it",
    ),
    (
        rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b",
        "is a web page, as a download without a login gives it: log in, or download it with a "
        "token, and put the file itself here",
    ),
    (
        rb"\s*<(\?xml|error)\b",
        "is an XML message, as a storage server gives when it refuses a download: download the "
        "file itself",
    ),
    (
        rb"\s*\{\s*\"(error|message|detail)",
        "is a server's error message: download the file itself",
    ),
)
EMPTY = "is empty (0 bytes), as a copy or download that broke off: get the file again"


def stand_in(path: Path) -> str:
    """What the file is instead of data, with the remedy; empty where it may be what it should."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        return EMPTY
    found = (text for pattern, text in KINDS if re.match(pattern, head, re.IGNORECASE | re.DOTALL))
    return next(found, "")
