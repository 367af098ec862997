"""Teachers whose features other tools made: found, checked and listed, never copied.

A folder of feature files (any layout of `pipeline.bags.files`) is a teacher with `source: import`.
Each slide's file is found by the pattern, e.g. `{slide_id}.h5`, or in a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.bags.files import EmptyFeatures, open_features
from pipeline.bags.survey import ConstantFeatures, survey
from pipeline.config.extraction import ExtractionConfig
from pipeline.contracts import ledger, slide_warnings
from pipeline.contracts.ledger import Record
from pipeline.contracts.same_features import ENCODER, check_same_features
from pipeline.contracts.slide_warnings import SlideWarning
from pipeline.errors import ArtifactError, MachineError
from pipeline.extraction.locate import check_some_exist, expected_files, files_digest
from pipeline.files.artifacts import sweep
from pipeline.files.digests import digest
from pipeline.files.hdf5 import being_written
from pipeline.files.parquet import read_table
from pipeline.runtime import progress

# Raised when what is taken in from imported files changes. 1: the first. 2: files without
# information are failures, and what each file's numbers are like is written down.
VERSION = 2


def run(
    *,
    cfg: ExtractionConfig,
    teacher: str,
    root: Path,
    chunk: int,
    out: Path,
    expected: str | None = None,
) -> None:
    """List and check a chunk's imported feature files in a manifest.

    A slide without a file becomes `failed`, kind `missing_features`; a file without rows `empty`;
    one that is damaged or has NaN `failed`, kind `bad_features`; one whose rows are all equal, or
    zeros, `failed`, kind `constant_features`.

    Args:
        cfg: the extraction section.
        teacher: a key of `cfg.teachers` with `source: import`.
        root: the cohort's results folder, with `slides/<chunk>.parquet`.
        chunk: which slides.
        out: the manifest to write.
        expected: digest of the files when the run was planned; None: not known.

    Raises:
        MachineError: files changed or vanished since then.
        ConfigError: the folder or table is missing, or no slide of the cohort has a file.
        ArtifactError: the files are not all of the same dimensions and encoder; lists them.
    """
    sweep(out.parent)
    spec = cfg.teachers[teacher]
    stage = f"extraction/{teacher}"
    slides = read_table(root / "slides" / f"{chunk}.parquet")
    everything = {str(r.slide_id): str(r.case_id) for r in slides.itertuples()}
    paths = expected_files(teacher, spec, everything)
    check_some_exist(teacher, spec, paths)
    wanted = sorted(str(s) for s in slides.loc[slides["chunk"] == chunk, "slide_id"])
    _check_planned(teacher, {s: paths[s] for s in wanted}, expected)

    records = [
        _look(slide_id, stage, paths[slide_id]) for slide_id in progress.counted(wanted, "slides")
    ]
    check_same_features(teacher, records)
    _check_planned(teacher, {s: paths[s] for s in wanted}, expected)
    ledger.write_manifest(out, stage, digest(teacher, spec.canonical()), records)


def _check_planned(teacher: str, files: dict[str, Path | None], expected: str | None) -> None:
    """The manifest is final, so it must not hold what a disk shows that is gone for a moment."""
    if expected is not None and files_digest(files) != expected:
        gone = [path for path in files.values() if path is not None and not path.is_file()]
        more = f" ({len(gone)} are not there now, e.g. {gone[0]})" if gone else ""
        raise MachineError(
            f"teacher `{teacher}`: feature files changed since the run began{more}; see whether "
            "their disk is mounted and nobody is still writing them"
        )


def _look(slide_id: str, stage: str, path: Path | None) -> Record:
    if path is None or not path.is_file():
        reason = f"no feature file {path.name}" if path else "not in the teacher's table"
        return Record(slide_id, stage, "failed", kind="missing_features", reason=reason)
    try:
        file = open_features(path)
        found = survey(file)
    except EmptyFeatures as error:
        return Record(slide_id, stage, "empty", kind="no_tiles", reason=str(error))
    except ConstantFeatures as error:
        return Record(slide_id, stage, "failed", kind="constant_features", reason=str(error))
    except ArtifactError as error:
        if being_written(path):
            raise MachineError(
                f"{path}: another program is still writing it; wait until it has ended"
            ) from None
        return Record(slide_id, stage, "failed", kind="bad_features", reason=str(error))
    facts: dict[str, Any] = {"n_tiles": file.n_tiles, "dims": file.dims, "format": file.format}
    facts |= {"marks": found.marks, "sketch": list(found.sketch)}
    if file.encoder:
        facts[ENCODER] = file.encoder
    record = Record(slide_id, stage, "ok", path=str(path), facts=facts)
    if not found.zero_rows:
        return record
    text = f"{found.zero_rows} of {file.n_tiles} rows of {path} are zeros"
    return slide_warnings.added(record, SlideWarning("zero_rows", text))
