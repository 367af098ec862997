"""What is wrong with a config, in words: the place, what is known there, and the nearest of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from pipeline.errors import nearest

# The keys that say which of several forms a section has, in the order in which they are read.
CHOICES = ("kind", "type", "aggregator", "loss", "faithful")


def explain(error: ValidationError, schema: Mapping[str, Any], source: str) -> str:
    """All findings, one a line.

    Args:
        error: what pydantic found.
        schema: the JSON schema of what was read.
        source: where that came from.
    """
    lines = [f"  - {_finding(item, schema)}" for item in error.errors()]
    return f"{source}: {len(lines)} problem(s)\n" + "\n".join(lines)


def _finding(item: Any, schema: Mapping[str, Any]) -> str:
    shown, node = _walk(item["loc"], schema)
    where = ".".join(shown) or "top level"
    if item["type"] == "extra_forbidden":
        known = list(node.get("properties", {}))
        hint = nearest(shown[-1], known)
        form = _form(node)
        if not form:
            return f"{where}: unknown key{hint}"
        return f"{where}: not a key of {form}{_close(hint)}; its keys: {', '.join(known)}"
    if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _no_such_form(where, item["input"], _options(node, schema))
    said = item["msg"].removeprefix("Value error, ")
    given = item.get("input")
    shown_value = f" (given: {given!r})" if isinstance(given, str | int | float) else ""
    return f"{where}: {said}{shown_value}{_nearest_literal(item)}"


def _nearest_literal(item: Any) -> str:
    """Of the values that a key takes, the one that was meant."""
    if item["type"] != "literal_error":
        return ""
    known = re.findall(r"'([^']*)'", item["ctx"]["expected"])
    if item["input"] is False and "off" in known:
        return '; YAML reads off as false: write "off" in quotes'
    return _close(nearest(str(item["input"]), known))


def _close(hint: str) -> str:
    """A hint that names one word, without the question mark that ends it."""
    return hint.removesuffix("?") if "did you mean" in hint else ""


def _form(node: Mapping[str, Any]) -> str:
    """`kind: single, aggregator: clam_sb`, of a section that has several forms."""
    properties = node.get("properties", {})
    fixed = {key: properties[key]["const"] for key in CHOICES if "const" in properties.get(key, {})}
    return ", ".join(f"`{key}: {str(value).lower()}`" for key, value in fixed.items() if value)


def _no_such_form(where: str, given: Any, options: list[Mapping[str, Any]]) -> str:
    """Which of the choosing keys has a value that no form has."""
    if not isinstance(given, Mapping):
        return f"{where}: a mapping is wanted, this is {given!r}"
    for key in CHOICES:
        known = {value for option in options for value in _values(option, key)}
        if not known:
            continue
        if key not in given:
            if all(key in option.get("required", ()) for option in options):
                return f"{where}: needs `{key}:`, one of {', '.join(sorted(known))}"
            continue
        if given[key] not in known:
            close = _close(nearest(str(given[key]), known))
            return (
                f"{where}.{key}: no {key} `{given[key]}`{close}; known: {', '.join(sorted(known))}"
            )
        options = [option for option in options if given[key] in _values(option, key)]
    return f"{where}: no such combination of {', '.join(k for k in CHOICES if k in given)}"


def _values(option: Mapping[str, Any], key: str) -> list[str]:
    """What a form's choosing key may be."""
    facts = option.get("properties", {}).get(key, {})
    values = [facts["const"]] if "const" in facts else facts.get("enum", [])
    return [value for value in values if isinstance(value, str)]


def _walk(
    location: tuple[Any, ...], schema: Mapping[str, Any]
) -> tuple[list[str], Mapping[str, Any]]:
    """A finding's place as the user wrote it, and the schema of the section that it lies in.

    Among several forms pydantic says in the location which it took; that is not a key.
    """
    shown: list[str] = []
    node: Mapping[str, Any] = schema
    for part in location:
        node = _resolve(node, schema)
        tags = node.get("discriminator", {}).get("mapping", {})
        refs = [f.get("$ref", "") for f in node.get("oneOf", ())]
        form = next((r for r in refs if r == tags.get(part) or r.endswith(f"/{part}")), None)
        if form is not None:
            node = {"$ref": form}
            continue
        shown.append(str(part))
        node = _inside(node, part, schema)
    return shown, _resolve(node, schema)


def _inside(node: Mapping[str, Any], key: Any, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a section's key; the section's own where it has no such key."""
    for form in [node, *(_resolve(f, schema) for f in node.get("anyOf", ()))]:
        if key in form.get("properties", {}):
            return form["properties"][key]
        if form.get("patternProperties"):
            (inner,) = form["patternProperties"].values()
            return inner
        if isinstance(form.get("additionalProperties"), Mapping):
            return form["additionalProperties"]
    return node


def _options(node: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [_resolve(option, schema) for option in node.get("oneOf", ())]


def _resolve(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node
