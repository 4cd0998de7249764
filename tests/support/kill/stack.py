"""What stands on the host: files, programs, and whether they tell the same story."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.kill.prober import Release, whole
from support.kill.watcher import parents
from support.workspace import Workspace, wait_until

SLOTS = ("blue", "green")
# What the service and nginx write for themselves, and the samples that a gate keeps for the next one.
OWN_FILES = re.compile(r"^\.swiftdeploy/[^/]+/((slots|logs|tmp|run|data)/|samples\.json$)|__pycache__|^\.ansible/")


def folder(workspace: Workspace) -> Path:
    """The stack's folder on this host."""
    return Path(workspace.folder, ".swiftdeploy", workspace.name)


def read(workspace: Workspace, name: str) -> dict[str, Any]:
    """A JSON file of the stack's folder."""
    return dict(json.loads((folder(workspace) / name).read_bytes()))


def files(workspace: Workspace) -> set[str]:
    """Every file of controller and stack, slots' names made alike, without what programs write for themselves."""
    found = set()
    for path in workspace.folder.rglob("*"):
        name = str(path.relative_to(workspace.folder))
        if not path.is_dir() and not OWN_FILES.search(name):
            found.add(name.replace("green", "SLOT").replace("blue", "SLOT"))
    return found


def _stat(pid: int) -> tuple[int, str]:
    """Parent, and a text that differs for two processes that had the same number."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), fields[19]


def process_ids(workspace: Workspace) -> set[int]:
    """Every process of the stack in the process runtime; nginx's own carry no environment but name their folder."""
    found = set(workspace.processes())
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if words.startswith(b"nginx: master") and os.fsencode(folder(workspace)) in words:
                found.add(int(entry.name))
    processes, size = parents(), 0
    while size < len(found):
        size = len(found)
        found |= {pid for pid, parent in processes.items() if parent in found}
    return found


def _programs_process(workspace: Workspace) -> dict[str, list[str]]:
    environments = workspace.processes()
    everything = process_ids(workspace)
    managers = {pid for pid in everything if b"supervisord" in Path(f"/proc/{pid}/cmdline").read_bytes()}
    found: dict[str, list[str]] = {}
    for pid in everything:
        with suppress(OSError):
            parent, start = _stat(pid)
            if parent in everything - managers:
                continue
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            own = environments.get(pid, {})
            if pid in managers:
                name = "supervisord"
            elif words.startswith(b"nginx"):
                name = "nginx"
            elif "STATE_DIR" in own:
                name = Path(own["STATE_DIR"]).name
            else:
                name = Path(os.fsdecode(words.split(b"\0")[0])).name
            found.setdefault(name, []).append(f"{pid} {start}")
    return found


def _docker(*words: str) -> list[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.splitlines()


def _programs_docker(workspace: Workspace) -> dict[str, list[str]]:
    names = _docker("ps", "--format", "{{.Names}}", "--filter", f"name=swiftdeploy-{workspace.name}-")
    found: dict[str, list[str]] = {}
    for name in names:
        identity = _docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", name)
        found.setdefault(name.removeprefix(f"swiftdeploy-{workspace.name}-"), []).extend(identity)
    return found


def programs(workspace: Workspace) -> dict[str, list[str]]:
    """Program to what identifies each running process or container of it: a restart changes it."""
    found = _programs_docker(workspace) if workspace.runtime == "docker" else _programs_process(workspace)
    return {name: sorted(found[name]) for name in sorted(found)}


def containers(workspace: Workspace) -> list[str]:
    """Names of all containers of the stack."""
    return _docker("ps", "-a", "--format", "{{.Names}}", "--filter", f"name=swiftdeploy-{workspace.name}-")


def serving(workspace: Workspace, times: int = 6) -> Release:
    """The one whole release that answers, asked ``times`` on new connections."""
    seen = {whole(workspace.get()) for _number in range(times)}
    assert len(seen) == 1, f"more than one release answers: {seen}"
    return seen.pop()


def inconsistencies(workspace: Workspace, release: Release) -> list[str]:
    """Where nginx, the host's memory, what runs and the lock do not all say that ``release`` serves."""
    problems = []
    served = serving(workspace)
    if served != release:
        problems.append(f"{served} serves, not {release}")
    live = workspace.get("/_swiftdeploy/routing").json()["live"]
    state = read(workspace, "state.json")
    if state["live"] != live:
        problems.append(f"nginx serves {live}, state.json says {state['live']}")
    remembered = state["slots"][live]
    if remembered is None or (remembered["version"], remembered["mode"]) != release:
        problems.append(f"state.json has {remembered} in {live}")
    expected = {"nginx": 1, "opa": 1, live: 1, **({"supervisord": 1} if workspace.runtime == "process" else {})}
    present = {name: len(found) for name, found in programs(workspace).items()}
    if present != expected:
        problems.append(f"these programs run: {present}, expected: {expected}")
    if (folder(workspace) / "lock.json").exists():
        problems.append(f"the lock is still there: {read(workspace, 'lock.json')}")
    return problems


def masterless(workspace: Workspace) -> set[int]:
    """Workers of an nginx that has lost its master: nothing but where they work tells whose they are."""
    found = set()
    for pid in parents():
        with suppress(OSError):
            here = Path(f"/proc/{pid}/cwd").readlink() == folder(workspace)
            if here and Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"nginx: worker"):
                found.add(pid)
    return found


def _kill(workspace: Workspace) -> None:
    """SIGKILL to everything of the stack. It is stopped before, so that nothing is started again meanwhile."""

    def everything() -> set[int]:
        return process_ids(workspace) | masterless(workspace)

    for pid in sorted(everything()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    found, processes = everything(), parents()
    # The manager last: the kernel wakes stopped processes whose parent dies, with a SIGHUP, and nginx would then start
    # workers that nobody knows of (setpgid(2), orphaned process groups).
    for pid in sorted(found, key=lambda pid: processes.get(pid) not in found):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not everything(), "the whole stack to be gone")


def power_off(workspace: Workspace) -> None:
    """SIGKILL to everything of the stack, as a power cut does."""
    assert process_ids(workspace)
    _kill(workspace)


def discard(workspace: Workspace) -> None:
    """Take everything of the stack away, however a test has left it, in a tenth of the time of a teardown."""
    if workspace.runtime == "docker":
        for kind, every, force in (
            ("container", ["--all"], ["--force", "--volumes"]),
            ("network", [], []),
            ("volume", [], []),
        ):
            found = _docker(kind, "ls", *every, "--quiet", "--filter", f"name={workspace.name}")
            if found:
                _docker(kind, "rm", *force, *found)
    _kill(workspace)
    for left in (".swiftdeploy", "generated"):
        # What a container's own user has written, another user cannot always remove.
        shutil.rmtree(workspace.folder / left, ignore_errors=True)
