"""Which versions of which libraries make the numbers: written down, and never a reason to rerun."""

from __future__ import annotations

from importlib import metadata

LIBRARIES = (
    "shazam-pathology",
    "snakemake",
    "torch",
    "timm",
    "numpy",
    "pandas",
    "scikit-learn",
    "scikit-survival",
    "lifelines",
    "openslide-python",
    "tifffile",
    "imagecodecs",
    "h5py",
    "opencv-python-headless",
    "matplotlib",
)


def installed() -> dict[str, str]:
    """Installed versions by distribution name (`-` where one is not installed)."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "-"
    return found
