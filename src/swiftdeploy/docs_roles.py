"""docs/roles.md: what can be set, from the roles' argument specs and defaults. ``python -m swiftdeploy.docs``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

_HEAD = """\
<!-- Generated from roles/*/meta/argument_specs.yml and roles/*/defaults/main.yml by `python -m swiftdeploy.docs`. -->
# What can be set

The desired state of the service is in the [manifest](manifest.md), limits are in the [thresholds](thresholds.md). What
is left is how a command is run (`-e NAME=VALUE`) and where (the inventory).

## Options of the commands

Given with `-e`. The variable of a role that takes it says where it counts; a role's variables are below.

"""
_INVENTORY = """
## Variables of the inventory

Set in `group_vars` or for a host; `-e` goes past them.

"""
_ROLES = """
## Roles

A role's variable can be set in the inventory too, unless a playbook or another role gives it a value. Those that an
option or a variable above sets come first. A default in braces is worked out when the role runs: from that, from what
another role handed on, or from the role's own folder.
"""
# Taken by playbooks and plugins, not by a role's default.
_ELSEWHERE = {
    "swiftdeploy_history": ("", "The history, for every command, see [history](history.md#where-it-is)."),
}
_TAKEN = re.compile(r"(?<![\w.'\"])([a-z][a-z_]*)\s*\|\s*default\(\s*(?=('[^']*'|[^,()|]*))")
# "promote: the mode ..." and "chaos=slow: seconds ..." say which command it is for; the second has more to say.
_SAID = re.compile(r"(?P<commands>[a-z]+(?: and [a-z]+)*)(?P<only>=[a-z]+)?: ")
_LONGEST = 70


@dataclass(frozen=True)
class Variable:
    """A variable of a role: its default as data, and what the argument spec says of it."""

    name: str
    default: Any
    kind: str
    meaning: str

    @property
    def options(self) -> list[tuple[str, str]]:
        """The names outside the role that its default takes a value from, each with its own default as text."""
        if not isinstance(self.default, str):
            return []
        return [(name, given.strip().strip("'")) for name, given in _TAKEN.findall(self.default)]


@dataclass(frozen=True)
class Role:
    """A role: what it is for, in a line and in full, and its variables in the order of its defaults."""

    name: str
    short: str
    text: str
    variables: list[Variable]


@dataclass(frozen=True)
class Option:
    """A name that a user sets: its default as text, the variables that take it, and what these say of it."""

    name: str
    default: str
    sets: list[str]
    meanings: list[str]


def roles(repository: Path) -> list[Role]:
    """All roles of the repository by name. Raises OSError or KeyError where one is not documented."""
    return [_role(folder) for folder in sorted((repository / "roles").iterdir()) if folder.is_dir()]


def _role(folder: Path) -> Role:
    reader = YAML(typ="safe", pure=True)
    spec = reader.load(folder / "meta" / "argument_specs.yml")["argument_specs"]["main"]
    defaults = reader.load(folder / "defaults" / "main.yml") or {}
    variables = [
        Variable(name, value, spec["options"][name]["type"], _text(spec["options"][name]["description"]))
        for name, value in defaults.items()
    ]
    return Role(folder.name, spec["short_description"], _text(spec["description"]), variables)


def options(found: Iterable[Role]) -> dict[str, Option]:
    """What a user sets by a name that is no role's."""
    known = list(found)
    own = tuple(f"{role.name}_" for role in known)
    taken = {name: Option(name, default, [], [meaning]) for name, (default, meaning) in _ELSEWHERE.items()}
    for role in known:
        for variable in role.variables:
            for name, default in variable.options:
                if not name.startswith(own):
                    option = taken.setdefault(name, Option(name, default, [], []))
                    option.sets.append(variable.name)
                    # A folder below the one that is given has a meaning of its own.
                    if str(variable.default).endswith("}}"):
                        option.meanings.append(variable.meaning)
    return dict(sorted(taken.items()))


def _commands(repository: Path) -> dict[str, list[str]]:
    """Role to the playbooks that name it."""
    reader = YAML(typ="safe", pure=True)
    named: dict[str, list[str]] = {}
    for path in sorted((repository / "playbooks").glob("*.yml")):
        for play in reader.load(path):
            for entry in play.get("roles", []):
                # A playbook may have several plays with the same role.
                commands = named.setdefault(entry["role"], [])
                if path.stem not in commands:
                    commands.append(path.stem)
    return named


def roles_reference(repository: Path) -> str:
    """The whole document."""
    found = roles(repository)
    taken = options(found)
    with_command = {
        role.name: _commands(repository)[role.name][0]
        for role in found
        if len(_commands(repository).get(role.name, [])) == 1
    }
    return "".join(
        [
            _HEAD,
            "| name | command | default | meaning | sets |\n|---|---|---|---|---|\n",
            *(_option(one, with_command) for one in taken.values() if not one.name.startswith("swiftdeploy_")),
            _INVENTORY,
            "| name | default | meaning | sets |\n|---|---|---|---|\n",
            *(_option(one, None) for one in taken.values() if one.name.startswith("swiftdeploy_")),
            _ROLES,
            *(line for role in found for line in _chapter(role, set(taken))),
        ]
    )


def _option(option: Option, commands: dict[str, str] | None) -> str:
    meaning = option.meanings[0]
    sets = ", ".join(f"`{one}`" for one in option.sets) or "-"
    cells = [_value(re.sub(r"^[a-z]+_manifest\.", "", option.default)), _cell(meaning), sets]
    if commands is not None:
        said = _SAID.match(meaning)
        command = commands.get(option.sets[0].partition("_")[0], "several")
        if said:
            rest = meaning[said.end() :]
            command, cells[1] = said["commands"], _cell(meaning if said["only"] else rest[:1].upper() + rest[1:])
        cells.insert(0, command)
    return "| " + " | ".join([f"`{option.name}`", *cells]) + " |\n"


def _chapter(role: Role, taken: set[str]) -> Iterator[str]:
    yield f"\n### {role.name}\n\n{role.short}. {role.text}\n\n"
    yield "| variable | default | type | meaning |\n|---|---|---|---|\n"
    by_option = [one for one in role.variables if any(name in taken for name, _ in one.options)]
    for one in [*by_option, *(one for one in role.variables if one not in by_option)]:
        yield f"| `{one.name}` | {_default(role, one)} | {one.kind} | {_cell(one.meaning)} |\n"


def _default(role: Role, variable: Variable) -> str:
    value = variable.default
    text = value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, dict | list) and not value:
        text = ""
    text = " ".join(text.split())
    if len(text) > _LONGEST:
        return f"[defaults](../roles/{role.name}/defaults/main.yml)"
    return _value(text)


def _value(text: str) -> str:
    if text in ("", "{}", "[]"):
        return "none"
    return "`" + text.replace("|", "\\|") + "`"


def _text(given: str | list[str]) -> str:
    words = " ".join([given] if isinstance(given, str) else given)
    return re.sub(r"[CIV]\(([^)]*)\)", r"`\1`", words)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
