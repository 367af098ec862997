"""Which tiles each teacher sees: the cohort's, or tiles of another size or scale that it asks for.

Teachers with equal tiles form a group and are row-aligned with each other. Where all see the
cohort's own tiles, which is the rule, there is one folder `tiles/`; each further scale has its own
next to it, `tiles_<scale>/`. Imported at every parse of the workflow.
"""

from __future__ import annotations

from pipeline.config.extraction import TeacherConfig
from pipeline.config.models import FinetunedModel
from pipeline.config.tiling import TilingConfig
from pipeline.config.whole import Config
from pipeline.encoders import registry
from pipeline.encoders.registry import Model
from pipeline.encoders.slide_level.inputs import (
    brought_along,
    every_teacher,
    input_of,
    slide_teachers,
    tile_teachers,
)
from pipeline.encoders.slide_level.registry import check, row_of, width_of_input
from pipeline.errors import ConfigError

# How far the scale of a network's input may be from one that its authors use: cutting tiles of 256
# instead of 224 px, as many do, is a factor of 1.14.
NEAR = 1.25
# How far a tile's side may be from what a slide encoder counts in.
SAME = 0.02


def scale_of(config: Config, teacher: str) -> str:
    """The name of a teacher's tiles, e.g. `512px_0.5mpp`; empty for the cohort's own."""
    own, tiling = tiling_of(config, teacher), config.tiling
    if (own.tile_px, own.target_mpp) == (tiling.tile_px, tiling.target_mpp):
        return ""
    return f"{own.tile_px}px_{own.target_mpp:g}mpp"


def scales(config: Config) -> dict[str, TilingConfig]:
    """The tiling section of every scale that some teacher asks for besides the cohort's."""
    found = {scale_of(config, t): tiling_of(config, t) for t in _run(config)}
    return {name: found[name] for name in sorted(found) if name}


def folder(scale: str) -> str:
    """Where a scale's tiles are, below the results folder."""
    return f"tiles_{scale}" if scale else "tiles"


def groups(config: Config) -> list[tuple[str, ...]]:
    """Teachers that share one decoding of the slides; each of the others stands alone.

    A group of `extraction.together` whose teachers see different tiles, or need different
    environments, falls into several.
    """
    grouped = {teacher for group in config.extraction.together for teacher in group}
    alone = [(teacher,) for teacher in _run(config) if teacher not in grouped]
    return [part for group in config.extraction.together for part in _split(config, group)] + alone


def feature_folders(config: Config) -> list[str]:
    """The folders of `features/` that models learn from: of teachers that share a decoding, of
    those that are imported, of slide encoders; without any of these, of encoders made here."""
    if not config.extraction.teachers:
        return config.mapped()
    unasked = brought_along(config)
    run = ["+".join(group) for group in groups(config)]
    others = [n for n, t in config.extraction.teachers.items() if t.source == "import"]
    return [name for name in run if name not in unasked] + others + list(slide_teachers(config))


def check_scales(config: Config) -> None:
    """Refuse a registry teacher whose network would see a scale that its authors do not use.

    What counts is µm per pixel of the network's input, after resizing. A teacher that states its
    `target_mpp` in the config is taken at its word.

    Raises:
        ConfigError: it would; says what to set.
    """
    for teacher in _run(config):
        settings = tile_teachers(config)[teacher]
        if not settings.in_registry or settings.target_mpp is not None:
            continue
        row = registry.resolve(settings.model or teacher)
        seen = input_mpp(tiling_of(config, teacher), settings, row)
        if not any(1 / NEAR <= seen / mpp <= NEAR for mpp in row.mpp):
            tiling = tiling_of(config, teacher)
            where = f"extraction.teachers.{teacher}"
            mpp = min(row.mpp, key=lambda m: max(m / tiling.target_mpp, tiling.target_mpp / m))
            raise ConfigError(
                f"teacher `{teacher}`: tiles of {tiling.tile_px} px at {tiling.target_mpp:g} µm/px "
                f"would reach {row.title} at {seen:.3g} µm per pixel of its input; its authors use "
                f"{', '.join(f'{m:g}' for m in row.mpp)}. Set {where}.target_mpp: {mpp:g} and "
                f"{where}.tile_px: {settings.input_px or row.resize} (its tiles then stand apart "
                f"from the other teachers'), or {where}.target_mpp: {tiling.target_mpp:g} to "
                "insist"
            )


def check_inputs(config: Config) -> None:
    """Refuse a slide encoder that cannot run, or whose tiles are not those that it was trained on.

    With random weights any tiles and features will do.

    Raises:
        ConfigError: it would; says what to set.
    """
    for teacher, settings in slide_teachers(config).items():
        row, reads = check(teacher, settings), input_of(config, teacher)
        tiles = tile_teachers(config)[reads]
        if settings.weights == "random" or tiles.source == "import":
            continue
        where = f"extraction.teachers.{reads}"
        found = width_of_input(reads, tiles)
        if found not in (None, row.input_dim):
            raise ConfigError(
                f"teacher `{teacher}`: {row.title} reads the {row.input_dim} features of "
                f"`{row.input}`, but `{reads}` gives {found}; correct "
                f"extraction.teachers.{teacher}.input, or {where}.pooling"
            )
        cut = tiling_of(config, reads)
        if abs(cut.tile_px * cut.target_mpp / (row.tile_px * row.mpp) - 1) > SAME:
            raise ConfigError(
                f"teacher `{teacher}`: {row.title} counts places in tiles of {row.tile_px} px at "
                f"{row.mpp:g} µm/px, but `{reads}` sees {cut.tile_px} px at {cut.target_mpp:g}. "
                f"Set {where}.tile_px: {row.tile_px} and {where}.target_mpp: {row.mpp:g}"
            )
        if cut.overlap_px:
            raise ConfigError(
                f"teacher `{teacher}`: a slide encoder needs tiles side by side; set "
                "tiling.overlap_px: 0"
            )


def check_finetuned(config: Config) -> None:
    """Refuse fine-tuning of a slide encoder that is not built here, or lacks the layers.

    Raises:
        ConfigError: names the model.
    """
    for name, model in config.model_specs().items():
        if not isinstance(model, FinetunedModel) or isinstance(model.encoder, str):
            continue
        row = check(model.encoder.teacher, model.encoder.settings)
        if row.arch != "longnet":
            raise ConfigError(
                f"training: model `{name}`: {row.title} cannot be fine-tuned; GigaPath's encoders "
                "can, and `aggregator: hipt_lgp_fc` with `patches: true` trains HIPT's second stage"
            )
        if max(model.layers) > row.depth:
            raise ConfigError(
                f"training: model `{name}`: layers {list(model.layers)}: {row.title} has "
                f"{row.depth}"
            )


def input_mpp(tiling: TilingConfig, settings: TeacherConfig, row: Model) -> float:
    """µm per pixel of a network's input.

    Args:
        tiling: the tiling section.
        settings: the teacher's settings.
        row: its row of the registry.
    """
    return tiling.tile_px * tiling.target_mpp / (settings.input_px or row.resize)


def environment(config: Config, teacher: str) -> str:
    """The name of the environment that a teacher needs; empty for the one of all others."""
    settings = every_teacher(config)[teacher]
    if settings.source == "folder":  # made here, and perhaps not yet
        return ""
    row = row_of(teacher, settings)
    return row.env if row else ""


def _run(config: Config) -> list[str]:
    teachers = tile_teachers(config)
    return [name for name, settings in teachers.items() if settings.source != "import"]


def tiling_of(config: Config, teacher: str) -> TilingConfig:
    """The tiling section of a teacher's tiles."""
    settings = every_teacher(config)[teacher]
    tiling = config.tiling
    tile_px = settings.tile_px or tiling.tile_px
    return tiling.model_copy(
        update={
            "tile_px": tile_px,
            "target_mpp": settings.target_mpp or tiling.target_mpp,
            "overlap_px": round(tiling.overlap_px * tile_px / tiling.tile_px),
        }
    )


def _split(config: Config, group: tuple[str, ...]) -> list[tuple[str, ...]]:
    parts: dict[tuple[str, str], list[str]] = {}
    for teacher in group:
        key = scale_of(config, teacher), environment(config, teacher)
        parts.setdefault(key, []).append(teacher)
    return [tuple(part) for part in parts.values()]
