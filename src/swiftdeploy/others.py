"""What hosts tell of their releases that this controller's history does not know: what was done from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import history

Logs = Mapping[str, list[dict[str, Any]]]

SHOWN = 50
VERBS = {
    "live": "got all traffic",
    "canary": "got {weight} %",
    "back": "lost its traffic again",
    "teardown": "teardown",
}


def logs(hosts: Iterable[str], known: Mapping[str, Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """{host: its log} of the hosts that were asked and answered; ``known`` is Ansible's hostvars."""
    found: dict[str, list[dict[str, Any]]] = {}
    for host in hosts:
        told = known[host].get("audit_log")
        if isinstance(told, list):
            found[host] = [dict(entry) for entry in told if isinstance(entry, Mapping)]
    return found


def unseen(told: Logs, path: Path) -> list[dict[str, Any]]:
    """The entries of ``told`` whose run the history at ``path`` does not know, each with its host, oldest first.

    Raises HistoryError. No history yet knows of no run.
    """
    runs = {str(entry.get("run_id")) for entries in told.values() for entry in entries}
    try:
        for record in history.read(path):
            runs.discard(str(record.get("run_id")))
            if not runs:
                break
    except FileNotFoundError:
        pass
    found = [
        {"host": host, **entry}
        for host, entries in told.items()
        for entry in entries
        if str(entry.get("run_id")) in runs
    ]
    return sorted(found, key=lambda entry: (str(entry.get("at")), entry["host"]))


def text(found: list[dict[str, Any]], told: Logs, path: Path) -> str:
    """What a person is told, a line for each, the newest where there are many."""
    if not told:
        return "no host has answered: nothing can be said of what was done from elsewhere"
    number = sum(len(entries) for entries in told.values())
    asked = f"{len(told)} {'host' if len(told) == 1 else 'hosts'}"
    if not found:
        return f"{asked} asked: {path.name} knows the runs of all {number} switches that they remember"
    lines = [f"{asked} asked: {len(found)} of {number} switches were made by runs that {path.name} does not know"]
    if len(found) > SHOWN:
        lines.append(f"  the last {SHOWN} of them:")
    return "\n".join([*lines, *(_line(entry) for entry in found[-SHOWN:])])


def _line(entry: Mapping[str, Any]) -> str:
    what = VERBS.get(str(entry.get("event")), "changed").format(weight=entry.get("weight"))
    release = f"v{entry.get('version')} ({entry.get('mode')}) {entry.get('release')} " if entry.get("release") else ""
    return f"  {entry.get('at')}  {entry['host']}  {release}{what}, by {entry.get('actor')} ({entry.get('action')})"
