"""The words of messages about a manifest: where, what was found, what to do about it.

What stands below ``services.env`` and ``services.secrets`` may be a secret: no function here shows a value
from there.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from swiftdeploy import manifest_schema as rules
from swiftdeploy.manifest_schema import Path, Schema
from swiftdeploy.yaml_tree import Node, scalar_value

HIDDEN = (("services", "env"), ("services", "secrets"))
# Also what turns the direction of text round, which makes a terminal show something else than there is.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")

_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHOWN = 60


def is_hidden(path: Path) -> bool:
    """Whether what stands at ``path`` may be a secret."""
    return path[:2] in HIDDEN


def escaped(text: str, limit: int = _SHOWN) -> str:
    """``text`` in one printable line of bounded length: a message must not steer a terminal."""
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in short)


def key_text(path: Path) -> str:
    """``("canary", "steps", 1)`` as ``canary.steps[1]``.

    Of a bad name in ``services.env`` only the beginning: ``PASSWORD=hunter2`` may have become a key.
    """
    words = ""
    for depth, key in enumerate(path):
        if isinstance(key, int):
            words += f"[{key}]"
            continue
        plain = _PLAIN_KEY.match(key)
        if plain and plain[0] == key:
            word = key
        elif is_hidden(path[:depth]):
            word = (plain[0] if plain else "") + "…"
        else:
            word = f'"{escaped(key)}"'
        words += f".{word}" if words else word
    return words


def found(path: Path, node: Node, value: Any, rule: str) -> str:
    """What stands at ``path``. ``rule`` is the keyword of the schema that it does not follow."""
    if isinstance(value, (dict, list)):
        return _found_collection(value, rule)
    if value is None:
        return "nothing"
    if is_hidden(path):
        return "a value that is not shown here"
    return escaped(node.text) if node.plain else f'"{escaped(node.text)}"'


def _found_collection(value: dict[str, Any] | list[Any], rule: str) -> str:
    kind, parts = ("mapping", "keys") if isinstance(value, dict) else ("list", "items")
    if rule == "uniqueItems":
        return "the same item twice"
    if rule == "type":
        return f"a {kind}"
    return f"a {kind} of {len(value)} {parts}" if value else f"an empty {kind}"


def missing(name: str, part: Schema) -> str:
    """The message for a required key that is not there."""
    message = f"found nothing, allowed {rules.allowed(part)}"
    return f"{message}; add it, for example `{name}: {part['examples'][0]}`" if "examples" in part else message


def unknown(name: str, part: Schema, suggest: bool) -> str:
    """The message for a key that ``part`` does not know, with the nearest known key when there is one."""
    known = list(part["properties"])
    message = f"found an unknown key, allowed {', '.join(known)}"
    near = _nearest_keys(name.lower(), known) if suggest else []
    return f"{message}; did you mean `{'` or `'.join(near)}`?" if near else message


def _nearest_keys(name: str, known: list[str]) -> list[str]:
    """Known keys like ``name``: of the same mapping when one is near, else of anywhere in the manifest."""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return near
    paths = [path for path in rules.known_keys() if path[-1] not in known]
    close = get_close_matches(name, {path[-1] for path in paths}, n=1, cutoff=0.75)
    return [key_text(path) for path in paths if path[-1] in close][:3] or get_close_matches(
        name, known, n=1, cutoff=0.4
    )


def remedy(path: Path, node: Node, part: Schema) -> str:
    """What to do about a value that is not allowed; empty when there is nothing to add."""
    place = rules.at(path[:-1]) if path and isinstance(path[-1], int) else part
    if "x-remedy" in place:
        return str(place["x-remedy"])
    if node.kind == "list" and path == HIDDEN[0]:
        return "write NAME: value, one a line, without hyphens"
    if node.kind != "scalar":
        return ""
    value = scalar_value(node)
    if value is None:
        return _remedy_for_nothing(path, part)
    if is_hidden(path):
        return ""
    return _remedy_for_text(node, value, part) if isinstance(value, str) else _remedy_for_figure(node, value, part)


def _remedy_for_nothing(path: Path, part: Schema) -> str:
    if is_hidden(path):
        return 'write "" for an empty value' if "string" in rules.types(part) else ""
    required = rules.at(path[:-1]).get("required", [])
    return "" if not path or path[-1] in required else "remove the key to get the default"


def _remedy_for_text(node: Node, value: str, part: Schema) -> str:
    near = get_close_matches(value.lower(), part.get("enum", []), n=1, cutoff=0.5)
    if near:
        return f"did you mean `{near[0]}`?"
    takes_number = {"integer", "number"} & set(rules.types(part)) and part.get("x-convert") != "text"
    if not takes_number or not _NUMBER.fullmatch(value):
        return ""
    return "write it without leading zeros" if node.plain else f"write it without quotes: {value}"


def _remedy_for_figure(node: Node, value: bool | int | float, part: Schema) -> str:
    kinds = rules.types(part)
    if isinstance(value, float) and "integer" in kinds and value.is_integer() and abs(value) < 1e15:
        return f"write {int(value)}"
    if "string" in kinds and "enum" not in part and part.get("x-convert") != "duration":
        return f'text that looks like something else goes in quotes: "{escaped(node.text)}"'
    return ""
