"""The cohort as the workflow sees it, before anything has run: slides by chunk, and their digests.

Imported at every parse of the workflow, so nothing heavy is loaded here.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline.cohort import synthetic
from pipeline.cohort.labels import check_labels
from pipeline.cohort.sheet import SlideRow, chunk_digest, identities, slide_rows
from pipeline.cohort.stage import portable
from pipeline.config import Config, SyntheticConfig, TeacherConfig
from pipeline.encoders import registry
from pipeline.extraction.locate import check_some_exist, expected_files
from pipeline.ledger import chunk_of
from pipeline.provenance import digest
from pipeline.slides.identity import file_identity


@dataclasses.dataclass(frozen=True)
class CohortPlan:
    """Slides by chunk.

    Attributes:
        members: chunk -> its slides; only chunks that have some.
        digests: chunk -> digest of what decides its tiles: ids, contents, overrides.
        tables: chunk -> digest of its slide table, which knows where the files lie as well.
        teachers: as configured, for the digests of imported files.
    """

    members: dict[int, tuple[SlideRow, ...]]
    digests: dict[int, str]
    tables: dict[int, str]
    teachers: dict[str, TeacherConfig]

    @property
    def chunks(self) -> list[int]:
        return sorted(self.members)

    @property
    def rows(self) -> list[SlideRow]:
        return sorted((r for part in self.members.values() for r in part), key=lambda r: r.slide_id)

    def cases_until(self, chunk: int) -> int:
        """Number of the last case of the embedded cohort that the chunk has a slide of."""
        first = SyntheticConfig.model_fields["cases"].metadata[0].ge
        return max(first, *(synthetic.case_number(r.case_id) for r in self.members[chunk]))

    def import_digest(self, teacher: str, chunk: int) -> str:
        """Digest of a teacher's imported files for a chunk's slides."""
        slides = {row.slide_id: row.case_id for row in self.members[chunk]}
        files = expected_files(teacher, self.teachers[teacher], slides)
        found = {s: path and [path.name, file_identity(path)] for s, path in files.items()}
        return digest(found)


def cohort_plan(config: Config, base: Path) -> CohortPlan:
    """Read the sheet (or plan the embedded cohort), check its labels, and sort it into chunks.

    Raises:
        SheetError: the sheet or a label cannot be used; all findings in one message.
        ConfigError: a teacher is not in the registry, may not be used as configured, or is
            imported and has no file for any slide.
    """
    for name, facts in config.extraction.teachers.items():
        if facts.source == "registry":
            registry.check(name, facts)
    rows = slide_rows(config.cohort, base)
    check_labels(rows, config.tasks, folds=config.folds.k)
    slides = {row.slide_id: row.case_id for row in rows}
    for name, facts in config.extraction.teachers.items():
        if facts.source == "import":
            check_some_exist(name, facts, expected_files(name, facts, slides))
    known = identities(config.cohort, rows)
    chunks = config.cohort.chunks
    members: dict[int, list[SlideRow]] = {}
    for row in rows:
        members.setdefault(chunk_of(row.slide_id, chunks), []).append(row)
    digests = {c: chunk_digest(part, known, c, chunks) for c, part in members.items()}
    return CohortPlan(
        members={chunk: tuple(part) for chunk, part in members.items()},
        digests=digests,
        tables={
            c: digest(
                digests[c],
                [
                    [r.slide_id, r.site]
                    + [portable(p, base) for p in (r.path, r.mask, r.coordinates)]
                    for r in part
                ],
            )
            for c, part in members.items()
        },
        teachers=config.extraction.teachers,
    )
