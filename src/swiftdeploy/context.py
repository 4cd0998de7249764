"""Who runs a playbook, from which commit, and whether another run on this controller still lives."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from swiftdeploy import history_line

# Seconds for all that git is asked. A work tree too big for it is told as not known.
GIT_SECONDS = 5.0
# Set in a hook of git, these would name another repository than the folder's.
_GIT_OWN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR")


def process_start(pid: int) -> str:
    """When ``pid`` was started, as text that differs for two processes that had the same number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return done.stdout.strip()


def describe(pid: int) -> dict[str, Any]:
    """The run whose ``ansible-playbook`` process is ``pid``: see library/swiftdeploy_context.py."""
    controller, start, now = socket.gethostname(), process_start(pid), datetime.now(UTC)
    return {
        "run_id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{controller}/{pid}/{start}")),
        "actor": history_line.default_actor(),
        "controller": controller,
        "pid": pid,
        "process_start": start,
        "started": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "started_unix": now.timestamp(),
        "folder": str(Path.cwd()),
    }


def is_gone(holder: Mapping[str, Any], controller: str) -> bool:
    """Whether a lock's holder ran on ``controller``, which is this machine, and its process no longer exists."""
    if holder.get("controller") != controller or not isinstance(holder.get("pid"), int):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return process_start(holder["pid"]) != holder.get("process_start")


def commit(*folders: str | os.PathLike[str], seconds: float = GIT_SECONDS) -> dict[str, Any] | None:
    """The commit checked out in the first of ``folders`` that git knows: {"id", "time", "dirty"}, else None.

    ``time`` is when it was committed (UTC), ``dirty`` whether files that git tracks differ from it. Without git,
    without a repository, without a commit, or when git takes longer than ``seconds`` in all: None. Never raises.
    """
    deadline = time.monotonic() + seconds
    for folder in folders:
        shown = _git(folder, deadline, "log", "-1", "--no-show-signature", "--format=%H %ct")
        identity, _space, committed = (shown or "").strip().partition(" ")
        if not identity or not committed.isdigit():
            continue
        changes = _git(folder, deadline, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=none")
        if changes is None:
            return None
        moment = datetime.fromtimestamp(int(committed), UTC)
        return {"id": identity, "time": moment.isoformat().replace("+00:00", "Z"), "dirty": bool(changes.strip())}
    return None


def _git(folder: str | os.PathLike[str], deadline: float, *words: str) -> str | None:
    """What git prints in ``folder``; None when it fails, is missing or takes too long."""
    # Reads only: no lock, no helper that a repository's own settings name.
    command = ["git", "-c", "core.fsmonitor=false", "--no-optional-locks", "-C", os.fspath(folder), *words]
    kept = {key: value for key, value in os.environ.items() if key not in _GIT_OWN}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**kept, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
            timeout=max(0.01, deadline - time.monotonic()),
            check=False,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
