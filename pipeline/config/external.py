"""`external:`, models of another cohort's run on a cohort that had no part in it.

With this section nothing is trained: the cohort is tiled and encoded as the training cohort was,
whose models, one for each fold, predict its cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.section import Name, Section
from pipeline.config.tasks import TaskConfig
from pipeline.errors import ConfigError, nearest

WRITTEN_DOWN = Path("report") / "config.yaml"
# What the models were trained with, and what a user may still say.
INHERITED = (
    "tiling",
    "extraction",
    "pretraining",
    "encoder_distillation",
    "tasks",
    "folds",
    "training",
)
ADJUSTABLE = ("mapping", "evaluation")
OWN = ("cohort", "external", "report")
IMPORTED_KEYS = {"source", "path", "pattern", "table"}


class ExternalConfig(Section):
    """Where the trained models are, and which of them are applied (all, where none is named)."""

    trained: str
    models: tuple[Name, ...] = ()


class ExternalPredictionsJob(Section):
    """One model of one task, applied to the cohort.

    Attributes:
        external: where it was trained.
        task: the task.
        max_tiles: most tiles of a case, as in its training.
        precision: of its forward pass.
        made: an encoder that the training cohort's run made and the model reads, by the name that
            the model calls it, and the folder of its features; with `{fold}` in it each fold has
            one of its own.
    """

    external: ExternalConfig
    task: TaskConfig
    max_tiles: int | None
    precision: str
    made: dict[str, str] = Field(default_factory=dict)


class ExternalJob(Section):
    """A task's evaluation on the cohort.

    Attributes:
        external: where the models were trained.
        evaluation: the evaluation section.
        task: the task.
        applied: names of the models.
    """

    external: ExternalConfig
    evaluation: EvaluationConfig
    task: TaskConfig
    applied: list[str]


def with_training(data: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """The config of an external cohort with what its models were trained with; others as they are.

    Args:
        data: as it was read from YAML.
        source: the file, for messages.

    Raises:
        ConfigError: the training cohort's run is not there or not finished, or the config says
            something else than it does.
    """
    section = data.get("external")
    if not isinstance(section, Mapping) or not isinstance(section.get("trained"), str):
        return data
    path = Path(section["trained"]) / WRITTEN_DOWN
    try:
        trained = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError):
        raise ConfigError(
            f"{source}: external.trained: {path} is not there; name the results folder of the "
            "training cohort, results/<name>, whose run has written its report"
        ) from None
    if trained.get("external"):
        raise ConfigError(
            f"{source}: external.trained: {section['trained']} is an external cohort itself; name "
            "the cohort that its models were trained on"
        )
    merged = {key: trained[key] for key in (*INHERITED, *ADJUSTABLE) if key in trained}
    merged["folds"] = {**merged.get("folds", {}), "import_dir": None}
    for key, value in data.items():
        if key in ADJUSTABLE and isinstance(value, Mapping):
            merged[key] = {**merged.get(key, {}), **value}
        elif key == "extraction" and isinstance(value, Mapping):
            merged[key] = _elsewhere(merged.get(key, {}), value, source)
        elif key in INHERITED and value != merged.get(key):
            raise ConfigError(
                f"{source}: {key}: an external cohort takes this section from the run that its "
                f"models were trained in ({path}); remove it here"
            )
        elif key not in INHERITED:
            merged[key] = value
    # The models read the columns that they were trained with.
    columns = (trained.get("cohort") or {}).get("covariates")
    if columns and isinstance(merged.get("cohort"), Mapping):
        merged["cohort"] = {"covariates": columns, **merged["cohort"]}
    named = Path(section["trained"]).name
    title = f"External validation of the models of {named}"
    merged["report"] = {"title": title, **(merged.get("report") or {})}
    return merged


def _elsewhere(trained: Mapping[str, Any], own: Mapping[str, Any], source: str) -> Any:
    """The extraction section with other places of imported features; nothing else may differ."""
    teachers = dict(trained.get("teachers", {}))
    given = own.get("teachers", {})
    rest = {key for key in own if key != "teachers" and own[key] != trained.get(key)}
    if rest or not isinstance(given, Mapping):
        raise ConfigError(
            f"{source}: extraction: an external cohort is encoded as the training cohort was; only "
            "`teachers.<name>.path`, `pattern` and `table` of imported features may be given"
        )
    for name, facts in given.items():
        known = teachers.get(name)
        if known is None:
            raise ConfigError(
                f"{source}: extraction.teachers.{name}: the training cohort has no such teacher"
                f"{nearest(str(name), teachers)}"
            )
        changed = {key for key, value in (facts or {}).items() if value != known.get(key)}
        if changed and (known.get("source") != "import" or changed - IMPORTED_KEYS):
            raise ConfigError(
                f"{source}: extraction.teachers.{name}: {', '.join(sorted(changed))} must be as in "
                "the training cohort; only the place of imported features may differ"
            )
        teachers[name] = {**known, **(facts or {})}
    return {**trained, "teachers": teachers}
