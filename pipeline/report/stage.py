"""The stage: gather the sections, draw the page, write it and its figures."""

from __future__ import annotations

import dataclasses
import datetime
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.accounting import run_summary
from pipeline.config.external import ExternalConfig
from pipeline.config.whole import Config
from pipeline.contracts.folds_summary import FoldsSummary, read_folds_summary
from pipeline.encoders import speaking
from pipeline.files.artifacts import atomic_path, sweep, write_json, write_text
from pipeline.report import results
from pipeline.report.figures import style
from pipeline.report.figures.charts import Drawing
from pipeline.report.sections import (
    attention,
    encoders,
    external,
    flow,
    pairs,
    pretraining,
    provenance,
    slides,
    tasks,
    teachers,
    timings,
    words,
)
from pipeline.report.sections.planned_vs_actual import Planner
from pipeline.report.tables import cells

# Raised when a finished study's report should be written again. 1: the first.
VERSION = 1

HERE = Path(__file__).resolve().parent


def run(*, config: Config, root: Path, planner: Planner | None = None) -> None:
    """Write `report.html`, and next to it, under `report/`, its figures as SVG, the config as YAML
    and the attention of the cases shown as GeoJSON for QuPath.

    The page holds everything it shows and opens without a network. Parts whose input a run does
    not have (attention, benchmarks, slides) say why they are absent.

    Args:
        config: the whole config.
        root: the cohort's results folder.
        planner: makes the plan to compare the run with.

    Raises:
        ArtifactError: an input that the report cannot do without is missing or damaged.
    """
    sweep(root, root / "report")
    opened = results.read(config, root)
    elsewhere = config.section(ExternalConfig)
    trained = [] if elsewhere else opened.tasks
    folds = {task: read_folds_summary(root, task) for task in trained}
    looked = attention.section(opened)
    asked = words.section(opened)
    sections = {
        "flow": flow.section(opened, folds),
        "slides": slides.section(opened),
        "teachers": teachers.section(opened),
        # How encoders were made, the report of the training cohort says.
        "pretraining": None if elsewhere else pretraining.section(opened),
        "encoders": None if elsewhere else encoders.section(opened),
        "tasks": [
            external.section(opened, task, Path(elsewhere.trained))
            if elsewhere
            else tasks.section(opened, task, folds[task])
            for task in opened.tasks
        ],
        "attention": looked,
        "pairs": pairs.section(opened),
        "words": asked,
        "timings": timings.section(opened, planner),
        "provenance": provenance.section(opened),
    }
    drawings = _drawings(sections)
    _write_figures(root / "report", drawings)
    _write_attention(root, looked)
    _write_words(root, asked)
    write_text(root / "report" / "config.yaml", provenance.config_yaml(config))
    write_text(root / "report.html", render(config, opened, folds, sections))


@dataclasses.dataclass(frozen=True)
class Notice:
    """A plain label at the head of the page; `level` is caution or alarm."""

    level: str
    title: str
    text: str


def notices(opened: results.Results, folds: Mapping[str, FoldsSummary]) -> list[Notice]:
    """What a reader must know before any number: validation results, embedded cohort, weights."""
    found = []
    labelled = [task for task, content in folds.items() if content.labelled != "test"]
    if labelled:
        found.append(
            Notice(
                "alarm",
                "Validation, not test.",
                f"The folds of {', '.join(labelled)} use the same cases to choose a model and to "
                f"measure it; every number there is too good by an unknown amount.",
            )
        )
    elsewhere = opened.config.section(ExternalConfig)
    if elsewhere:
        found.append(
            Notice(
                "caution",
                "External cohort.",
                f"No model was trained or chosen on these cases: those of {elsewhere.trained} were "
                "applied as they are, each case by the mean of all folds' models.",
            )
        )
    if opened.config.cohort.source == "synthetic":
        found.append(
            Notice(
                "caution",
                "Embedded cohort.",
                "The slides were drawn by a program, not scanned from tissue.",
            )
        )
    untrained = teachers.random_weights(opened)
    if untrained:
        found.append(Notice("caution", "Teachers without training.", untrained))
    return found


@dataclasses.dataclass(frozen=True)
class KeyEntry:
    label: str
    colour: str


def key(config: Config) -> list[KeyEntry]:
    """The colours of the models, for those roles that occur."""
    asked = [speaking.model_name(teacher) for teacher in speaking.speaking(config)]
    roles = {results.describe(config, name).role for name in (*config.model_specs(), *asked)}
    entries = [
        ("student", KeyEntry("student", style.STUDENT)),
        ("single", KeyEntry("single teacher", style.SINGLE)),
        ("fusion", KeyEntry("fusion, other students", style.FUSION)),
        ("single", KeyEntry("average of the teachers' scores", style.AVERAGE)),
        ("covariates", KeyEntry("covariates, no slides", style.INK)),
        ("ablation", KeyEntry("ablation of the student", style.ABLATION)),
        ("words", KeyEntry("words alone, without training", style.REFERENCE)),
    ]
    return [entry for role, entry in entries if role in roles]


def render(
    config: Config,
    opened: results.Results,
    folds: Mapping[str, FoldsSummary],
    sections: dict[str, object],
) -> str:
    """The page as HTML. All texts are escaped; only what this package draws is taken as markup.

    Args:
        config: the config.
        opened: the opened results.
        folds: task -> how its cases were split.
        sections: name → section, as the template knows them.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(plural=cells.plural, whole=cells.whole)
    css = (HERE / "style.css").read_text()
    return environment.get_template("page.html").render(
        title=config.report.title,
        cohort=opened.cohort,
        name=config.cohort.name,
        synthetic=config.cohort.source == "synthetic",
        css=Markup(css),
        notices=notices(opened, folds),
        key=key(config),
        confidence=f"{100 * config.evaluation.confidence:g}",
        account=run_summary.used_and_lost(opened.flow),
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **sections,
    )


def _drawings(sections: dict[str, object]) -> list[Drawing]:
    """Every figure in the sections, wherever it stands in them."""
    found: list[Drawing] = []
    todo: list[object] = list(sections.values())
    while todo:
        item = todo.pop(0)
        if isinstance(item, Drawing):
            found.append(item)
        elif isinstance(item, list | tuple):
            todo += item
        elif hasattr(item, "__dataclass_fields__"):
            todo += [getattr(item, field) for field in item.__dataclass_fields__]
    return found


def _write_figures(folder: Path, drawings: list[Drawing]) -> None:
    """Write each figure as SVG, and remove those of an earlier run that are no longer made."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {f"{drawing.name}.svg" for drawing in drawings}
    for old in folder.glob("*.svg"):
        if old.name not in kept:
            old.unlink()
    for drawing in drawings:
        write_text(folder / f"{drawing.name}.svg", drawing.document)


def _write_words(root: Path, section: words.WordsSection | None) -> None:
    """Write the maps of words as PNG and as GeoJSON, in place of those of an earlier run."""
    shutil.rmtree(root / words.FOLDER, ignore_errors=True)
    for slide in (slide for one in (section.spoken if section else ()) for slide in one.maps):
        write_json(root / words.FOLDER / f"{slide.name}.geojson", slide.squares)
        for drawn in slide.maps[1:]:
            label = re.sub(r"[^A-Za-z0-9-]+", "_", drawn.label)
            path = root / words.FOLDER / f"{slide.name}-{label}.png"
            with atomic_path(path) as temporary:
                drawn.image.save(temporary, "PNG")


def _write_attention(root: Path, section: attention.AttentionSection) -> None:
    """Write the GeoJSON of each case shown, and remove those of an earlier run."""
    kept = {root / case.geojson for case in section.cases}
    for old in (root / attention.FOLDER).glob("*.geojson"):
        if old not in kept:
            old.unlink()
    for case in section.cases:
        write_json(root / case.geojson, case.squares)
