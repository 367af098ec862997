"""Which tile teacher each slide encoder reads, also where the config does not name it.

A slide encoder brings its tile encoder along: it is extracted as every other one, but no model
learns from it. Imported at every parse of the workflow.
"""

from __future__ import annotations

from pipeline.config.extraction import TeacherConfig
from pipeline.config.whole import Config
from pipeline.encoders.slide_level.registry import SLIDE, configured
from pipeline.errors import ConfigError


def slide_teachers(config: Config) -> dict[str, TeacherConfig]:
    """The teachers that are slide encoders."""
    return {n: t for n, t in config.extraction.teachers.items() if t.source == SLIDE}


def input_of(config: Config, teacher: str) -> str:
    """The name of the tile teacher that a slide encoder reads.

    Args:
        config: the config.
        teacher: the slide encoder.
    """
    settings = config.extraction.teachers[teacher]
    return settings.input or configured(teacher, settings).input


def tile_teachers(config: Config) -> dict[str, TeacherConfig]:
    """The teachers with features of tiles: those of the config, then those that slide encoders
    bring along, on the tiles that these were trained on.

    Raises:
        ConfigError: two slide encoders bring along the same teacher in different ways.
    """
    named = {n: t for n, t in config.extraction.teachers.items() if t.source != SLIDE}
    brought: dict[str, TeacherConfig] = {}
    for name, settings in slide_teachers(config).items():
        wanted = input_of(config, name)
        if wanted in named:
            continue
        row = configured(name, settings)
        own = TeacherConfig(
            weights="hub" if settings.path else settings.weights,
            seed=settings.seed,
            tile_px=row.tile_px,
            target_mpp=row.mpp,
            acknowledge_licence=settings.acknowledge_licence,
        )
        if brought.setdefault(wanted, own) != own:
            raise ConfigError(
                f"extraction.teachers.{name}: its tile encoder `{wanted}` is brought along by "
                f"another slide encoder with other settings; name `{wanted}` in "
                "extraction.teachers with those that hold for both"
            )
    return {**named, **brought}


def every_teacher(config: Config) -> dict[str, TeacherConfig]:
    """All that is run or imported: of tiles and of slides, named or brought along."""
    return {**config.extraction.teachers, **tile_teachers(config)}


def brought_along(config: Config) -> list[str]:
    """The tile teachers that the config does not name."""
    return [name for name in tile_teachers(config) if name not in config.extraction.teachers]
