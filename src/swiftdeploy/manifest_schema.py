"""What manifest.schema.json says: defaults, and what is allowed in words.

The schema is the one definition. Everything here reads it; nothing here repeats it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from importlib.resources import files
from typing import Any

Schema = dict[str, Any]
Path = tuple[str | int, ...]

_TYPES = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


@cache
def schema() -> Schema:
    """The whole schema. Callers do not change it."""
    text = (files("swiftdeploy") / "manifest.schema.json").read_text(encoding="utf-8")
    loaded: Schema = json.loads(text)
    return loaded


def resolved(part: Schema) -> Schema:
    """``part`` with what its ``$ref`` names filled in; its own keys win."""
    reference = part.get("$ref")
    if reference is None:
        return part
    return {**schema()["$defs"][reference.removeprefix("#/$defs/")], **part}


def child(part: Schema, key: str | int) -> Schema:
    """The schema of one key or item of ``part``; empty for a key that is not known."""
    found = part.get("items") if isinstance(key, int) else part.get("properties", {}).get(key)
    if found is None and isinstance(key, str):
        found = part.get("additionalProperties")
    return resolved(found) if isinstance(found, dict) else {}


def at(path: Path) -> Schema:
    """The schema of what stands at ``path``, for example ``("services", "port")``."""
    part = schema()
    for key in path:
        part = child(part, key)
    return part


def types(part: Schema) -> list[str]:
    """The JSON types that ``part`` takes; none when it does not say."""
    found = part.get("type", [])
    return [found] if isinstance(found, str) else list(found)


def known_keys(part: Schema | None = None, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key that a manifest may have, as paths, parents before children."""
    for key, raw in (schema() if part is None else part).get("properties", {}).items():
        yield (*prefix, key)
        yield from known_keys(resolved(raw), (*prefix, key))


def allowed(part: Schema) -> str:
    """What ``part`` allows, in words."""
    for note in ("x-allowed", "patternErrorMessage"):
        if note in part:
            return str(part[note]) + _range(part)
    if "enum" in part:
        return _either([str(value) for value in part["enum"]])
    if part.get("properties"):
        return "a mapping of " + ", ".join(part["properties"])
    return _either([_TYPES[name] for name in types(part) if name != "null"]) + _range(part)


def _range(part: Schema) -> str:
    if "minimum" not in part:
        return ""
    unit = " seconds" if part.get("x-convert") == "duration" else ""
    comma = "," if unit else ""
    return f"{comma} from {part['minimum']} to {part['maximum']}{unit}"


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def with_defaults(value: Any, part: Schema) -> Any:
    """``value`` with every key that was left out filled in, and figures of one type.

    ``value`` is what passed validation. Numbers that may be fractions become float, also those of defaults.
    """
    if value is None:
        value = deepcopy(part.get("default"))
    properties = part.get("properties")
    if isinstance(value, str):
        return value
    if properties and (value is not None or "default" not in part):
        given = value or {}
        filled = {}
        for key, raw in properties.items():
            below = resolved(raw)
            if key in given or "default" in below or below.get("properties"):
                filled[key] = with_defaults(given.get(key), below)
        return filled
    if isinstance(value, int) and not isinstance(value, bool) and "number" in types(part):
        return float(value)
    return value
