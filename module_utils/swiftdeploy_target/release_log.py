"""What was switched on this host, kept on the host: so that a controller can learn what others did here.

One JSON object a line in ``.log/SERVICE.jsonl`` of SwiftDeploy's folder on the host, beside the stack's own folder,
which a teardown removes (with ``clean=data`` it removes this too)::

    {"at": UTC, "event": live | canary | back | teardown, "run_id", "actor", "controller", "action": the command,
     "release", "version", "mode", "slot", "weight": percent of the traffic, "leaves": replaced | rolled_back | null}

It is no evidence: whoever may write on the host may write in it. The history of the controller is chained, this is not.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Optional

from .files import read_bytes, write_atomic

FOLDER = ".log"
# Beyond this the older half is dropped; about 1,000 switches.
MAX_BYTES = 384 * 1024
KEYS = (
    "at", "event", "run_id", "actor", "controller", "action", "release", "version", "mode", "slot", "weight", "leaves",
)  # fmt: skip

Entry = Dict[str, Any]


def path_of(stack_dir: Path) -> Path:
    """The log of the stack in ``stack_dir``."""
    return stack_dir.parent / FOLDER / f"{stack_dir.name}.jsonl"


def entry(event: str, holder: Optional[Dict[str, Any]], release: Optional[Dict[str, Any]], **more: Any) -> Entry:
    """A line: ``holder`` is who has the lock, ``release`` what it is about, None where that is not known."""
    who, what = holder or {}, release or {}
    found = {
        "at": datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event": event,
        **{key: who.get(key) for key in ("run_id", "actor", "controller", "action")},
        "release": what.get("id"),
        **{key: what.get(key) for key in ("version", "mode", "slot")},
        **more,
    }
    return {key: found.get(key) for key in KEYS}


def switched(
    before: Dict[str, Any], after: Dict[str, Any], holder: Optional[Dict[str, Any]], leaves: str
) -> Optional[Entry]:
    """The line for a change of the state, None where no traffic moved between releases."""

    def slot(state: Dict[str, Any], name: Optional[str]) -> Optional[Dict[str, Any]]:
        return state["slots"].get(name) if name else None

    live, old = slot(after, after["live"]), slot(before, before["live"])
    canary, gone = after.get("canary"), before.get("canary")
    if live is not None and (old is None or live["id"] != old["id"]):
        return entry("live", holder, live, weight=100, leaves=leaves if old is not None else None)
    if canary is not None and canary != gone:
        return entry("canary", holder, slot(after, canary["slot"]), weight=canary["weight"])
    if canary is None and gone is not None:
        return entry("back", holder, slot(before, gone["slot"]), weight=0)
    return None


def append(stack_dir: Path, line: Entry) -> None:
    """Add a line, durably. For the process that holds the stack's lock alone. Raises OSError."""
    path = path_of(stack_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = (json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf-8", "replace")
    present = read_bytes(path) or b""
    if present and not present.endswith(b"\n"):
        # A kill or a full disk cut the last line off; it stays as a line that is none.
        data = b"\n" + data
    if len(present) + len(data) > MAX_BYTES:
        kept = present[-MAX_BYTES // 2 :]
        write_atomic(path, kept[kept.find(b"\n") + 1 :] + data)
        return
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)


def read(stack_dir: Path) -> List[Entry]:
    """Every whole line, oldest first; what is none is passed over. Raises OSError."""
    found = []
    for line in (read_bytes(path_of(stack_dir)) or b"").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append({key: value.get(key) for key in KEYS})
    return found
