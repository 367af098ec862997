"""Per-slide outcomes: a slide's failure is data, never a crash and never silence.

A stage that works through a chunk of slides writes one manifest: canonical JSON, one record a
slide, in slide order. It is small and the same for the same inputs, so it is what Snakemake tracks;
the big per-slide files stand next to it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ArtifactError, UserError
from pipeline.files.artifacts import read_json, write_json

Status = Literal["ok", "empty", "failed", "excluded"]
STATUSES: tuple[Status, ...] = ("ok", "empty", "failed", "excluded")
SHOWN = 5
_SAID: dict[Status, str] = {"failed": "failed", "empty": "have no tissue that gives a tile"}


@dataclasses.dataclass(frozen=True)
class Record:
    """What became of one slide in one stage.

    Attributes:
        slide_id: the slide.
        stage: the stage that says so, e.g. `tiling` or `extraction/uni2_h`.
        status: ok, empty (no tissue: not a failure), failed, or excluded (by the user or a policy).
        kind: a short stable class of reason (`unreadable`, `no_mpp`, …); empty when ok.
        reason: one line a person can act on; empty when ok.
        path: the slide's file, relative to the results folder, or as given for imported features.
        facts: numbers and texts for tables (n_tiles, mpp, …), JSON-able, without NaN.
    """

    slide_id: str
    stage: str
    status: Status
    kind: str = ""
    reason: str = ""
    path: str = ""
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def n_tiles(self) -> int:
        """Of the slide; 0 where it has none or was not read."""
        return int(self.facts.get("n_tiles", 0))


def failed(slide_id: str, stage: str, error: BaseException) -> Record:
    """The record of a slide that an exception ended.

    A `SlideError` brings its own kind and reason; of any other the class name becomes the kind.

    Args:
        slide_id: the slide.
        stage: where it ended, e.g. `extraction/uni2_h`.
        error: the exception.
    """
    kind = getattr(error, "kind", type(error).__name__)
    reason = getattr(error, "reason", None) or f"{type(error).__name__}: {error}"
    return Record(slide_id, stage, "failed", kind=kind, reason=" ".join(str(reason).split()))


def chunk_of(slide_id: str, chunks: int) -> int:
    """The hash bucket of a slide, so that adding one slide touches one chunk only."""
    return int(hashlib.sha1(slide_id.encode()).hexdigest(), 16) % chunks


def write_manifest(
    path: str | Path, stage: str, fingerprint: str, records: Iterable[Record]
) -> None:
    """Write a chunk's manifest: canonical, sorted by slide, without times or machine names.

    Args:
        path: of the manifest.
        stage: the stage.
        fingerprint: digest of what decides the chunk's results.
        records: one for each slide of the chunk.
    """
    found = (dataclasses.asdict(record) for record in records)
    rows = sorted(found, key=lambda row: (row["slide_id"], row["stage"]))
    write_json(path, {"stage": stage, "fingerprint": fingerprint, "slides": rows})


def read_manifest(path: str | Path) -> list[Record]:
    """Read a manifest's records.

    Raises:
        ArtifactError: the file is missing, damaged or not a manifest.
    """
    data = read_json(path)
    try:
        return [Record(**row) for row in data["slides"]]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not a manifest ({error})") from None


def read_manifests(paths: Iterable[str | Path]) -> list[Record]:
    """All records of several manifests, sorted by slide."""
    records = [record for path in paths for record in read_manifest(path)]
    return sorted(records, key=lambda r: (r.slide_id, r.stage))


def enforce(records: Iterable[Record], limits: Mapping[Status, float], where: str) -> None:
    """End the run when too many slides failed or are empty.

    Args:
        records: those of all stages; a later stage repeats what an earlier one said.
        limits: status -> the largest share of the slides that may have it.
        where: the file that lists all of them.

    Raises:
        UserError: a limit is passed; with the slides' reasons in groups, the largest first.
    """
    records = list(records)
    total = len({r.slide_id for r in records})
    for status, limit in limits.items():
        first: dict[str, Record] = {}
        for record in records:
            if record.status == status:
                first.setdefault(record.slide_id, record)
        if len(first) > limit * total:
            raise UserError(
                f"{len(first)} of {total} slides {_SAID[status]}, more than "
                f"mapping.max_{status}_fraction = {limit:g} allows. Correct them, exclude them "
                f"from the sheet, or raise the limit. All are listed in {where}; by reason:\n"
                + "\n".join(_grouped(first.values(), where))
            )


def _grouped(records: Iterable[Record], where: str) -> list[str]:
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.stage, record.kind), []).append(record)
    lines = []
    for (stage, kind), group in sorted(groups.items(), key=lambda g: (-len(g[1]), g[0])):
        group.sort(key=lambda record: record.slide_id)
        lines.append(f"  {len(group)} {kind.replace('_', ' ')} ({stage})")
        lines += [f"    - {record.slide_id}: {record.reason}" for record in group[:SHOWN]]
        if len(group) > SHOWN:
            lines.append(f"    - and {len(group) - SHOWN} more: {where}")
    return lines
