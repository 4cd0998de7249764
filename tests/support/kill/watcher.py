"""Watches the processes of one ansible-playbook: times its modules, or strikes at the next one.

    watcher.py count CONTROLLER JOURNAL
    watcher.py orphan|module CONTROLLER JOURNAL AFTER

Prints ``ready`` once it watches. CONTROLLER is a process id, AFTER seconds from the moment the module's process is
seen. Appends JSON lines to JOURNAL: ``{"module": [from, to]}`` (monotonic seconds) for each module when counting,
``{"struck": pid}`` or ``{"missed": true}`` when striking. A process of its own, since it has to outlive the
controller that it kills.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

PAUSE = 0.01


def parents() -> dict[int, int]:
    """Process id to parent's id, without zombies."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                found[int(entry.name)] = int(fields[1])
    return found


def is_module(pid: int) -> bool:
    """Whether ``pid`` is a Python that reads a module from its standard input, or runs one from a file."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return False
    return Path(os.fsdecode(words[0])).name.startswith("python") and (
        len(words) == 1 or any(b"AnsiballZ_" in word for word in words)
    )


def modules(controller: int, processes: dict[int, int]) -> list[int]:
    """Module processes: controller > worker > one or more shells > module."""
    workers = {pid for pid, parent in processes.items() if parent == controller}
    below, found = workers, []
    while below:
        below = {pid for pid, parent in processes.items() if parent in below}
        found += [pid for pid in sorted(below) if is_module(pid)]
    return found


def kill_run(controller: int) -> None:
    """SIGKILL to ``controller`` and its workers. Stopped first, so that it cannot answer a worker's death."""
    with contextlib.suppress(ProcessLookupError):
        if controller != os.getpid():
            os.kill(controller, signal.SIGSTOP)
        for pid, parent in parents().items():
            if parent == controller and pid != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        os.kill(controller, signal.SIGKILL)


def note(journal: Path, **fields: object) -> None:
    """Append one line."""
    with journal.open("a") as stream:
        stream.write(json.dumps(fields) + "\n")


def count(controller: int, journal: Path) -> None:
    """Time every module until the controller ends."""
    seen: dict[int, float] = {}
    while controller in (processes := parents()):
        now = time.monotonic()
        present = modules(controller, processes)
        for pid in present:
            seen.setdefault(pid, now)
        for pid in [pid for pid in seen if pid not in present]:
            note(journal, module=[seen.pop(pid), now])
        time.sleep(PAUSE)


def strike(way: str, controller: int, journal: Path, after: float) -> None:
    """Kill the run or the module ``after`` seconds from the next module's start, unless it ends before."""
    while controller in (processes := parents()):
        present = modules(controller, processes)
        if present:
            break
        time.sleep(PAUSE)
    else:
        return note(journal, missed=True)
    module, due = present[0], time.monotonic() + after
    while time.monotonic() < due:
        time.sleep(min(PAUSE, max(0.0, due - time.monotonic())))
    if not is_module(module):
        return note(journal, missed=True)
    note(journal, struck=module)
    if way == "orphan":
        kill_run(controller)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.kill(module, signal.SIGKILL)
    return None


def main() -> None:
    """Entry point."""
    way, controller, journal = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    print("ready", flush=True)
    if way == "count":
        count(controller, journal)
    else:
        strike(way, controller, journal, float(sys.argv[4]))


if __name__ == "__main__":
    main()
