"""Teachers whose features other tools made: found, checked and listed, never copied.

A folder of feature files (any layout of `pipeline.bags.files`) is a teacher with `source: import`.
Each slide's file is found by the pattern, e.g. `{slide_id}.h5`, or in a table.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.bags.files import EmptyFeatures, FeatureFile, check_finite, open_features
from pipeline.config.extraction import ExtractionConfig
from pipeline.contracts import ledger
from pipeline.contracts.ledger import Record
from pipeline.errors import ArtifactError, MachineError
from pipeline.extraction.locate import check_some_exist, expected_files, files_digest
from pipeline.files.artifacts import sweep
from pipeline.files.digests import digest
from pipeline.files.hdf5 import being_written
from pipeline.files.parquet import read_table
from pipeline.runtime import progress

# Raised when what is taken in from imported files changes. 1: the first.
VERSION = 1


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
    one that is damaged or has NaN `failed`, kind `bad_features`.

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
        ArtifactError: the files do not all have the same dimensions; lists them.
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

    records: list[Record] = []
    files: dict[str, FeatureFile] = {}
    for slide_id in progress.counted(wanted, "slides"):
        record, file = _look(slide_id, stage, paths[slide_id])
        records.append(record)
        if file is not None:
            files[slide_id] = file
    same_dims(teacher, files)
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


def same_dims(teacher: str, files: dict[str, FeatureFile]) -> None:
    """Check that all files have the same levels and dimensions.

    Raises:
        ArtifactError: they differ; lists the files of the smaller group.
    """
    kinds = Counter(tuple(sorted(f.dims.items())) for f in files.values())
    if len(kinds) > 1:
        usual = kinds.most_common(1)[0][0]
        odd = [f for f in files.values() if tuple(sorted(f.dims.items())) != usual]
        shown = "\n".join(f"  - {f.path}: {f.dims}" for f in odd[:50])
        raise ArtifactError(
            f"teacher `{teacher}`: {len(odd)} of {len(files)} files have other dimensions than "
            f"{dict(usual)}. Extract them again, or make two teachers of them:\n{shown}"
        )


def _look(slide_id: str, stage: str, path: Path | None) -> tuple[Record, FeatureFile | None]:
    if path is None or not path.is_file():
        reason = f"no feature file {path.name}" if path else "not in the teacher's table"
        return Record(slide_id, stage, "failed", kind="missing_features", reason=reason), None
    try:
        file = open_features(path)
        check_finite(file)
    except EmptyFeatures as error:
        return Record(slide_id, stage, "empty", kind="no_tiles", reason=str(error)), None
    except ArtifactError as error:
        if being_written(path):
            raise MachineError(
                f"{path}: another program is still writing it; wait until it has ended"
            ) from None
        return Record(slide_id, stage, "failed", kind="bad_features", reason=str(error)), None
    facts: dict[str, Any] = {"n_tiles": file.n_tiles, "dims": file.dims, "format": file.format}
    return Record(slide_id, stage, "ok", path=str(path), facts=facts), file
