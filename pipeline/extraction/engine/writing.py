"""The writer's part of the engine: features to files, one file per slide and teacher."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.contracts import ledger
from pipeline.contracts.ledger import Record
from pipeline.encoders.build import Encoder
from pipeline.errors import SlideError
from pipeline.extraction.engine.channel import Channel
from pipeline.extraction.engine.messages import Result, SlideToRead
from pipeline.extraction.writer import Block, facts, feature_file


def write_slides(
    results: Channel[Result],
    encoders: Sequence[Encoder],
    records: dict[tuple[str, str], Record],
    progress: Callable[[int], Any],
) -> None:
    """Write results to feature files until there are no more.

    Args:
        results: what each teacher says of a slide's tiles.
        encoders: the teachers.
        records: (slide, teacher) → record; filled here.
        progress: is told how many tiles were written.
    """
    named = {e.name: e for e in encoders}
    remaining = iter(results)
    for first in remaining:
        _write_slide(first, remaining, named, records, progress)


def _write_slide(
    first: Result,
    following: Iterator[Result],
    encoders: Mapping[str, Encoder],
    records: dict[tuple[str, str], Record],
    progress: Callable[[int], Any],
) -> None:
    """Write one slide's files, one per teacher, from its first result to its last."""
    job = first.job
    files: dict[str, contextlib.ExitStack] = {}
    appends: dict[str, Callable[[Block], None]] = {}
    try:
        for teacher, path in job.outputs.items():
            encoder = encoders[teacher]
            files[teacher] = contextlib.ExitStack()
            appends[teacher] = files[teacher].enter_context(
                feature_file(path, job.grid, encoder.dims, _attributes(job, encoder))
            )
        for result in itertools.chain([first], following):
            if result.features is None:
                for teacher, file in files.items():
                    records[job.slide_id, teacher] = _finish(file, job, teacher, result.error)
                return
            for teacher, block in result.features.items():
                if teacher not in files:
                    continue
                try:
                    appends[teacher](block)
                except SlideError as error:
                    file = files.pop(teacher)
                    records[job.slide_id, teacher] = _finish(file, job, teacher, error)
            progress(max(len(b.rows) + b.dropped for b in result.features.values()))
    except BaseException as error:
        for file in files.values():
            with contextlib.suppress(type(error)), file:
                raise error
        raise


def _finish(
    file: contextlib.ExitStack, job: SlideToRead, teacher: str, error: SlideError | None
) -> Record:
    """Close a feature file, or throw it away with an error, and say what became of it."""
    stage = f"extraction/{teacher}"
    try:
        with file:
            if error is not None:
                raise error
    except SlideError as problem:
        job.outputs[teacher].unlink(missing_ok=True)  # an earlier run's, now without a slide
        return ledger.failed(job.slide_id, stage, problem)
    return finished(job.slide_id, teacher, job.outputs[teacher])


def finished(slide_id: str, teacher: str, path: Path) -> Record:
    """The record of a slide whose feature file is whole.

    Args:
        slide_id: the slide.
        teacher: the teacher's name.
        path: of its feature file.
    """
    return Record(slide_id, f"extraction/{teacher}", "ok", path=str(path), facts=facts(path))


def _attributes(job: SlideToRead, encoder: Encoder) -> dict[str, Any]:
    return {
        **encoder.facts,
        "teacher": encoder.name,
        "slide_id": job.slide_id,
        "precision": encoder.precision,
        "fingerprint": job.fingerprints[encoder.name],
        **{f"dim_{level}": dim for level, dim in encoder.dims.items()},
        "dim": encoder.dims.get("high", 0),
    }
