"""What lies next to the package in a clone, and inside it where it was installed from a wheel."""

from __future__ import annotations

from pathlib import Path

from pipeline import ROOT

WORKFLOW = "workflow/Snakefile"
_INSTALLED = Path(__file__).resolve().parent.parent / "shipped"  # setup.py puts it there


def shipped(name: str) -> Path:
    """A file or folder of the repository: `workflow/…`, `profiles/…`, `envs/…` or `config/…`.

    Raises:
        FileNotFoundError: neither a clone nor a wheel of this package has it.
    """
    base = ROOT if (ROOT / WORKFLOW).is_file() else _INSTALLED
    path = base / name
    if not path.exists():
        raise FileNotFoundError(f"{path}: not in this installation; install the package again")
    return path
