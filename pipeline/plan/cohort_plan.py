"""The cohort as the workflow sees it, before anything has run: slides by chunk, and their digests.

Imported at every parse of the workflow, so nothing heavy is loaded here, and a chunk's files are
looked at only when its digest is asked for: a job on a cluster asks for its own chunk alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from pipeline.cohort.checks import report
from pipeline.cohort.covariates import check_covariates, check_read
from pipeline.cohort.labels import check_labels
from pipeline.cohort.same_patient import shared_slides
from pipeline.cohort.sheet import chunk_digest, identities, slide_rows
from pipeline.cohort.stage import portable
from pipeline.cohort.synthetic import embedded
from pipeline.config.cohort import SyntheticConfig
from pipeline.config.external import ExternalConfig
from pipeline.config.pairs import PairsConfig
from pipeline.config.probing import ProbingConfig
from pipeline.config.vision_language import VisionLanguageConfig
from pipeline.config.whole import Config
from pipeline.contracts.ledger import chunk_of
from pipeline.contracts.slide_row import SlideRow
from pipeline.encoders import registry
from pipeline.encoders.slide_level.inputs import every_teacher, tile_teachers
from pipeline.encoders.slide_level.registry import row_of
from pipeline.encoders.speaking import check_captions, check_words
from pipeline.encoders.tile_scales import check_finetuned, check_inputs, check_scales
from pipeline.encoders.timm_names import check_timm_name
from pipeline.encoders.weight_files import file_here, package_file
from pipeline.errors import ConfigError
from pipeline.external.trained import check_apart
from pipeline.extraction.first_look import check_alike
from pipeline.extraction.locate import (
    check_not_shared,
    check_some_exist,
    expected_files,
    files_digest,
)
from pipeline.files.digests import digest
from pipeline.files.identity import content_digest, file_identity
from pipeline.files.names import as_on_disk
from pipeline.files.recall import Recall
from pipeline.plan.encoder_jobs import check_folds, check_tiles
from pipeline.plan.split_check import check_splits


@dataclasses.dataclass(frozen=True)
class CohortPlan:
    """Slides by chunk.

    Attributes:
        members: chunk -> its slides; only chunks that have some.
        digest: chunk -> digest of what decides its tiles: ids, contents, overrides.
        table: chunk -> digest of its slide table, which knows where the files lie as well.
        imported: (teacher, chunk) -> digest of a teacher's imported files for the chunk's slides.
        sheet: gives the digest of all rows with their labels.
        folds: gives the digest of the fold files that are imported; empty where none are.
    """

    members: dict[int, tuple[SlideRow, ...]]
    digest: Callable[[int], str]
    table: Callable[[int], str]
    imported: Callable[[str, int], str]
    sheet: Callable[[], str]
    folds: Callable[[], str]

    @property
    def chunks(self) -> list[int]:
        return sorted(self.members)

    @property
    def rows(self) -> list[SlideRow]:
        return sorted((r for part in self.members.values() for r in part), key=lambda r: r.slide_id)

    def cases_until(self, chunk: int) -> int:
        """Number of the last case of the embedded cohort that the chunk has a slide of."""
        first = SyntheticConfig.model_fields["cases"].metadata[0].ge
        return max(first, *(embedded.case_number(r.case_id) for r in self.members[chunk]))


def cohort_plan(
    config: Config, base: Path, recall: Recall | None = None, check: bool = True
) -> CohortPlan:
    """Read the sheet (or plan the embedded cohort), check it, and sort it into chunks.

    Args:
        config: the config.
        base: folder that relative paths of the config start from.
        recall: what earlier parses found out about the slide files.
        check: whether to look for mistakes; a job's own parse need not repeat the first one's.

    Raises:
        SheetError: the sheet or a label cannot be used; all findings in one message.
        ConfigError: a teacher is not in the registry or not known to timm, may not be used as
            configured, would see a scale that its authors do not use, has no local weights where it
            should, or is imported and has no file for any slide, or one for different cases.
        ArtifactError: a teacher's imported files are of different encoders or widths.
    """
    cohort, teachers = config.cohort, config.extraction.teachers
    if check:
        check_inputs(config)
        check_finetuned(config)
        for name, facts in every_teacher(config).items():
            model = row_of(name, facts)
            if facts.in_registry or facts.source == "folder":
                registry.check(name, facts)
            if facts.source == "timm":
                check_timm_name(name, facts)
            if facts.source != "import" and facts.weights == "local":
                file_here(name, facts, model, config.extraction.weights_dir)
            if facts.weights == "package" and model is not None:
                package_file(name, model)
        check_scales(config)
        check_words(config)
        check_captions(config, base)
        check_tiles(config)
        if config.section(ExternalConfig) is None:
            check_folds(config, base)
    else:
        cohort = cohort.model_copy(update={"missing_files": "ledger"})
    rows = slide_rows(cohort, base)
    if check:
        if cohort.source == "sheet" and "shared_slides" not in cohort.accept:
            report("the sheet's slides", shared_slides(rows, identities(cohort, rows, recall)))
        external = config.section(ExternalConfig)
        if external is not None:
            check_apart(rows, identities(cohort, rows, recall), base / external.trained)
        made = config.folds.import_dir is None and external is None
        folds = config.folds.k if made else None
        check_labels(rows, config.tasks, folds=folds, accepted=cohort.accept)
        if external is None:
            check_covariates(rows, cohort.covariates, config.tasks)
        else:
            specs = config.model_specs()
            check_read(rows, {name: specs[name].covariates for name in config.applied()})
        if external is None and (cohort.source == "sheet" or not made):
            imported = _folds_digest(config.folds.import_dir, base)
            check_splits(config, rows, base, imported, recall)
        _check_paths(config, rows, base)
    slides = {row.slide_id: row.case_id for row in rows}
    files = {}
    for name, facts in teachers.items():
        if facts.source == "import":
            files[name] = expected_files(name, facts, slides)
            if check:
                if "shared_slides" not in cohort.accept:
                    check_not_shared(name, files[name], slides)
                check_some_exist(name, facts, files[name])
                check_alike(name, files[name], recall or Recall(Path(), {}))
    chunks = cohort.chunks
    members: dict[int, list[SlideRow]] = {}
    for row in rows:
        members.setdefault(chunk_of(row.slide_id, chunks), []).append(row)

    @cache
    def chunk_print(chunk: int) -> str:
        known = identities(cohort, members[chunk], recall)
        return chunk_digest(members[chunk], known, chunk, chunks)

    @cache
    def table_print(chunk: int) -> str:
        places = [
            [r.slide_id, r.site, *(portable(p, base) for p in (r.path, r.mask, r.coordinates))]
            for r in members[chunk]
        ]
        return digest(chunk_print(chunk), places)

    @cache
    def imported_print(teacher: str, chunk: int) -> str:
        expected = {row.slide_id: files[teacher][row.slide_id] for row in members[chunk]}
        return files_digest(expected, recall)

    return CohortPlan(
        members={chunk: tuple(part) for chunk, part in members.items()},
        digest=chunk_print,
        table=table_print,
        imported=imported_print,
        sheet=cache(lambda: digest([_portable_row(row, base) for row in rows])),
        folds=cache(lambda: _folds_digest(config.folds.import_dir, base)),
    )


def _check_paths(config: Config, rows: Sequence[SlideRow], base: Path) -> None:
    """Files of the config that nobody opens before the work has begun."""
    weights = config.tiling.tissue.weights
    tiled = any(facts.source != "import" for facts in tile_teachers(config).values())
    if weights is not None and tiled and config.tiling.tissue.method == "learned":
        for needed in (base / weights, base / f"{weights}.json"):
            if not needed.is_file():
                raise ConfigError(f"tiling.tissue.weights: no file {needed}; correct the path")
    probing = config.section(ProbingConfig)
    if probing is not None and (pattern := probing.annotations):
        paths = [as_on_disk(base / pattern.format(slide_id=row.slide_id)) for row in rows]
        if not any(path.is_file() for path in paths):
            raise ConfigError(
                f"probing.annotations: no slide has a file; the first would be {paths[0]}. Correct "
                f"the pattern, or leave the key out"
            )


def annotation_digest(config: Config, plan: CohortPlan, base: Path) -> str:
    """Of the annotation files that `probing.annotations` names; '' where it names none.

    Args:
        config: the config.
        plan: the cohort, for its slides.
        base: folder that relative paths of the config start from.
    """
    probing = config.section(ProbingConfig)
    if probing is None or probing.annotations is None:
        return ""
    paths = {
        row.slide_id: as_on_disk(base / probing.annotations.format(slide_id=row.slide_id))
        for row in plan.rows
    }
    return digest({slide: file_identity(path) for slide, path in paths.items() if path.is_file()})


def captions_digest(config: Config, base: Path) -> str:
    """Of the file that `vision_language.captions` names; '' where it names none, or none is there.

    Args:
        config: the config.
        base: folder that relative paths of the config start from.
    """
    section = config.section(VisionLanguageConfig)
    return _file_digest(None if section is None else section.captions, base)


def pairs_digest(config: Config, base: Path) -> str:
    """Of the file that `pairs.captions` names; '' where it names none, or none is there.

    Args:
        config: the config.
        base: folder that relative paths of the config start from.
    """
    section = config.section(PairsConfig)
    return _file_digest(None if section is None else section.captions, base)


def _file_digest(name: str | None, base: Path) -> str:
    path = None if name is None else base / name
    return content_digest(path) if path is not None and path.is_file() else ""


def _portable_row(row: SlideRow, base: Path) -> list[object]:
    paths = [portable(name, base) for name in (row.path, row.mask, row.coordinates)]
    return [row.slide_id, row.case_id, row.mpp, row.site, *paths, row.labels]


def _folds_digest(folder: str | None, base: Path) -> str:
    """Of names and contents; the stage itself says what is wrong with them."""
    if folder is None:
        return ""
    files = sorted((base / Path(folder).expanduser()).rglob("*.csv"))
    return digest([[file.name, content_digest(file)] for file in files])
