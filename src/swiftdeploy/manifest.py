"""Reads and checks the manifest: a file becomes a complete configuration, or the list of all its problems.

Values are data. They are never evaluated, and those below ``services.env`` and ``services.secrets`` never
appear in a message.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from swiftdeploy import manifest_schema as rules
from swiftdeploy import manifest_words as words
from swiftdeploy.manifest_schema import Path as KeyPath
from swiftdeploy.manifest_schema import Schema
from swiftdeploy.manifest_words import escaped
from swiftdeploy.yaml_data import MAX_BYTES, MAX_SHOWN_PROBLEMS, Problem, ProblemsError, Reading, decoded
from swiftdeploy.yaml_tree import Node, YamlTextError, compose

Config = dict[str, Any]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)")


class ManifestError(ProblemsError):
    """The manifest cannot be used, or not be written. ``str()`` is the complete text, one problem a line."""

    @classmethod
    def of_file(cls, shown: str, message: str) -> ManifestError:
        return cls([Problem(shown, None, None, message)])


@dataclass(frozen=True)
class Document:
    """A valid manifest: its text without byte order mark, the tree of it, what it says, and the configuration.

    ``data`` holds only what is written in the file, ``config`` is complete.
    """

    shown: str
    text: str
    root: Node
    data: Config
    config: Config


def load(path: str | os.PathLike[str]) -> Config:
    """The configuration of the manifest at ``path``: every key present, defaults filled in, durations in seconds.

    Plain dict, list, str, int, float, bool and None. Raises ``ManifestError`` with all problems at once.
    """
    return parse(read(path), shown_path(path)).config


def shown_path(path: str | os.PathLike[str]) -> str:
    """``path`` as people read it: relative to the current folder when it is in there."""
    try:
        full = Path(os.path.abspath(path))  # noqa: PTH100 - no symlink is followed, the name stays as typed
        return escaped(str(full.relative_to(Path.cwd()) if full.is_relative_to(Path.cwd()) else full), 1000)
    except (OSError, ValueError):
        return escaped(os.fspath(path), 1000)


def read(path: str | os.PathLike[str]) -> bytes:
    """The bytes of the file. Raises ``ManifestError`` when there is no such file, no right to read it, or no end."""
    shown = shown_path(path)
    try:
        if not os.fspath(path):
            raise ManifestError.of_file("manifest", "no path is given; give one with -e manifest=PATH")
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise ManifestError.of_file(shown, "this is a folder; name the manifest file in it")
        if not stat.S_ISREG(status.st_mode):
            raise ManifestError.of_file(shown, "this is not a regular file")
        with Path(path).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ManifestError.of_file(
            shown, "there is no such file; run from the folder that has it, or give its path with -e manifest=PATH"
        ) from None
    except PermissionError:
        raise ManifestError.of_file(
            shown, "no permission to read it; check the rights of the file and of its folders"
        ) from None
    except OSError as error:
        raise ManifestError.of_file(shown, f"it cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise ManifestError.of_file(shown, "this is not a path of a file") from None
    if len(raw) > MAX_BYTES:
        raise ManifestError.of_file(shown, "it has more than 1 MiB, which is not a manifest")
    return raw


def parse(raw: bytes, shown: str) -> Document:
    """Check the bytes of a manifest; ``shown`` is what messages call the file. Raises ``ManifestError``."""
    try:
        text = decoded(raw, shown)
        root = compose(text)
        if root is None:
            raise ManifestError.of_file(
                shown, "the file is empty; the smallest manifest has services, nginx and network, see docs/manifest.md"
            )
        checked = _Check(shown, root)
    except ManifestError:
        raise
    except ProblemsError as error:
        raise ManifestError(error.problems) from None
    except YamlTextError as error:
        raise ManifestError([Problem(shown, error.line, None, error.message)]) from None
    except RecursionError:
        raise ManifestError.of_file(shown, "values are nested too deeply") from None
    if checked.problems:
        raise ManifestError(checked.sorted_problems())
    config = rules.with_defaults(checked.data, rules.schema())
    if config["nginx"]["drain_timeout"] is None:
        # A connection whose answer is under way at the reload may bring one more request to the old worker.
        config["nginx"]["drain_timeout"] = 2 * config["nginx"]["proxy_timeout"] + 5.0
    if config["services"]["metrics"] == "none":
        # Nothing is asked for where there is no path.
        of_metrics = rules.at(("services", "metrics"))["properties"]
        config["services"]["metrics"] = {key: [] if key == "status_labels" else "" for key in of_metrics}
    return Document(shown, text, root, checked.data, config)


class _Check(Reading):
    """A manifest's data, held against the schema and against what a schema cannot say."""

    def __init__(self, shown: str, root: Node) -> None:
        super().__init__(shown, root)
        for error in VALIDATOR(rules.schema()).iter_errors(self.data):
            self._explain(error)
        self._cross_checks()

    def scalar(self, node: Node, path: KeyPath) -> Any:
        value, part = super().scalar(node, path), rules.at(path)
        convert = part.get("x-convert")
        if convert == "text" and value is not None and any(_TYPES.is_type(value, kind) for kind in rules.types(part)):
            return node.text
        if convert == "duration" and isinstance(value, str) and (match := _DURATION.fullmatch(value)):
            return float(match[1]) * _UNITS[match[2]]
        return value

    def _explain(self, error: ValidationError) -> None:
        path: KeyPath = tuple(error.absolute_path)
        part = rules.at(path)
        # The library types an instance as possibly unset; an error of a validation always has one.
        instance: Any = error.instance
        if error.validator == "required":
            for name in part["required"]:
                if name not in instance:
                    self.report((*path, name), words.missing(name, rules.child(part, name)))
        elif error.validator == "additionalProperties" and part.get("properties"):
            for name in instance:
                if name not in part["properties"]:
                    suggest = len(self.problems) < MAX_SHOWN_PROBLEMS
                    self.report((*path, name), words.unknown(name, part, suggest))
        elif "propertyNames" in error.absolute_schema_path:
            name = str(instance)
            self.report((*path, name), f"found this name, allowed {rules.allowed(_VARIABLE)}")
        else:
            node = self.values[path].resolved
            found = words.found(path, node, instance, str(error.validator))
            remedy = words.remedy(path, node, part)
            self.report(path, f"found {found}, allowed {rules.allowed(part)}" + (f"; {remedy}" if remedy else ""))

    # What a schema cannot say

    def _cross_checks(self) -> None:
        steps = _dig(self.data, "canary", "steps")
        if isinstance(steps, list) and all(_type_name(step) == "integer" for step in steps):
            for index, (before, step) in enumerate(pairwise(steps), start=1):
                if step <= before:
                    self.report(
                        ("canary", "steps", index), f"found {step} after {before}, allowed rising whole numbers"
                    )
            weight = _dig(self.data, "canary", "weight")
            weight = rules.at(("canary", "weight"))["default"] if weight is None else weight
            for index, step in enumerate(steps):
                if _type_name(weight) == "integer" and 0 < weight < step < 100:
                    self.report(
                        ("canary", "steps", index), f"found {step}, allowed at most canary.weight, which is {weight}"
                    )
        self._check_statuses()
        trusted = _dig(self.data, "nginx", "real_ip", "trusted")
        for index, network in enumerate(trusted if isinstance(trusted, list) else []):
            why = _no_network(network) if isinstance(network, str) else None
            if why:
                self.report(("nginx", "real_ip", "trusted", index), f"found {network}, allowed {why}")
        env, secrets = _dig(self.data, "services", "env"), _dig(self.data, "services", "secrets")
        if isinstance(env, dict) and isinstance(secrets, list):
            for index, name in enumerate(secrets):
                if isinstance(name, str) and name in env:
                    self.report(
                        ("services", "secrets", index),
                        "found a name that services.env sets too, allowed in one of them",
                    )

    def _check_statuses(self) -> None:
        path: KeyPath = ("services", "healthcheck", "status")
        status = _dig(self.data, "services", "healthcheck", "status")
        for index, one in enumerate(status) if isinstance(status, list) else [(None, status)]:
            lowest, _, highest = one.partition("-") if isinstance(one, str) else ("", "", "")
            if highest.isdigit() and lowest.isdigit() and int(lowest) > int(highest):
                place = path if index is None else (*path, index)
                self.report(place, f"found {one}, allowed the lower status before the higher one")


def _no_network(text: str) -> str | None:
    """What would be allowed instead of ``text``, None where it is an address or a network."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return "an IPv4 or IPv6 address, or a network such as 10.0.0.0/8"
    if network.prefixlen == 0:
        return "the addresses of the balancers alone; this would believe everybody"
    address = text.partition("/")[0]
    if "/" in text and ipaddress.ip_address(address) != network.network_address:
        return f"{network}, if that network is meant, or {address} alone"
    return None


def _dig(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _strict_integer(_checker: Any, instance: Any) -> bool:
    """JSON Schema takes 8080.0 for an integer; what was written is a fraction."""
    return isinstance(instance, int) and not isinstance(instance, bool)


def _unique_items(_validator: Any, unique: bool, instance: Any, _schema: Schema) -> Iterator[ValidationError]:
    """The library compares every item with every other where they cannot be sorted; a long list would take minutes."""
    if unique and isinstance(instance, list) and len({repr(item) for item in instance}) < len(instance):
        yield ValidationError("items are not unique")


_TYPES = Draft202012Validator.TYPE_CHECKER.redefine("integer", _strict_integer)
VALIDATOR: Any = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {"uniqueItems": _unique_items},
    type_checker=_TYPES,
)
_VARIABLE: Schema = rules.schema()["$defs"]["variable"]


def _type_name(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array"}
    return names.get(type(value), "null")
