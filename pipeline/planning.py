"""What a run would touch and cost, before it starts: the slides by chunk, and an estimate.

Imported at every parse of the workflow, so only the standard library and the config are loaded;
slide headers are read only for the estimate.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

from pipeline.cohort.labels import check_labels
from pipeline.cohort.sheet import SlideRow, file_identity, identity, slide_rows
from pipeline.config import Config, TeacherConfig
from pipeline.encoders import registry
from pipeline.errors import ConfigError, SlideError
from pipeline.ledger import chunk_of
from pipeline.provenance import code_fingerprint, digest

SAMPLED_SLIDES = 16
ASSUMED_TISSUE_FRACTION = 0.3
BYTES_PER_FEATURE = 2


@dataclasses.dataclass(frozen=True)
class CohortPlan:
    """The cohort as the workflow sees it.

    Attributes:
        rows: one per slide.
        chunks: the hash buckets that hold a slide.
        digests: for each chunk, of what decides its tiles: ids, file contents, overrides.
        teachers: as configured, for the digests of imported files.
    """

    rows: tuple[SlideRow, ...]
    chunks: tuple[int, ...]
    members: dict[int, tuple[SlideRow, ...]]
    digests: dict[int, str]
    teachers: dict[str, TeacherConfig]

    def import_digest(self, teacher: str, chunk: int) -> str:
        """Digest of a teacher's imported files for a chunk's slides."""
        facts = self.teachers[teacher]
        folder = Path(facts.path or ".")
        names = [facts.pattern.format(slide_id=row.slide_id) for row in self.members[chunk]]
        return digest([[name, file_identity(folder / name)] for name in names])


def cohort_plan(config: Config, base: Path) -> CohortPlan:
    """Read the sheet (or plan the embedded cohort), check its labels, and sort it into chunks.

    Raises:
        SheetError: the sheet or a label cannot be used; all findings in one message.
        ConfigError: a teacher is not in the registry, or its licence is not acknowledged.
    """
    check_teachers(config, base)
    rows = slide_rows(config.cohort, base)
    check_labels(rows, config.tasks, folds=config.folds.k)
    members: dict[int, list[SlideRow]] = {}
    for row in rows:
        members.setdefault(chunk_of(row.slide_id, config.cohort.chunks), []).append(row)
    tells = _synthetic_identity(config) if config.cohort.source == "synthetic" else identity
    digests = {
        chunk: digest([[r.slide_id, r.mpp, tells(r), file_identity(r.mask)] for r in part])
        for chunk, part in members.items()
    }
    return CohortPlan(
        rows=tuple(rows),
        chunks=tuple(sorted(members)),
        members={chunk: tuple(part) for chunk, part in members.items()},
        digests=digests,
        teachers=config.extraction.teachers,
    )
