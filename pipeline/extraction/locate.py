"""Where the feature files of an imported teacher are expected. Standard library only.

Used when the workflow is parsed, so that a wrong folder, pattern or table is said before any work.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pipeline.config.extraction import TeacherConfig
from pipeline.errors import ConfigError
from pipeline.files.digests import digest
from pipeline.files.identity import file_identity
from pipeline.files.names import as_on_disk, composed
from pipeline.files.recall import Recall


def expected_files(
    teacher: str, facts: TeacherConfig, slides: Mapping[str, str]
) -> dict[str, Path | None]:
    """The file of each slide, whether or not it exists.

    Args:
        teacher: its name, for messages.
        facts: its config: `path` with `pattern`, or with `table`.
        slides: slide_id to case_id.

    Returns:
        slide_id to an absolute path; None where the table lacks the slide.

    Raises:
        ConfigError: the folder or table is missing, or the pattern or table is wrong.
    """
    where = f"extraction.teachers.{teacher}"
    folder = as_on_disk(Path(str(facts.path)).expanduser().absolute())
    if not folder.is_dir():
        raise ConfigError(f"{where}.path: {folder} is not a folder")
    if facts.table:
        known = _read_table(where, as_on_disk(Path(facts.table).expanduser()))
        return {
            s: as_on_disk(folder / known[composed(s)]) if composed(s) in known else None
            for s in slides
        }
    try:
        return {
            slide_id: as_on_disk(folder / facts.pattern.format(slide_id=slide_id, case_id=case_id))
            for slide_id, case_id in slides.items()
        }
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"{where}.pattern: `{facts.pattern}` has {error}; it may use {{slide_id}}, {{case_id}}"
        ) from None


def files_digest(files: Mapping[str, Path | None], recall: Recall | None = None) -> str:
    """A digest of the names and contents of some slides' files."""
    return digest({s: p and [p.name, file_identity(p, recall)] for s, p in files.items()})


def check_some_exist(teacher: str, facts: TeacherConfig, files: Mapping[str, Path | None]) -> None:
    """Refuse a teacher without a file for any slide of the cohort.

    Args:
        teacher: the teacher's name.
        facts: its settings.
        files: slide → its file; None where there is none.

    Raises:
        ConfigError: none has; says what was looked for and what is there.
    """
    if not files or any(path and path.is_file() for path in files.values()):
        return
    folder = Path(str(facts.path)).expanduser().absolute()
    there = sorted(p.name for p in folder.iterdir())[:5]
    asked = [path.name for path in files.values() if path][:5]
    raise ConfigError(
        f"extraction.teachers.{teacher}: not one of {len(files)} slides has a file in {folder}. "
        f"Looked for {', '.join(asked) or 'nothing'}, …; the folder holds "
        f"{', '.join(there) or 'nothing'}, …. Correct `pattern:` (now `{facts.pattern}`) or give a "
        "`table:` with slide_id and path"
    )


def check_not_shared(
    teacher: str, files: Mapping[str, Path | None], slides: Mapping[str, str]
) -> None:
    """Refuse a file that stands for slides of different cases: training and test would share it.

    Args:
        teacher: its name.
        files: slide_id to file, from `expected_files`.
        slides: slide_id to case_id.

    Raises:
        ConfigError: names the first such file and its cases.
    """
    cases: dict[str, set[str]] = {}
    for slide_id, path in files.items():
        if path is not None:
            cases.setdefault(os.path.realpath(path), set()).add(slides[slide_id])
    shared = sorted(path for path, of in cases.items() if len(of) > 1)
    if shared:
        some = ", ".join(sorted(cases[shared[0]])[:5])
        raise ConfigError(
            f"extraction.teachers.{teacher}: {len(shared)} file(s) stand for slides of different "
            f"cases: {shared[0]} for the cases {some}. Put {{slide_id}} or {{case_id}} into "
            f"`pattern:`, or correct the table"
        )


def _read_table(where: str, path: Path) -> dict[str, str]:
    """slide_id, accents as one character -> path, from a CSV or TSV."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError:
        raise ConfigError(f"{where}.table: {path}: no such file") from None
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter)
    missing = {"slide_id", "path"} - set(rows.fieldnames or ())
    if missing:
        raise ConfigError(f"{where}.table: {path} lacks the columns {sorted(missing)}")
    pairs = [(composed(row["slide_id"]), row["path"]) for row in rows]
    twice = sorted(s for s, n in Counter(s for s, _ in pairs).items() if n > 1)
    if twice:
        raise ConfigError(f"{where}.table: {path}: slides occur twice: {', '.join(twice[:20])}")
    return dict(pairs)
