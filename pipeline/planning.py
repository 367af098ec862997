"""The cohort as the workflow sees it, before anything has run: slides by chunk, and their digests.

Imported at every parse of the workflow, so nothing heavy is loaded here.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline.cohort.labels import check_labels
from pipeline.cohort.sheet import SlideRow, chunk_digest, file_identity, identities, slide_rows
from pipeline.config import Config, TeacherConfig
from pipeline.encoders import registry
from pipeline.ledger import chunk_of
from pipeline.provenance import digest


@dataclasses.dataclass(frozen=True)
class CohortPlan:
    """Slides by chunk.

    Attributes:
        members: chunk -> its slides; only chunks that have some.
        digests: chunk -> digest of what decides its tiles: ids, contents, overrides.
        teachers: as configured, for the digests of imported files.
    """

    members: dict[int, tuple[SlideRow, ...]]
    digests: dict[int, str]
    teachers: dict[str, TeacherConfig]

    @property
    def chunks(self) -> list[int]:
        return sorted(self.members)

    @property
    def rows(self) -> list[SlideRow]:
        return sorted((r for part in self.members.values() for r in part), key=lambda r: r.slide_id)

    def import_digest(self, teacher: str, chunk: int) -> str:
        """Digest of a teacher's imported files for a chunk's slides."""
        facts = self.teachers[teacher]
        names = [facts.pattern.format(slide_id=row.slide_id) for row in self.members[chunk]]
        folder = Path(facts.path or ".")
        return digest(sorted([name, file_identity(folder / name)] for name in names))


def cohort_plan(config: Config, base: Path) -> CohortPlan:
    """Read the sheet (or plan the embedded cohort), check its labels, and sort it into chunks.

    Raises:
        SheetError: the sheet or a label cannot be used; all findings in one message.
        ConfigError: a teacher is not in the registry.
    """
    for name, facts in config.extraction.teachers.items():
        if facts.source == "registry":
            registry.resolve(facts.model or name)
    rows = slide_rows(config.cohort, base)
    check_labels(rows, config.tasks, folds=config.folds.k)
    known = identities(config.cohort, rows)
    chunks = config.cohort.chunks
    members: dict[int, list[SlideRow]] = {}
    for row in rows:
        members.setdefault(chunk_of(row.slide_id, chunks), []).append(row)
    return CohortPlan(
        members={chunk: tuple(part) for chunk, part in members.items()},
        digests={c: chunk_digest(part, known, c, chunks) for c, part in members.items()},
        teachers=config.extraction.teachers,
    )
