"""`python -m tests.golden.record` writes the numbers whose version was raised, or that are new."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.golden.cases import GOLDEN, Golden, Numbers

FILE = Path(__file__).with_name("numbers.json")
COMMAND = "python -m tests.golden.record"


def recorded() -> dict[str, dict[str, Any]]:
    """Name -> the versions and numbers that were written down."""
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def moved(golden: Golden, now: Numbers, before: Numbers) -> list[str]:
    """The numbers that are others than before, as text."""
    return [
        f"{key}: {before.get(key)} -> {now.get(key)}"
        for key in sorted(now.keys() | before.keys())
        if key not in now
        or key not in before
        or abs(now[key] - before[key]) > golden.tolerance * max(0.1, abs(before[key]))
    ]


def main() -> None:
    known, written, refused = recorded(), {}, []
    for name, golden in GOLDEN.items():
        old = known.get(name)
        if old is not None and old["versions"] == golden.versions:
            written[name] = old
            with tempfile.TemporaryDirectory() as folder:
                if moved(golden, golden.make(Path(folder)), old["numbers"]):
                    refused.append(name)
            continue
        with tempfile.TemporaryDirectory() as folder:
            numbers = golden.make(Path(folder))
        rounded = {key: float(f"{value:.6g}") for key, value in numbers.items()}
        written[name] = {"versions": golden.versions, "numbers": rounded}
        print(f"{name}: written")
    FILE.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")
    if refused:
        sys.exit(f"moved, and no version was raised: {', '.join(refused)}")


if __name__ == "__main__":
    main()
