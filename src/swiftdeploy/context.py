"""Who runs a playbook, and whether another run on this controller still lives."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from swiftdeploy import history_line


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
