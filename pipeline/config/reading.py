"""Reading and checking the config file.

Unknown keys are errors, and the message names the key, where it stands and the nearest valid one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.config.whole import Config
from pipeline.errors import ConfigError, nearest

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
        raise ConfigError(_explain(error, source)) from None


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


def _explain(error: ValidationError, source: str) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "top level"
        if item["type"] == "extra_forbidden":
            hint = nearest(str(item["loc"][-1]), _known_keys(item["loc"][:-1]))
            lines.append(f"{where}: unknown key{hint}")
        else:
            given = item.get("input")
            shown = f" (given: {given!r})" if isinstance(given, str | int | float) else ""
            lines.append(f"{where}: {item['msg'].removeprefix('Value error, ')}{shown}")
    return f"{source}: {len(lines)} problem(s)\n" + "\n".join(f"  - {line}" for line in lines)


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """The keys that are allowed at a location of the schema (walks the JSON schema)."""
    schema = Config.model_json_schema()
    node: Any = schema
    for part in location:
        node = _resolve(node, schema)
        options = node.get("oneOf") or node.get("anyOf")
        if options:
            tagged = [o for o in options if str(part) in json.dumps(_tags(_resolve(o, schema)))]
            node = (tagged or options)[0]
            if tagged:
                continue
            node = _resolve(node, schema)
        if part in node.get("properties", {}):
            node = node["properties"][part]
        elif node.get("patternProperties"):
            (node,) = node["patternProperties"].values()
        elif isinstance(node.get("additionalProperties"), dict):
            node = node["additionalProperties"]
    return list(_resolve(node, schema).get("properties", {}))


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def _tags(node: dict[str, Any]) -> list[Any]:
    properties = node.get("properties", {})
    tag = properties.get("type") or properties.get("kind") or {}
    return [tag.get("const"), *tag.get("enum", [])]
