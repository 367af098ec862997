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
from pipeline.config.external import with_training
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
        return Config.model_validate(dict(with_training(data, source)))
    except ValidationError as error:
        raise ConfigError(explain(error, Config.model_json_schema(), source)) from None


def refuse_double_keys(path: str | Path) -> None:
    """Refuse a config file in which a key occurs twice: YAML would take the last, and drop the
    rest without a word.

    Raises:
        ConfigError: names the key and both lines. What else is wrong with the file is not said.
    """
    try:
        yaml.load(Path(path).read_text(encoding="utf-8-sig"), _Unambiguous)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return


class _Unambiguous(yaml.SafeLoader):
    """Reads YAML in which no mapping has a key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if key.value in first:
                raise ConfigError(
                    f"the key `{key.value}` is written twice in one section, in "
                    f"lines {first[key.value]} and {line}; only the last would count. "
                    f"Join the two, or remove one"
                )
            first[key.value] = line
        return super().construct_mapping(node, deep)


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
        data = yaml.load(path.read_text(encoding="utf-8-sig"), _Unambiguous)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}: a config is a mapping of sections, this is {type(data)}")
    return parse(data, str(path))
