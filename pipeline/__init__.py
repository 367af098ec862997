"""From whole-slide images to a compared student of several pathology foundation models."""

from pathlib import Path

# The folder that the package lies in.
ROOT = Path(__file__).resolve().parent.parent
