"""What one field of a sheet says. Standard library only."""

from __future__ import annotations

import math

# Texts that stand for "no value" in exported tables; '-- and [Not Available] are GDC's and TCGA's.
EMPTY = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "--", "'--", "[not available]"})


def filled(text: str) -> str:
    """The text, or '' where it stands for no value."""
    return "" if text.lower() in EMPTY else text


def number(text: str) -> float | None:
    """The finite number that the text is, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    # Python reads 1_5 as 15; a sheet that says so means a name.
    return value if math.isfinite(value) and "_" not in text else None
