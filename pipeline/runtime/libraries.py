"""Which versions of libraries make the numbers: written down, and never a reason to rerun."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from pipeline.runtime.stages import STAGES

OURS = ("shazam-pathology", "snakemake")
LIBRARIES = tuple(dict.fromkeys(name for stage in STAGES for name in stage.libraries))


def installed(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Installed versions by distribution name (`-` where one is not installed).

    Args:
        names: of distributions; the package itself and Snakemake are added.
    """
    found = {}
    for name in (*OURS, *names):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "-"
    return found
