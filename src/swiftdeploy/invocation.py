"""Whether a command can do anything at all, and as it is meant to: asked before anything is begun.

Ansible takes a wrong inventory, a limit that leaves nobody, or settings that are not ours for nothing to do, and ends
with status 0. Here each of them is a problem in words, with what to do. Knows nothing of Ansible; the lookup plugin
`swiftdeploy_hosts` asks.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swiftdeploy.untrusted import clean, unusable_names

# Hosts whose names are told.
TOLD = 5


@dataclass(frozen=True)
class Invocation:
    """How Ansible was called, as far as it decides whether anything is done.

    ``sources`` are the inventories, ``unparsed`` those of them that nothing could read. ``everybody`` are all hosts of
    the inventory, ``hosts`` those that the limit leaves. ``local``: the command works on this machine alone. ``parts``
    are the options that leave out tasks, with what was given.
    """

    command: str
    root: Path
    folder: Path
    config: str | None
    callbacks: Sequence[str]
    settings: Mapping[str, object] = field(default_factory=dict)
    sources: Sequence[str] = ()
    unparsed: Sequence[str] = ()
    everybody: Sequence[str] = ()
    groups: Sequence[str] = ()
    hosts: Sequence[str] = ()
    limit: str = ""
    local: bool = False
    parts: Mapping[str, object] = field(default_factory=dict)


# Settings with which plays would silently do another thing: those values, and the name in the environment.
REFUSED: Mapping[str, tuple[tuple[object, ...], str]] = {
    # A task that is done once would be done for each host.
    "strategy": (("free", "host_pinned"), "ANSIBLE_STRATEGY"),
    "hash_behaviour": (("merge",), "ANSIBLE_HASH_BEHAVIOUR"),
    # A host could set variables of plays.
    "inject_facts_as_vars": ((True,), "ANSIBLE_INJECT_FACT_VARS"),
}


def problems(given: Invocation) -> list[str]:
    """Why nothing, or not what was meant, would be done; each with a last line ``next: ...``. Empty: go on."""
    found = _settings(given)
    # With settings that are not ours the inventory is not ours either.
    return found or [*_parts(given), *_inventory(given)]


def _settings(given: Invocation) -> list[str]:
    if "swiftdeploy_history" not in given.callbacks:
        ours = given.root / "ansible.cfg"
        place, call = shlex.quote(str(given.root)), f"ansible-playbook {given.command}.yml"
        if given.config and _same(given.config, ours):
            return [
                "the callback swiftdeploy_history is not enabled, so nothing that is done would be recorded\n"
                "next: add it to ANSIBLE_CALLBACKS_ENABLED (swiftdeploy_history,swiftdeploy_notify), or unset that"
            ]
        why = f"Ansible has read {given.config}" if given.config else "Ansible has read no settings"
        if given.folder == given.root and not given.config and os.access(ours, os.R_OK):
            why += f", as anybody may write to {given.root}"
            return [f"{why}\nnext: chmod o-w {place}, then run the same command again"]
        return [
            f"{why}, not those of SwiftDeploy in {ours}: the history and what a command shows depend on them\n"
            f"next: cd {place} && {call}, or set ANSIBLE_CONFIG={shlex.quote(str(ours))}"
        ]
    return [
        f"{name} is set to {given.settings[name]}, with which plays of SwiftDeploy would do something else\n"
        f"next: unset {variable}, or take {name} out of {given.config}"
        for name, (values, variable) in REFUSED.items()
        if given.settings.get(name) in values
    ]


def _same(one: str, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _parts(given: Invocation) -> list[str]:
    """Only a part of a play was asked for; it has no parts that mean anything by themselves."""
    return [
        f"{option} leaves out tasks, also those that lock, ask the policies and record\n"
        f"next: run the command without {option}; -v shows every task, --check changes nothing"
        for option, value in given.parts.items()
        if value
    ]


def _inventory(given: Invocation) -> list[str]:
    found = []
    for source in given.sources:
        if "," not in source and not Path(source).exists():
            found.append(f"the inventory {_shown(source)} does not exist\nnext: {_others(given, source)}")
    found += [
        f"the inventory {_shown(source)} cannot be read; the warnings above say why\n"
        f"next: correct it; ansible-inventory -i {shlex.quote(source)} --graph shows what is in it"
        for source in given.unparsed
        if Path(source).exists()
    ]
    bad = unusable_names(given.hosts)
    if bad:
        names = ", ".join(repr(clean(name))[:80] for name in bad[:TOLD]) + (" ..." if len(bad) > TOLD else "")
        found.append(
            f"{names} cannot be the name of a host: it names a folder and stands in commands. Allowed are letters, "
            "digits and . _ - : @ % + =, with none of . - ~ first\n"
            f"next: give it another name in the inventory {_named(given)}, with its address as ansible_host"
        )
    if found:
        return found
    if not given.everybody:
        return [
            f"no host is in the inventory {_named(given)}, so there is nothing to do\n"
            f"next: add a host to it, or {_others(given)}"
        ]
    if given.local and not {"", "localhost", "all"} & set(given.limit.replace(":", ",").split(",")):
        return [
            f"{given.command}.yml works on this machine's history, which --limit {_shown(given.limit)} leaves out\n"
            "next: run it without --limit; a report of one host alone is made with -e report_host=HOST"
        ]
    return [] if given.local else _limit(given)


def _limit(given: Invocation) -> list[str]:
    # Ansible takes the others and only warns.
    missing = [name for name in _names(given.limit) if name not in given.groups and name not in given.everybody]
    if missing:
        return [
            f"--limit names {', '.join(_shown(name) for name in missing)}, which is neither a host nor a group of "
            f"{_named(given)}\nnext: correct the --limit; ansible-inventory --graph shows who is there"
        ]
    if not given.hosts:
        return [
            f"--limit {_shown(given.limit)} leaves none of the {len(given.everybody)} hosts of {_named(given)}\n"
            f"next: give another --limit; ansible-inventory --graph shows who is there"
        ]
    return []


def _names(limit: str) -> list[str]:
    """The plain names in a limit: no pattern, no file, nobody that is to be left out."""
    # A colon also parts them, but stands in addresses as well.
    words = [word.strip() for word in limit.split(",")]
    return [word for word in words if word and word[0] not in "!&@~" and not set("*?[]:!&") & set(word)]


def _shown(path: str) -> str:
    """A path as a person would type it here."""
    here = Path.cwd()
    return shlex.quote(clean(Path(path).relative_to(here) if Path(path).is_relative_to(here) else path))


def _named(given: Invocation) -> str:
    return ", ".join(_shown(source) for source in given.sources) or "that is configured"


def _others(given: Invocation, besides: str = "") -> str:
    """Which inventories there are to choose from."""
    folder = given.root / "inventory"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name[0] != ".") if folder.is_dir() else []
    there = [f"inventory/{name}" for name in names if not _same(str(folder / name), Path(besides or "/"))]
    choice = f" (there are {', '.join(there)})" if there else ""
    return f"give another one with -i{choice}"
