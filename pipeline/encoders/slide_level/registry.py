"""The slide encoders that the pipeline knows, as rows of facts; no torch.

They are teachers with `source: slide`: like tile encoders they have a row, weights and a preflight,
but what they read are the features of a tile teacher.
"""

from __future__ import annotations

import dataclasses
import json
from functools import lru_cache
from pathlib import Path

import yaml

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import registry
from pipeline.encoders.registry import Row, check_terms, nearest_row
from pipeline.errors import ConfigError

PATH = Path(__file__).with_name("registry.yaml")
SLIDE = "slide"  # the teacher's source


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlideModel(Row):
    """A slide encoder.

    Attributes:
        input: the tile teacher whose features it was trained on.
        input_dim: their width.
        tile_px, mpp: side and scale of their tiles.
        depth: blocks whose states can be read; 0: none.
    """

    input: str
    input_dim: int
    tile_px: int
    mpp: float
    depth: int


@lru_cache(maxsize=1)
def slide_models() -> dict[str, SlideModel]:
    """All rows by name.

    Raises:
        ConfigError: a row lacks a fact or has an unknown one; names the row.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    data = yaml.load(PATH.read_text(), Loader=loader)["models"]
    rows = {}
    for name, row in data.items():
        facts = {**row, "poolings": dict(row["pooling"])}
        del facts["pooling"]
        try:
            rows[name] = SlideModel(name=name, **facts)
        except TypeError as error:
            raise ConfigError(f"{PATH.parent.name}/{PATH.name}: {name}: {error}") from None
    return rows


def resolve(name: str) -> SlideModel:
    """The row of a slide encoder.

    Raises:
        ConfigError: there is none; suggests the nearest names.
    """
    return nearest_row(
        name,
        slide_models(),
        "no such slide encoder",
        "`python -m pipeline teachers` lists all; another tool's slide vectors go by "
        "`source: import`",
    )


def configured(name: str, cfg: TeacherConfig) -> SlideModel:
    """The row of a configured slide encoder: of the registry, or of one that was made here.

    Args:
        name: its name in the config.
        cfg: its settings.

    Raises:
        ConfigError: there is none.
    """
    if not cfg.path:
        return resolve(cfg.model or name)
    path = Path(cfg.path).expanduser() / registry.ROW
    try:
        return SlideModel(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"extraction.teachers.{name}.path: {path} is no row of a slide encoder ({error}); give "
            "a folder that `python -m pipeline slide-student` wrote"
        ) from None


def row_of(name: str, cfg: TeacherConfig) -> Row | None:
    """A configured teacher's row, of tiles or of slides; None for one without.

    Args:
        name: its name in the config.
        cfg: its settings.

    Raises:
        ConfigError: there should be one and is none.
    """
    if cfg.source == SLIDE:
        return configured(name, cfg)
    return registry.row_of(name, cfg)


def check(name: str, cfg: TeacherConfig) -> SlideModel:
    """The row of a configured slide encoder, if it can be run as it is configured.

    Args:
        name: its name in the config.
        cfg: its settings.

    Raises:
        ConfigError: there is no such row, it cannot be run here, its licence is not acknowledged,
            or it has no such pooling or layers.
    """
    row = configured(name, cfg)
    where = f"extraction.teachers.{name}"
    if row.loader == "none":
        raise ConfigError(f"teacher `{name}`: {row.title} cannot be run here: {row.note}")
    check_terms(name, cfg, row)
    if row.loader == "remote" and cfg.weights != "hub":
        raise ConfigError(
            f"{where}.weights: {row.title} runs with its authors' code, which comes from the hub "
            "with its weights; set weights: hub"
        )
    if cfg.weights == "hub" and not row.hf_id:
        place = f" Its weights are at {row.url}." if row.url else ""
        raise ConfigError(
            f"{where}.weights: {row.title} is not on the hub.{place} Put the file into "
            f"extraction.weights_dir/{name}/ and set weights: local, or set weights: random"
        )
    beyond = [layer for layer in cfg.layers if not 0 <= layer <= row.depth]
    if cfg.layers and (beyond or not row.depth):
        has = f"0 (its input) to {row.depth}" if row.depth else "none to choose from"
        raise ConfigError(f"{where}.layers: {list(cfg.layers)}: {row.title} has {has}")
    return row


def width_of_input(name: str, cfg: TeacherConfig) -> int | None:
    """Features that a tile teacher gives a tile; None where no row says it.

    Args:
        name: its name in the config.
        cfg: its settings.
    """
    row = row_of(name, cfg)
    return row.poolings[cfg.pooling or row.pooling] if row else None


def width(row: SlideModel, cfg: TeacherConfig) -> int:
    """Features that a teacher gives.

    Args:
        row: its row.
        cfg: its settings.
    """
    return row.poolings[cfg.pooling or row.pooling] * max(1, len(cfg.layers))
