"""The names of timm's models, read from its source: importing timm means importing torch."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

from pipeline.config.extraction import TeacherConfig
from pipeline.errors import ConfigError, nearest

_MODEL = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)
_RENAMED = re.compile(r"register_model_deprecations\(__name__, \{(.*?)\}\)", re.DOTALL)


@cache
def timm_models() -> frozenset[str]:
    """All architectures, with the old names that timm still takes; empty without timm."""
    found = importlib.util.find_spec("timm")
    folders = found.submodule_search_locations if found else None
    names: set[str] = set()
    for file in Path(folders[0]).glob("models/*.py") if folders else ():
        source = file.read_text(encoding="utf-8")
        names.update(_MODEL.findall(source))
        for renamed in _RENAMED.findall(source):
            names.update(re.findall(r"['\"]([\w.]+)['\"]\s*:", renamed))
    return frozenset(names)


def check_timm_name(teacher: str, cfg: TeacherConfig) -> None:
    """Refuse a teacher with `source: timm` whose model timm does not know.

    Raises:
        ConfigError: names the nearest one.
    """
    architecture = str(cfg.model).partition(".")[0]  # a tag after the point names the weights
    known = timm_models()
    if known and architecture not in known and str(cfg.model) not in known:
        raise ConfigError(
            f"extraction.teachers.{teacher}.model: timm has no model `{architecture}`"
            f"{nearest(architecture, known)}"
        )
