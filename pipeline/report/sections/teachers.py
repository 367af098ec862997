"""Section 3: the teachers, where their weights come from, and what may be done with them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders.slide_level.registry import row_of
from pipeline.files.hdf5 import read_hdf5
from pipeline.report.results import Results
from pipeline.report.sections import probes, robustness, tile_students
from pipeline.report.sections.probes import ProbesSection
from pipeline.report.sections.robustness import RobustnessSection
from pipeline.report.tables.cells import Column, Table, code, count, text

_WEIGHTS = {
    "hub": "public hub",
    "package": "Python package",
    "local": "local file",
    "random": "random, seeded: never trained",
    "import": "imported features",
}


@dataclasses.dataclass(frozen=True)
class TeachersSection:
    table: Table
    warning: str
    probes: ProbesSection | None
    tile_students: Table | str | None
    robustness: RobustnessSection | None


def section(results: Results) -> TeachersSection:
    """Build the section; a warning stands above it when a teacher has random weights."""
    return TeachersSection(
        table=_table(results),
        warning=random_weights(results),
        probes=probes.section(results),
        tile_students=tile_students.table(results),
        robustness=robustness.section(results),
    )


def random_weights(results: Results) -> str:
    """The plain sentence about teachers that were never trained; empty when there are none."""
    teachers = results.config.extraction.teachers
    untrained = [
        name for name, t in teachers.items() if t.source != "import" and t.weights == "random"
    ]
    if not untrained:
        return ""
    which = "All teachers" if len(untrained) == len(teachers) else ", ".join(untrained)
    verb = "are" if len(untrained) != 1 or which == "All teachers" else "is"
    small = "small encoders" if verb == "are" else "an encoder"
    return (
        f"{which} here {verb} {small} with random, never trained weights. They replace "
        f"foundation models here, to show that every stage works; the numbers say nothing about "
        f"pathology foundation models."
    )


def _table(results: Results) -> Table:
    rows = []
    for name, teacher in results.config.extraction.teachers.items():
        facts = attributes(results, name)
        flow = results.flow.teachers[name]
        dims = ", ".join(f"{level} {dim}" for level, dim in sorted(flow.dims.items(), key=_depth))
        rows.append(
            [
                text(name),
                code(_model(name, teacher, facts)),
                text(dims),
                text(_weights(teacher, facts)),
                text(_licence(name, teacher)),
                text(_formats(results, name)),
                count(flow.slides),
            ]
        )
    return Table(
        caption="Teachers",
        columns=[
            Column("teacher"),
            Column("model"),
            Column("width per level"),
            Column("weights"),
            Column("licence"),
            Column("files"),
            Column("slides", True),
        ],
        rows=rows,
        read="Width is the length of the vector that a teacher gives for each tile, at a third, at "
        "two thirds and at the end of its depth; of a slide encoder, for each slide or region.",
        source=("features/<teacher>/manifest/", "features/<teacher>/<slide>.h5"),
    )


def _depth(item: tuple[str, Any]) -> tuple[int, str]:
    order = {"low": 0, "mid": 1, "high": 2}
    return order.get(item[0], 3), item[0]


def attributes(results: Results, teacher: str) -> Mapping[str, Any]:
    """The attributes of the teacher's first feature file, as texts and numbers; empty without one.

    Imported files are not opened: they carry other tools' attributes, or none.
    """
    settings = results.config.extraction.teachers.get(teacher)
    if settings is not None and settings.source == "import":
        return {}
    for record in results.features[teacher].values():
        if record.status == "ok":
            try:
                with read_hdf5(results.root / record.path) as file:
                    return {key: _plain(value) for key, value in file.attrs.items()}
            except OSError:
                return {}
    return {}


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _model(name: str, teacher: TeacherConfig, facts: Mapping[str, Any]) -> str:
    if teacher.source == "import":
        return teacher.path or ""
    return str(facts.get("model_id") or teacher.model or name)


def _weights(teacher: TeacherConfig, facts: Mapping[str, Any]) -> str:
    kind = "import" if teacher.source == "import" else str(facts.get("weights", teacher.weights))
    revision = facts.get("revision")
    shown = _WEIGHTS.get(kind, kind)
    return f"{shown}, revision {revision}" if revision and kind == "hub" else shown


def _licence(name: str, teacher: TeacherConfig) -> str:
    """What the registry says; of other sources the pipeline knows nothing."""
    if teacher.source == "import":
        return "the files' own"
    if teacher.source in ("timm", "open_clip"):
        return "Apache-2.0 (architecture)" if teacher.weights == "random" else "see the model card"
    row = row_of(name, teacher)
    assert row is not None
    limits = "; restricts models trained on its outputs" if row.derivative_restricted else ""
    return row.licence + limits


def _formats(results: Results, teacher: str) -> str:
    formats = Counter(
        str(r.facts.get("format") or "unknown")
        for r in results.features[teacher].values()
        if r.status == "ok"
    )
    return ", ".join(f"{name} ({n})" if len(formats) > 1 else name for name, n in formats.items())
