"""Which teachers are asked in words, of which tasks; imported at every parse of the workflow."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.pairs import PairsConfig
from pipeline.config.tasks import ClassificationTask
from pipeline.config.vision_language import EMBEDDED, VisionLanguageConfig
from pipeline.config.whole import Config
from pipeline.encoders import registry
from pipeline.errors import ConfigError, nearest

# Text towers that run with their authors' package alone, which is not on the package index.
ELSEWHERE = ("musk",)


def speaking(config: Config) -> list[str]:
    """The teachers that are asked in words: those whose text tower can be run here; none where the
    config has no section `vision_language`."""
    return [t for t in _with_words(config) if t not in silent(config)]


def silent(config: Config) -> list[str]:
    """The teachers with a text tower that cannot be run here, and which therefore are not asked."""
    rows = {t: registry.row_of(t, cfg) for t, cfg in config.extraction.teachers.items()}
    kinds = {t: row.text["kind"] for t, row in rows.items() if row is not None and row.text}
    return [t for t in _with_words(config) if kinds.get(t) in ELSEWHERE]


def _with_words(config: Config) -> list[str]:
    if config.section(VisionLanguageConfig) is None:
        return []
    return [t for t, cfg in config.extraction.teachers.items() if registry.speaks(t, cfg)]


def asked(config: Config) -> list[str]:
    """The tasks with prompts."""
    section = config.section(VisionLanguageConfig)
    return [] if section is None else list(section.prompts)


def model_name(teacher: str) -> str:
    """What a teacher's zero-shot predictions are called among the models."""
    return f"zero_shot_{teacher}"


def zero_shot_models(config: Config, task: str) -> list[str]:
    """The zero-shot predictions that stand beside a task's trained models.

    Args:
        config: the config.
        task: the task's name.
    """
    return [model_name(t) for t in speaking(config)] if task in asked(config) else []


def check_captions(config: Config, base: Path) -> None:
    """Refuse captions that are not there, before hours of work that end with them.

    Args:
        config: the config.
        base: folder that its relative paths start from.

    Raises:
        ConfigError: captions are to be those of the embedded cohort, and the cohort is another; or
            their file does not exist.
    """
    words, pairs = config.section(VisionLanguageConfig), config.section(PairsConfig)
    named = {} if words is None or words.captions is None else {"vision_language": words.captions}
    if pairs is not None:
        named["pairs"] = pairs.captions or EMBEDDED
    for section, captions in named.items():
        if captions == EMBEDDED:
            if config.cohort.source != "synthetic":
                raise ConfigError(
                    f"{section}.captions: only the embedded cohort brings captions along; name a "
                    "CSV with slide_id, x, y and caption"
                )
        elif not (base / captions).is_file():
            raise ConfigError(f"{section}.captions: {captions}: no such file")


def check_words(config: Config) -> None:
    """Refuse prompts that nobody can answer.

    Raises:
        ConfigError: no teacher has a text tower; prompts are of no task, or of one without classes,
            or their classes are not the task's; a trained model has the name of a zero-shot one.
    """
    section = config.section(VisionLanguageConfig)
    if section is None:
        return
    if not speaking(config):
        raise ConfigError(
            "vision_language: no teacher has a text tower that can be run here; add one that has, "
            "such as plip, conch, keep or a model with source: open_clip, or remove the section"
        )
    for name, classes in section.prompts.items():
        where = f"vision_language.prompts.{name}"
        task = config.tasks.get(name)
        if task is None:
            raise ConfigError(f"{where}: no such task{nearest(name, config.tasks)}")
        if not isinstance(task, ClassificationTask):
            raise ConfigError(f"{where}: words name classes, and the task is a {task.type}")
        if task.classes is not None and set(task.classes) != set(classes):
            odd = sorted(set(task.classes) ^ set(classes))[0]
            raise ConfigError(
                f"{where}: `{odd}` is in either the prompts or the task's classes alone"
                f"{nearest(odd, task.classes)}"
            )
        for model in zero_shot_models(config, name):
            if model in config.model_specs():
                raise ConfigError(
                    f"training: a model is called `{model}`, which is the name of zero-shot "
                    "predictions; rename it"
                )
