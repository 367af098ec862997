"""Reading and checking the config file.

Unknown keys are errors, and the message names the key, where it stands and the nearest valid one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.config.explaining import explain
from pipeline.config.whole import Config
from pipeline.errors import ConfigError

# More values than the config of the largest study, far fewer than an alias of aliases makes.
MAX_VALUES = 200_000


def parse(data: Mapping[str, Any], source: str = "config") -> Config:
    """Check a config that was read from YAML.

    Raises:
        ConfigError: a key is unknown, missing or of the wrong kind. All findings are listed.
    """
    if not _is_small(data):
        raise ConfigError(
            f"{source}: more than {MAX_VALUES:,} values, as YAML aliases of aliases make; write "
            "out what is meant"
        )
    try:
        return Config.model_validate(dict(data))
    except ValidationError as error:
        raise ConfigError(explain(error, Config.model_json_schema(), source)) from None


def _is_small(data: Any) -> bool:
    """Whether the values, with aliases spelt out, are few; counted no further than the limit."""
    todo, seen = [data], 0
    while todo:
        value = todo.pop()
        seen += 1
        if seen > MAX_VALUES:
            return False
        if isinstance(value, Mapping):
            todo += value.values()
        elif isinstance(value, list | tuple):
            todo += value
    return True


def load(path: str | Path) -> Config:
    """Read and check a YAML config file.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not fit the schema.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}: a config is a mapping of sections, this is {type(data)}")
    return parse(data, str(path))
