"""What one field of a sheet says. Standard library only."""

from __future__ import annotations

import math
import unicodedata

# Texts that stand for "no value" in exported tables: of pandas and R, of GDC and TCGA, of Excel.
EMPTY = frozenset(
    {
        *("", "na", "n/a", "nan", "null", "<na>", "nat", "--", "'--", "."),
        *("not reported", "not available", "not applicable", "not evaluated", "not provided"),
        *("not allowed to collect", "not performed", "not known", "unknown", "unreported"),
        *("[not available]", "[not applicable]", "[not evaluated]", "[not reported]"),
        *("[unknown]", "[discrepancy]", "[completed]", "[pending]"),
        *("#n/a", "#ref!", "#value!", "#name?", "#div/0!", "#null!", "#num!", "#spill!", "#calc!"),
    }
)


def filled(text: str) -> str:
    """The text, or '' where it stands for no value."""
    return "" if text.casefold() in EMPTY else text


def visible(text: str) -> str:
    """The text without characters that nobody sees, such as a zero-width space."""
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


def label(text: str) -> str:
    """What a cell of a label column says: as it looks, with plain single spaces."""
    return filled(unicodedata.normalize("NFC", " ".join(visible(text).split())))


def number(text: str) -> float | None:
    """The finite number that the text is, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    # Python reads 1_5 as 15; a sheet that says so means a name.
    return value if math.isfinite(value) and "_" not in text else None
