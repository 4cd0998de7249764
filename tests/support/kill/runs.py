"""Runs that are counted or struck, and the points at which to strike."""

from __future__ import annotations

import configparser
import itertools
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.workspace import Ran, Workspace

PLUGINS = Path(__file__).resolve().parent / "plugins"
WAYS = ("controller", "orphan", "module")
# How far into its module's life a task is struck: near the start, in the middle, near the end.
FRACTIONS = (0.35, 0.6, 0.85)


@dataclass(frozen=True)
class Task:
    """One task of a counted run. ``seconds`` is how long its first module's process lived, None without one."""

    number: int
    name: str
    seconds: float | None


@dataclass(frozen=True)
class Point:
    """Where and how to strike; ``after`` is seconds from the start of the module's process."""

    task: Task
    way: str
    after: float


def environment(workspace: Workspace, order: dict[str, Any]) -> dict[str, str]:
    """What loads the plugin beside those that ansible.cfg names, and its order."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(workspace.folder / "ansible.cfg")
    defaults = settings["defaults"]
    folders = [str(workspace.folder / part) for part in defaults["callback_plugins"].split(":")]
    return {
        "ANSIBLE_CALLBACK_PLUGINS": ":".join([*folders, str(PLUGINS)]),
        "ANSIBLE_CALLBACKS_ENABLED": f"{defaults['callbacks_enabled']},swiftdeploy_strike",
        "SWIFTDEPLOY_STRIKE": json.dumps(order),
    }


def _play(workspace: Workspace, words: Iterable[str], **order: Any) -> tuple[Ran, list[dict[str, Any]]]:
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        ran = workspace.play(*words, environment=environment(workspace, {"journal": str(journal), **order}))
        return ran, [json.loads(line) for line in journal.read_text().splitlines()]


def counted(workspace: Workspace, *words: str) -> list[Task]:
    """Run ``words`` (playbook and arguments) to its good end; its tasks."""
    ran, lines = _play(workspace, words)
    ran.ok()
    starts = [line for line in lines if "task" in line]
    spans = [line["module"] for line in lines if "module" in line]
    tasks = []
    for start, following in itertools.pairwise([*starts, {"at": float("inf")}]):
        first = next((end - begin for begin, end in spans if start["at"] <= begin < following["at"]), None)
        tasks.append(Task(start["task"], start["name"], first))
    return tasks


def struck(workspace: Workspace, point: Point, *words: str) -> tuple[Ran, list[str]] | None:
    """Run ``words`` and strike at ``point``; how it ended, and the names of the tasks that had begun by then.

    None when the module had ended before the strike was due.
    """
    order = {"task": point.task.number, "way": point.way, "after": point.after}
    ran, lines = _play(workspace, words, **order)
    if not any("struck" in line for line in lines):
        return None
    if point.way != "module":
        assert ran.status == -9, ran.text
    return ran, [line["name"] for line in lines if "task" in line]


def interrupted(names: list[str]) -> bool:
    """Whether a run that was killed in the last of the tasks ``names`` was between the announcement of what it is in
    the middle of and the record of how that ended."""
    done = names[:-1]
    begun = any(name.endswith("Say what this host is in the middle of") for name in done)
    # The record of the end is the one after this; other records come before.
    ends = [number for number, name in enumerate(done) if name.endswith(("that it is done", "that it was not done"))]
    recorded = bool(ends) and any(name.endswith("Announce the event") for name in done[ends[-1] :])
    return begun and not recorded


def every_point(tasks: list[Task]) -> list[Point]:
    """Every task with every way that applies to it."""
    numbers = itertools.count()
    points = []
    for task in tasks:
        points.append(Point(task, "controller", 0.0))
        if task.seconds is not None:
            fraction = FRACTIONS[next(numbers) % len(FRACTIONS)]
            points += [Point(task, way, fraction * task.seconds) for way in ("orphan", "module")]
    return points


def spread(tasks: list[Task], number: int, first_way: int = 0) -> list[Point]:
    """``number`` different points evenly over the run, the ways taking turns."""
    points = every_point(tasks)
    by_way = {way: [point for point in points if point.way == way] for way in WAYS}
    chosen = []
    for index in range(number):
        having = by_way[WAYS[(first_way + index) % len(WAYS)]]
        chosen.append(having[int((index + 0.5) / number * len(having))])
    return list(dict.fromkeys(chosen))


def chosen(tasks: list[Task], sample: int, thorough: int | None, first_way: int = 0) -> list[Point]:
    """The points that SWIFTDEPLOY_KILLS asks for: ``sample``, ``all``, or a number of them.

    ``sample`` is how many belong to the sample, ``thorough`` how many make up "all" (None: every one).
    """
    wanted = os.environ.get("SWIFTDEPLOY_KILLS", "sample")
    if wanted == "all":
        return every_point(tasks) if thorough is None else spread(tasks, thorough, first_way)
    return spread(tasks, sample if wanted == "sample" else int(wanted), first_way)
