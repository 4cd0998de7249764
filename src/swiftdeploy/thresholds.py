"""Checks the thresholds of the policies: what every decision is held against, in ``policies/thresholds/data.yaml``.

A wrong file is an error of the file, told with all its problems at once; it never becomes a denial. OPA reads the
same file by itself, so what its reader of YAML takes for something else than this one is a problem as well.
"""

from __future__ import annotations

import json
import re
import zoneinfo
from collections.abc import Mapping
from datetime import datetime
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema.exceptions import ValidationError

from swiftdeploy import manifest_schema as rules
from swiftdeploy import manifest_words as words
from swiftdeploy.manifest import VALIDATOR, shown_path
from swiftdeploy.manifest_schema import Path as KeyPath
from swiftdeploy.manifest_schema import Schema
from swiftdeploy.yaml_data import MAX_BYTES, Problem, ProblemsError, Reading, decoded
from swiftdeploy.yaml_tree import Node, YamlTextError, compose

FILE = Path("thresholds") / "data.yaml"

# What Go's reader of YAML takes for a number, and YAML 1.2 for a text.
_GO_NUMBER = re.compile(
    r"[-+]?(?:0[0-7_]+|0b[01_]+|0o[0-7_]+|0x[0-9a-f_]+|[0-9][0-9_]*(?:\.[0-9_]*)?(?:e[-+]?[0-9]+)?|\.[0-9_]+|\.inf)|\.nan",
    re.IGNORECASE,
)
# What Python's regular expressions have and those of Go, which OPA uses, have not.
_NOT_GO = re.compile(r"\(\?(?:[=!>(]|<[=!]|P=)|\\[1-9]|[*+?}]\+")
_FIGURES = ("infrastructure", "canary", "canary_partial")
_WINDOW_NEEDS = ("timezone", "reason", "contact")


class ThresholdsError(ProblemsError):
    """The thresholds cannot be used. ``str()`` is the complete text, one problem a line."""


@cache
def schema() -> Schema:
    """The schema with every ``$ref`` filled in. Callers do not change it."""
    text = (files("swiftdeploy") / "thresholds.schema.json").read_text(encoding="utf-8")
    whole: Schema = json.loads(text)
    filled: Schema = _filled(whole, whole.pop("$defs"))
    return filled


def _filled(part: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(part, list):
        return [_filled(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    own = {key: _filled(value, definitions) for key, value in part.items() if key != "$ref"}
    if "$ref" not in part:
        return own
    return {**_filled(definitions[part["$ref"].removeprefix("#/$defs/")], definitions), **own}


def _at(path: KeyPath) -> Schema:
    part = schema()
    for key in path:
        part = rules.child(part, key)
    return part


def load(policies: Path) -> dict[str, Any]:
    """The thresholds of a folder of policies. Raises ``ThresholdsError`` with all problems at once."""
    path = policies / FILE
    shown = shown_path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        message = f"it cannot be read ({error.strerror or error}); every decision is held against it"
        raise ThresholdsError([Problem(shown, None, None, message)]) from None
    if len(raw) > MAX_BYTES:
        raise ThresholdsError([Problem(shown, None, None, "it has more than 1 MiB, allowed less")])
    return parse(raw, shown)


def parse(raw: bytes, shown: str) -> dict[str, Any]:
    """The thresholds in the bytes of a file; ``shown`` is what messages call it. Raises ``ThresholdsError``."""
    try:
        root = compose(decoded(raw, shown))
        if root is None:
            raise ThresholdsError([Problem(shown, None, None, f"the file is empty, allowed {_allowed(schema())}")])
        checked = _Check(shown, root)
    except YamlTextError as error:
        raise ThresholdsError([Problem(shown, error.line, None, error.message)]) from None
    except RecursionError:
        raise ThresholdsError([Problem(shown, None, None, "values are nested too deeply")]) from None
    except ThresholdsError:
        raise
    except ProblemsError as error:
        raise ThresholdsError(error.problems) from None
    if checked.problems:
        raise ThresholdsError(checked.sorted_problems())
    found: dict[str, Any] = checked.data
    return found


class _Check(Reading):
    """The data, held against the schema and against what a schema cannot say."""

    def __init__(self, shown: str, root: Node) -> None:
        super().__init__(shown, root)
        for error in VALIDATOR(schema()).iter_errors(self.data):
            self._explain(error)
        if isinstance(self.data, dict):
            for table, entries in self.data.items():
                if isinstance(entries, dict):
                    self._entries(str(table), entries)

    def scalar(self, node: Node, path: KeyPath) -> Any:
        value = super().scalar(node, path)
        is_text = isinstance(value, str) and node.plain and "string" in rules.types(_at(path))
        if is_text and _GO_NUMBER.fullmatch(node.text):
            shown = words.escaped(node.text)
            self.report(path, f'found {shown}, which OPA reads as a number; text goes in quotes: "{shown}"')
        return value

    def _explain(self, error: ValidationError) -> None:
        path: KeyPath = tuple(error.absolute_path)
        part = _at(path)
        # The library types an instance as possibly unset; an error of a validation always has one.
        instance: Any = error.instance
        if error.validator == "required":
            for name in part["required"]:
                if name not in instance:
                    self.report((*path, name), f"found nothing, allowed {_allowed(rules.child(part, name))}; add it")
        elif error.validator == "additionalProperties":
            for name in instance:
                if name not in part["properties"]:
                    self.report((*path, name), _unknown(name, list(part["properties"])))
        elif "propertyNames" in error.absolute_schema_path:
            self.report((*path, str(instance)), f"found this name, allowed {_allowed(part['propertyNames'])}")
        else:
            node = self.values[path].resolved
            found = words.found(path, node, instance, str(error.validator))
            self.report(path, f"found {found}, allowed {_allowed(part)}{_remedy(instance, part)}")

    # What a schema cannot say

    def _entries(self, table: str, entries: Mapping[str, Any]) -> None:
        """Each environment's entry as it comes out once the default's has filled it in."""
        default = entries.get("default")
        for environment, own in entries.items():
            if not isinstance(own, dict):
                continue
            whole = own if environment == "default" or not isinstance(default, dict) else _union(default, own)
            path = (table, environment)
            if table in _FIGURES:
                self._bounds(path, own, whole)
            elif table == "change":
                self._windows((*path, "freezes"), own.get("freezes"), whole.get("freezes"))
            elif table == "image" and isinstance(own.get("fixed_tag"), str):
                self._expression((*path, "fixed_tag"), own["fixed_tag"])

    def _bounds(self, path: KeyPath, own: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
        for figure in own:
            bounds = whole[figure]
            low, high = (_number(bounds.get(key)) if isinstance(bounds, dict) else None for key in ("min", "max"))
            if low is not None and high is not None and low > high:
                of_both = "" if path[1] == "default" else f", together with {path[0]}.default"
                message = f"found a min of {low:g} and a max of {high:g}{of_both}, allowed a min of at most the max"
                self.report((*path, figure), message)

    def _windows(self, path: KeyPath, own: Any, whole: Any) -> None:
        for name in own if isinstance(own, dict) else ():
            window = whole[name]
            if not isinstance(window, dict):
                continue
            place = (*path, name)
            for key in _WINDOW_NEEDS:
                if key not in window:
                    self.report((*place, key), f"found nothing, allowed {_allowed(_at((*place, key)))}; add it")
            if len({"weekly", "once"} & window.keys()) != 1:
                both = "both weekly and once" if "weekly" in window else "neither weekly nor once"
                self.report(place, f"found {both}, allowed one of them")
            zone = window.get("timezone")
            if isinstance(zone, str) and zone not in _zones():
                self.report((*place, "timezone"), _unknown_zone(zone))
            if isinstance(window.get("once"), dict):
                self._once((*place, "once"), window["once"])

    def _once(self, path: KeyPath, once: Mapping[str, Any]) -> None:
        times = [_time(once.get(key)) for key in ("from", "until")]
        for key, time in zip(("from", "until"), times, strict=True):
            if time is None and isinstance(once.get(key), str):
                found = words.escaped(once[key])
                self.report((*path, key), f'found "{found}", allowed a day and a time that there are')
        if times[0] is not None and times[1] is not None and times[0] >= times[1]:
            self.report((*path, "until"), f'found "{once["until"]}", allowed a time after "{once["from"]}" (from)')

    def _expression(self, path: KeyPath, text: str) -> None:
        try:
            re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            self.report(path, f"found what is no regular expression ({words.escaped(str(error))}), allowed one")
        else:
            if _NOT_GO.search(text):
                self.report(path, "found a look-around, back-reference or the like, allowed what OPA knows (RE2)")


def _allowed(part: Schema) -> str:
    return str(part["x-allowed"]) if "x-allowed" in part else rules.allowed(part)


def _remedy(value: Any, part: Schema) -> str:
    near = get_close_matches(value.lower(), part.get("enum", []), n=1, cutoff=0.5) if isinstance(value, str) else []
    if near:
        return f"; did you mean `{near[0]}`?"
    return "; write it without quotes" if isinstance(value, str) and _reads_as_number(value, part) else ""


def _reads_as_number(text: str, part: Schema) -> bool:
    return {"integer", "number"} & set(rules.types(part)) != set() and re.fullmatch(r"\d+(\.\d+)?", text) is not None


def _unknown(name: str, known: list[str]) -> str:
    near = get_close_matches(name.lower(), known, n=1, cutoff=0.4)
    return f"found an unknown key, allowed {', '.join(known)}" + (f"; did you mean `{near[0]}`?" if near else "")


@cache
def _zones() -> set[str]:
    return zoneinfo.available_timezones()


def _unknown_zone(name: str) -> str:
    near = get_close_matches(name, sorted(_zones()), n=1, cutoff=0.6)
    remedy = f"; did you mean `{near[0]}`?" if near else ""
    return f"found {words.escaped(name)}, allowed the name of a time zone such as Europe/Berlin or UTC{remedy}"


def _time(text: Any) -> datetime | None:
    """What a clock shows; one with an offset is none."""
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return time if time is not None and time.tzinfo is None else None


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _union(default: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """As Rego's object.union: mappings are joined, anything else of ``own`` wins."""
    joined = dict(default)
    for key, value in own.items():
        below = default.get(key)
        joined[key] = _union(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return joined
