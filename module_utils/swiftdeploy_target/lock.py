"""The host's lock: one file that is created whole or not at all, and says who holds it, since when, why.

A module's process ends with its task, so a kernel lock cannot span a play. The file does, and a holder that
died leaves it behind: whoever finds it can tell from ``controller`` and ``pid`` whether it still lives.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Dict, Optional

from .files import read_bytes, sync_folder, write_atomic

FILE_NAME = "lock.json"
Holder = Dict[str, Any]


def holder(stack_dir: Path) -> Optional[Holder]:
    """Who holds the lock, or None. A file that cannot be read is held by somebody unknown."""
    data = read_bytes(stack_dir / FILE_NAME)
    if data is None:
        return None
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    return (
        found
        if isinstance(found, dict)
        else {"run_id": None, "actor": "unknown", "since": "unknown", "action": "unknown"}
    )


def acquire(stack_dir: Path, claim: Holder, instead_of: Optional[str] = None) -> Optional[Holder]:
    """Take the lock for ``claim`` ({"run_id", "actor", "since", "action", "controller", "pid"}).

    Answers None when it is ours now, else the present holder. ``instead_of`` is the run whose lock may be
    broken: only that one, so that two runs that saw the same dead holder cannot both win.
    """
    path = stack_dir / FILE_NAME
    beside = stack_dir / f".{FILE_NAME}.{claim['run_id']}"
    write_atomic(beside, json.dumps(claim, sort_keys=True).encode(), mode=0o600)
    try:
        present = holder(stack_dir)
        if present is not None and instead_of is not None and present.get("run_id") == instead_of:
            grave = stack_dir / f".{FILE_NAME}.broken.{claim['run_id']}"
            with contextlib.suppress(FileNotFoundError):
                path.rename(grave)
                broken = json.loads(grave.read_bytes() or b"{}")
                if broken.get("run_id") != instead_of:
                    os.link(grave, path)
                grave.unlink()
        try:
            os.link(beside, path)
        except FileExistsError:
            present = holder(stack_dir)
            return None if present is not None and present.get("run_id") == claim["run_id"] else present
    finally:
        beside.unlink()
    sync_folder(stack_dir)
    return None


def release(stack_dir: Path, run_id: str) -> bool:
    """Give the lock back. True when it was ours; somebody else's is left alone."""
    present = holder(stack_dir)
    if present is None or present.get("run_id") != run_id:
        return False
    (stack_dir / FILE_NAME).unlink()
    sync_folder(stack_dir)
    return True
