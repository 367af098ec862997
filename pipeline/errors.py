"""What can go wrong, in the two kinds that matter: the user's input, and one slide's data."""

from __future__ import annotations

import difflib
from typing import Any


class UserError(Exception):
    """Input that a person must correct. Shown without a traceback: what, where, and the remedy."""


class ConfigError(UserError):
    """The config does not fit its schema."""


class SheetError(UserError):
    """The slide table, or a label in it, is not usable."""


class ArtifactError(UserError):
    """A file in the results is missing, damaged or not what it claims to be."""


class SlideError(Exception):
    """One slide cannot be used. Becomes a row in the failure ledger; the run goes on.

    Args:
        reason: what is wrong and what to do about it, in one line.
        kind: a short, stable class of reason for tables, e.g. `unreadable`, `no_mpp`.
    """

    def __init__(self, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind


class MachineError(Exception):
    """A disk, a network path or memory failed the job. Nobody's data is wrong: it is run again.

    The message says what to correct before that.
    """


def nearest(word: str, known: Any) -> str:
    """` (did you mean …?)` with the closest known word, or the list of what is known."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; known: {', '.join(known[:40])}" if known else ""
