"""Which slide has features of which teacher: the manifests joined to the slide table.

A slide that an imported teacher has no file for is `missing`: a fact about that teacher's coverage.
It becomes a failure of the slide only when no teacher has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from pipeline.contracts.ledger import Record
from pipeline.contracts.same_features import check_same_features
from pipeline.contracts.slide_warnings import SlideWarning, added
from pipeline.errors import ArtifactError, nearest
from pipeline.mapping.likeness import unusual_features

MISSING = "missing"
MISSING_KIND = "missing_features"
TILING = "tiling"
EXTRACTION = "extraction/"

_SHOWN = 20

# Also of a table without rows: a config may have no teachers but those that are made here.
COLUMNS = ("slide_id", "case_id", "teacher", "status", "kind", "reason", "path", "n_tiles")


@dataclasses.dataclass(frozen=True)
class Coverage:
    """What every teacher has.

    Attributes:
        records: teacher -> slide -> its record, one for each slide of the sheet.
        paths: teacher -> slide -> feature file of the usable slides, relative to the results folder
            or absolute.
        dims: teacher -> level -> width of a feature vector.
        table: one row per slide and teacher: slide_id, case_id, teacher, status (the ledger's, or
            `missing`), kind, reason, path, n_tiles (of the file, which slides of a case may share).
    """

    records: Mapping[str, Mapping[str, Record]]
    paths: Mapping[str, Mapping[str, str]]
    dims: Mapping[str, Mapping[str, int]]
    table: pd.DataFrame

    def usable(self, slide_id: str) -> list[str]:
        """The teachers that have this slide."""
        return [teacher for teacher in self.paths if slide_id in self.paths[teacher]]


def join(
    slides: pd.DataFrame, teachers: Sequence[str], records: Iterable[Record], root: Path
) -> Coverage:
    """Join the extraction manifests' records to the slides.

    Args:
        slides: the slide table, columns slide_id and case_id.
        teachers: the teachers, in the config's order.
        records: all records of the extraction manifests.
        root: the results folder, which relative paths start from.

    Raises:
        ArtifactError: a manifest does not fit the slides or the teachers, a feature file is gone,
            or a teacher's slides differ in the widths or the encoder of their features.
    """
    case_of = dict(zip(slides["slide_id"], slides["case_id"], strict=True))
    by_teacher = _by_teacher(records, list(teachers))
    for teacher in teachers:
        _check_slides(teacher, by_teacher[teacher], case_of)
    paths: dict[str, dict[str, str]] = {}
    for teacher in teachers:
        usable = [r for r in by_teacher[teacher].values() if r.status == "ok"]
        paths[teacher] = {r.slide_id: located(root, r.path) for r in usable}
        _check_files(teacher, paths[teacher], root)
    dims = {name: check_same_features(name, by_teacher[name].values()) for name in teachers}
    warned = {name: with_warnings(of, unusual_features(of)) for name, of in by_teacher.items()}
    rows = [
        {
            "slide_id": slide,
            "case_id": case_of[slide],
            "teacher": teacher,
            "status": status_of(record),
            "kind": record.kind,
            "reason": record.reason,
            "path": paths[teacher].get(slide, ""),
            "n_tiles": record.n_tiles if record.status == "ok" else 0,
        }
        for slide in sorted(case_of)
        for teacher in teachers
        for record in [by_teacher[teacher][slide]]
    ]
    return Coverage(warned, paths, dims, pd.DataFrame(rows, columns=list(COLUMNS)))


def with_warnings(
    records: Mapping[str, Record], warnings: Mapping[str, SlideWarning]
) -> dict[str, Record]:
    """Records by slide, with the warnings that only the whole cohort shows."""
    return {s: added(r, warnings[s]) if s in warnings else r for s, r in records.items()}


def status_of(record: Record) -> str:
    """The record's status, with `missing` for a slide that imported features do not hold."""
    return MISSING if record.kind == MISSING_KIND else record.status


def located(root: Path, path: str) -> str:
    """A manifest's path as later stages can use it: relative to the results folder, or absolute.

    Imported features are named as the user named them, which may be relative to the folder where
    the pipeline was started.
    """
    if Path(path).is_absolute() or (root / path).exists() or not Path(path).exists():
        return path
    return Path(path).resolve().as_posix()


def _by_teacher(records: Iterable[Record], teachers: list[str]) -> dict[str, dict[str, Record]]:
    found: dict[str, dict[str, Record]] = {teacher: {} for teacher in teachers}
    for record in records:
        teacher = record.stage.removeprefix(EXTRACTION)
        if not record.stage.startswith(EXTRACTION) or teacher not in found:
            raise ArtifactError(
                f"a feature manifest names `{record.stage}`, which is no teacher of "
                f"extraction.teachers{nearest(teacher, teachers)}"
            )
        if record.slide_id in found[teacher]:
            raise ArtifactError(
                f"features of {teacher}: two manifests contain slide {record.slide_id}; remove "
                f"features/{teacher}/manifest and run again"
            )
        found[teacher][record.slide_id] = record
    return found


def _check_slides(teacher: str, records: Mapping[str, Record], known: Mapping[str, str]) -> None:
    for what, slides in (
        ("say nothing of", sorted(set(known) - set(records))),
        ("contain slides that are not in the sheet:", sorted(set(records) - set(known))),
    ):
        if slides:
            raise ArtifactError(
                f"the manifests of {teacher} {what} {', '.join(slides[:_SHOWN])}"
                f"{_more(len(slides))}; run the stage `extraction` again"
            )


def _check_files(teacher: str, paths: Mapping[str, str], root: Path) -> None:
    gone = [path for path in paths.values() if not (root / path).exists()]
    if gone:
        listed = "".join(f"\n  - {path}" for path in gone[:_SHOWN])
        raise ArtifactError(
            f"{len(gone)} feature file(s) of {teacher} are gone; give the same command again, "
            f"which makes them again:{listed}{_more(len(gone))}"
        )


def _more(total: int) -> str:
    return f" and {total - _SHOWN} more" if total > _SHOWN else ""
