"""A run that is killed at any task: one whole release serves, and the same command again sets everything right.

SWIFTDEPLOY_KILLS says where to strike: ``sample`` (the default), ``all``, or a number of points for each operation.
SWIFTDEPLOY_RESULTS names a folder that gets a JSON table of what was seen for each operation and runtime.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from conftest import RUNTIMES
from support.kill import runs, stack
from support.kill.prober import Prober, Release
from support.kill.runs import Point, Task
from support.workspace import Ran, Workspace, wait_until

COMMANDS = {
    "deploy": ("deploy",),
    "canary": ("promote", "-e", "mode=canary"),
    "stable": ("promote", "-e", "mode=stable"),
}
# How many points the sample has, for each runtime. What a first deploy leaves is alike in both, and where a
# release serves, a promotion does all that a deploy does.
SAMPLE = {"process": {"first": 1, "deploy": 1, "promote": 2}, "docker": {"first": 0, "deploy": 0, "promote": 1}}
IS_SAMPLE = os.environ.get("SWIFTDEPLOY_KILLS", "sample") == "sample"
THOROUGH: dict[str, dict[str, int | None]] = {
    "process": {"first": 20, "deploy": None, "promote": None},
    "docker": {"first": 4, "deploy": 20, "promote": 20},
}
# The first way of each operation, so that the small samples differ.
FIRST_WAY = {"first": 2, "deploy": 0, "promote": 1}


@dataclass
class Struck:
    """One stack that is struck again and again, each time by a run for a new version."""

    workspace: Workspace
    version: int = 1
    known: set[str] = field(default_factory=set)

    def ask_for(self, operation: str, rise: bool = True) -> Release:
        """Write the manifest of the next version; the release that ``operation`` is to bring."""
        self.version += int(rise)
        mode = "canary" if operation == "canary" else "stable"
        before = json.loads(self.workspace.get().text)["mode"] if operation != "deploy" and self.known else "stable"
        self.workspace.write_manifest(version=f"{self.version}.0.0", mode=before)
        return f"{self.version}.0.0", mode

    def fresh(self) -> None:
        """Take everything away."""
        self.workspace.clear("-e", "break_lock=true").ok()

    def deployed(self) -> None:
        """A healthy stack, and the files it consists of once either slot was used."""
        self.ask_for("deploy")
        self.workspace.play("deploy").ok()


@pytest.fixture(scope="module", params=RUNTIMES)
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, parts_dir: Path
) -> Iterator[Struck]:
    """One stack a runtime for all points."""
    workspace = Workspace(tmp_path_factory.mktemp("struck") / "clone", request.param)
    workspace.extra["parts_dir"] = str(parts_dir)
    yield Struck(workspace)
    stack.discard(workspace)


def strike(target: Struck, point: Point, operation: str, serves: bool) -> tuple[Release, Point, Ran, bool]:
    """Strike; again, earlier in the module's life, when the module was quicker than the strike.

    ``serves``: something serves before. Else all is taken away once more, as the deploy that was not struck has made
    the next one another. The last of what is returned: whether the history must tell of the interruption.
    """
    while True:
        asked = target.ask_for(operation)
        struck = runs.struck(target.workspace, point, *COMMANDS[operation])
        if struck is not None:
            ran, names = struck
            # A run whose module was killed goes on and records that it failed.
            return asked, point, ran, point.way != "module" and runs.interrupted(names)
        assert point.after > 0, f"task {point.task} could not be struck"
        if not serves:
            target.fresh()
        point = Point(point.task, point.way, point.after / 2 if point.after > 0.05 else 0.0)


def lock_breaks(workspace: Workspace) -> list[str]:
    """The reasons of all records of a broken lock."""
    return [str(record["reason"]) for record in workspace.history() if record["event"] == "lock_broken"]


def interruptions(workspace: Workspace) -> list[str]:
    """Events and reasons of all records of an interrupted run."""
    return [
        f"{record['event']}: {record['reason']}"
        for record in workspace.history()
        if record["event"].endswith("_interrupted")
    ]


def repaired(target: Struck, asked: Release, operation: str, point: Point, told: bool, settle: bool) -> list[str]:
    """What is wrong after the same command was given again; with ``settle`` also after it was given once more.

    ``told``: the history must tell of the interruption, once.
    """
    workspace, words = target.workspace, COMMANDS[operation]
    earlier = interruptions(workspace)
    left = (stack.folder(workspace) / "lock.json").exists()
    breaks = lock_breaks(workspace)
    again = workspace.play(*words)
    if again.status != 0:
        return [f"the next run failed: {again.text[-1500:]}"]
    problems = stack.inconsistencies(workspace, asked)
    new = lock_breaks(workspace)[len(breaks) :]
    # A module that outlived its controller may have taken the lock, or given it back, after the look at it.
    expected = {0, 1} if point.way == "orphan" else {int(left)}
    if len(new) not in expected or not all("is gone" in reason for reason in new):
        problems.append(f"lock left behind: {left}; recorded as broken: {new}")
    fresh = interruptions(workspace)[len(earlier) :]
    if len(fresh) != int(told) or not all(f"{words[0]}_interrupted: interrupted after 20" in line for line in fresh):
        problems.append(f"interrupted: {told}; recorded: {fresh}")
    if not settle:
        return problems
    settled = stack.programs(workspace)
    further = workspace.play(*words, "-v")
    if further.status != 0:
        return [*problems, f"a further run failed: {further.text[-1500:]}"]
    if "Nothing to change" not in further.out or " changed=0 " not in further.out:
        problems.append(f"a further run changed something: {further.out[-1500:]}")
    if stack.programs(workspace) != settled:
        problems.append(f"a further run restarted something: {settled} became {stack.programs(workspace)}")
    strangers = stack.files(workspace) - target.known
    if target.known and strangers:
        problems.append(f"left lying about: {sorted(strangers)}")
        # Told once, at the point that left them.
        target.known |= strangers
    return problems


def suffer(target: Struck, point: Point, operation: str, serves: bool) -> dict[str, Any]:
    """Strike at ``point``, judge what serves, run again, judge again. A row of the table of results."""
    workspace, started = target.workspace, time.monotonic()
    # That nothing changes any more is a long look, and the same one each time.
    settle = IS_SAMPLE or point.task.number % 5 == 0
    problems: list[str] = []
    served: Release | None = None
    if serves:
        old = stack.serving(workspace)
        with Prober(workspace.url) as prober:
            asked, point, ran, told = strike(target, point, operation, serves)
            served = stack.serving(workspace)
            problems += repaired(target, asked, operation, point, told, settle)
        # Strikes that came too late brought the versions between.
        between = {(f"{number}.0.0", asked[1]) for number in range(int(old[0].split(".")[0]) + 1, target.version + 1)}
        problems += prober.problems({old, *between})
    else:
        asked, point, ran, told = strike(target, point, operation, serves)
        problems += repaired(target, asked, operation, point, told, settle)
    return {
        "runtime": workspace.runtime,
        "operation": operation if serves else "first deploy",
        "task": point.task.number,
        "name": point.task.name,
        "way": point.way,
        "after": round(point.after, 3),
        "struck_run_ended": ran.status,
        "interrupted": told,
        "asked": asked,
        "served": served,
        "problems": problems,
        "seconds": round(time.monotonic() - started, 1),
    }


def write_table(name: str, rows: list[dict[str, Any]]) -> None:
    """Keep the rows where SWIFTDEPLOY_RESULTS says."""
    place = os.environ.get("SWIFTDEPLOY_RESULTS")
    if place:
        Path(place).mkdir(parents=True, exist_ok=True)
        (Path(place) / f"killed-{name}.json").write_text(json.dumps(rows, indent=1) + "\n")


def judge(target: Struck, name: str, work: Iterator[dict[str, Any]]) -> None:
    """Go through all points, then say all that was wrong."""
    rows: list[dict[str, Any]] = []
    for row in work:
        rows.append(row)
        write_table(f"{target.workspace.runtime}-{name}", rows)
        if row["problems"]:
            # The next point must not suffer from this one.
            target.fresh()
            target.deployed()
    bad = [row for row in rows if row["problems"]]
    assert rows
    assert not bad, json.dumps(bad, indent=1)
    audited = target.workspace.play("audit").ok()
    assert "is whole" in audited.out


def points(target: Struck, name: str, tasks: list[Task]) -> list[Point]:
    """Where to strike."""
    kind = target.workspace.runtime
    return runs.chosen(tasks, SAMPLE[kind][name], THOROUGH[kind][name], FIRST_WAY[name])


sample_in_process = pytest.mark.parametrize("target", RUNTIMES[:1] if IS_SAMPLE else RUNTIMES, indirect=True)


@sample_in_process
def test_a_first_deploy_that_is_killed_is_made_good_by_the_next(target: Struck) -> None:
    # The programs stay when the stack goes: those that are counted are the tasks of a deploy that finds them.
    target.deployed()
    target.fresh()
    target.ask_for("deploy", rise=False)
    tasks = runs.counted(target.workspace, "deploy")

    def work() -> Iterator[dict[str, Any]]:
        for point in points(target, "first", tasks):
            target.fresh()
            target.known.clear()
            yield suffer(target, point, "deploy", serves=False)

    judge(target, "first", work())


def healthy(target: Struck) -> None:
    """Both slots were used, both modes were seen, and the version of the last deploy serves."""
    if target.known:
        # As the points before have left it, which is what they were judged by.
        return
    target.deployed()
    target.ask_for("canary")
    target.workspace.play(*COMMANDS["canary"]).ok()
    target.deployed()
    target.workspace.play("audit").ok()
    target.known |= stack.files(target.workspace)


@sample_in_process
def test_a_deploy_that_is_killed_loses_no_request_and_is_made_good_by_the_next(target: Struck) -> None:
    healthy(target)
    target.ask_for("deploy")
    tasks = runs.counted(target.workspace, "deploy")
    judge(target, "deploy", (suffer(target, point, "deploy", serves=True) for point in points(target, "deploy", tasks)))


def in_turn(chosen: dict[str, list[Point]]) -> Iterator[tuple[str, Point]]:
    """The two directions take turns, so that each finds the other's release serving.

    A strike at a task's begin belongs to one of the two, as the sample does altogether: on a host that no module
    works on it finds what the strike before it found. Strikes at modules are made in both.
    """
    for index in range(max(len(found) for found in chosen.values())):
        for number, (operation, found) in enumerate(chosen.items()):
            if index < len(found):
                single = IS_SAMPLE or found[index].way == "controller"
                if not single or index % 2 == number:
                    yield operation, found[index]


def test_a_promotion_that_is_killed_loses_no_request_and_is_made_good_by_the_next(target: Struck) -> None:
    healthy(target)
    tasks = {}
    for operation in ("canary", "stable"):
        target.ask_for(operation)
        tasks[operation] = runs.counted(target.workspace, *COMMANDS[operation])

    chosen = {operation: points(target, "promote", found) for operation, found in tasks.items()}
    judge(
        target,
        "promote",
        (suffer(target, point, operation, serves=True) for operation, point in in_turn(chosen)),
    )


WRITES = {
    "state": "state.save(folder, state.empty('app'))",
    "lock": "lock.acquire(folder, {'run_id': 'r', 'actor': 'a', 'since': 's', 'action': 'deploy'})",
}
DIE = """
import os, pathlib, signal, sys
from swiftdeploy_target import lock, state
folder = pathlib.Path(sys.argv[1])
def die(*_words, **_more):
    os.kill(os.getpid(), signal.SIGKILL)
os.{call} = die
{write}
"""


def test_writes_that_are_killed_half_way_leave_nothing_for_good(make_workspace: Callable[[str], Workspace]) -> None:
    workspace = make_workspace("process")
    workspace.play("deploy").ok()
    before = stack.files(workspace)
    for kind, call in (("state", "fsync"), ("lock", "fsync"), ("lock", "link")):
        place, code = stack.folder(workspace), DIE.format(call=call, write=WRITES[kind])
        done = subprocess.run([sys.executable, "-c", code, str(place)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert stack.files(workspace) - before, (kind, call)
        workspace.play("deploy").ok()
        assert stack.files(workspace) - before == set(), (kind, call)


def test_a_run_that_is_killed_between_the_switch_and_its_memory_is_remembered(
    make_workspace: Callable[[str], Workspace],
) -> None:
    workspace = make_workspace("process")
    for version in ("1.0.0", "2.0.0"):
        workspace.write_manifest(version=version)
        workspace.play("deploy").ok()
    path = stack.folder(workspace) / "state.json"
    memory: list[bytes] = []

    def started() -> bool:
        memory[:] = [path.read_bytes()]
        return any(placed and placed["outcome"] == "starting" for placed in json.loads(memory[0])["slots"].values())

    workspace.write_manifest(version="3.0.0")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(workspace.play, "deploy")
        wait_until(started, "the release to be started", 120)
        running.result().ok()
    # The moment between the two is too short to strike at, so what it leaves is put there.
    path.write_bytes(memory[0])
    assert stack.serving(workspace) == ("3.0.0", "stable")
    workspace.play("deploy").ok()
    problems = stack.inconsistencies(workspace, ("3.0.0", "stable"))
    # What that is for: nginx cannot be asked after a power cut, and the way back starts from what is remembered.
    stack.power_off(workspace)
    workspace.play("rollback").ok()
    assert (problems, stack.serving(workspace)) == ([], ("2.0.0", "stable"))
