"""The tasks of a deploy that changes nothing, by role, with the time of each role's tasks, in each runtime.

Run by `make bench`. The seconds are those of ansible.posix.profile_tasks; which tasks start a module on the host is
seen in a run of its own, as the look at the processes takes time itself.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from support.kill import runs
from support.workspace import REPOSITORY, Workspace

LINE = re.compile(r"^(?P<name>\S.*?) -+ (?P<seconds>\d+\.\d+)s$")


class Took(NamedTuple):
    """One task: seconds, and whether a module ran on the host."""

    name: str
    seconds: float
    module: bool


def profiled(workspace: Workspace) -> list[tuple[str, float]]:
    """Name and seconds of each task of a deploy, in their order."""
    environment = {
        "ANSIBLE_CALLBACKS_ENABLED": "swiftdeploy_history,ansible.posix.profile_tasks",
        "PROFILE_TASKS_SORT_ORDER": "none",
        "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "all",
    }
    ran = workspace.play("deploy", environment=environment).ok()
    assert "Nothing to change" in ran.out, ran.text
    found = [LINE.match(line) for line in ran.out.splitlines()]
    return [(match["name"], float(match["seconds"])) for match in found if match]


def tasks(workspace: Workspace) -> list[Took]:
    """The tasks of a deploy that changes nothing."""
    counted, timed = runs.counted(workspace, "deploy"), profiled(workspace)
    assert [task.name for task in counted] == [name for name, _seconds in timed], (counted, timed)
    return [Took(name, seconds, task.seconds is not None) for task, (name, seconds) in zip(counted, timed, strict=True)]


def table(sides: dict[str, list[Took]]) -> str:
    """The table that docs/benchmarks.md holds: a line a role, in the order of the run."""
    lines = ["| role | " + " | ".join(f"{runtime}: tasks (on the host) | s" for runtime in sides) + " |"]
    lines.append("|---|" + "---|---|" * len(sides))
    roles = list(dict.fromkeys(_role(took) for found in sides.values() for took in found))
    for role in [*roles, "all"]:
        cells = []
        for found in sides.values():
            ours = [took for took in found if role in ("all", _role(took))]
            hosts = sum(took.module for took in ours)
            cells += [
                f"{len(ours)} ({hosts})" if hosts else str(len(ours)),
                f"{sum(took.seconds for took in ours):.2f}",
            ]
        lines.append(f"| {role} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _role(took: Took) -> str:
    role, colon, _name = took.name.partition(" : ")
    return role if colon else "(includes)"


def main() -> None:
    """Print the table, and the tasks that take longest."""
    sides: dict[str, list[Took]] = {}
    with tempfile.TemporaryDirectory(prefix="sdbench-") as place:
        for runtime in ("docker", "process"):
            workspace = Workspace(Path(place) / runtime, runtime, check_seconds=1)
            workspace.extra["parts_dir"] = str(Path(place) / "parts")
            try:
                workspace.play("deploy").ok()
                sides[runtime] = tasks(workspace)
            finally:
                workspace.play("teardown", "-e", "clean=true")
    words = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()
    print(f"commit {commit}\n\n{table(sides)}\n")
    for runtime, found in sides.items():
        longest = sorted(found, key=lambda took: took.seconds, reverse=True)[:8]
        print(f"{runtime}: " + ", ".join(f"{took.name} {took.seconds:.2f} s" for took in longest))


if __name__ == "__main__":
    main()
