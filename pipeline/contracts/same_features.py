"""Whether all feature files of a teacher are of one encoder, as far as they say it themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.contracts.ledger import Record
from pipeline.errors import ArtifactError

SHOWN = 20
DIMS, ENCODER = "dims", "encoder"  # facts of a record


def check_same_features(teacher: str, records: Iterable[Record]) -> dict[str, int]:
    """Compare the widths of a teacher's files, and the encoders that they name.

    Args:
        teacher: its name, for the message.
        records: of its slides; those that are not `ok` are ignored.

    Returns:
        level -> width; empty where no slide is ok.

    Raises:
        ArtifactError: the files differ; lists those of the smaller groups.
    """
    usable = [record for record in records if record.status == "ok"]
    for record in usable:
        if not isinstance(record.facts.get(DIMS), dict) or not record.facts[DIMS]:
            raise ArtifactError(
                f"features of {teacher}: the manifest gives no widths for {record.slide_id}; "
                f"remove features/{teacher}/manifest and run again"
            )
    widths = {r.path: {k: int(v) for k, v in sorted(r.facts[DIMS].items())} for r in usable}
    _refuse_others(teacher, "other dimensions", widths)
    # Who names no encoder may be of any; the numbers of such files are compared in mapping.
    named = {r.path: r.facts[ENCODER] for r in usable if r.facts.get(ENCODER)}
    _refuse_others(teacher, "another encoder", named)
    return dict(next(iter(widths.values()), {}))


def _refuse_others(teacher: str, what: str, of: Mapping[str, Any]) -> None:
    groups: dict[str, list[str]] = {}
    for path, value in of.items():
        groups.setdefault(str(value), []).append(path)
    if len(groups) < 2:
        return
    usual, *others = sorted(groups, key=lambda value: (-len(groups[value]), value))
    odd = [f"\n  - {path}: {value}" for value in others for path in sorted(groups[value])]
    more = f"\n  and {len(odd) - SHOWN} more" if len(odd) > SHOWN else ""
    raise ArtifactError(
        f"teacher `{teacher}`: {len(odd)} of {len(of)} feature files have {what} than the "
        f"rest ({usual}). Files of different models or settings are mixed, and a student would "
        f"learn which is which: extract them again, or make two teachers of them:"
        f"{''.join(odd[:SHOWN])}{more}"
    )
