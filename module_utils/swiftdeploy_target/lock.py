"""The host's lock: one file that is created whole or not at all, and says who holds it, since when, why.

A module's process ends with its task, so a kernel lock cannot span a play. The file does, and a holder that
died leaves it behind: whoever finds it can tell from ``controller`` and ``pid`` whether it still lives.

A controller that is killed leaves the module that it started running on the host. So every module that changes
the stack also holds a kernel lock while it works (``working``), and whoever takes a lock over waits for that.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from . import files
from .files import read_bytes, sync_folder, write_atomic

FILE_NAME = "lock.json"
WORK_NAME = ".working"
# Longer than a module drains by default; one that drains longer makes the next run say so and end.
WORK_SECONDS = 60.0
ATTEMPTS = 20
Holder = Dict[str, Any]


class LockError(Exception):
    """The stack may not be changed now; the message says who stands in the way and what to do."""


@contextlib.contextmanager
def working(stack_dir: Path, run_id: Optional[str] = None, seconds: float = WORK_SECONDS) -> Iterator[None]:
    """Be the only process that changes the stack, for as long as the block takes. Raises LockError.

    With ``run_id`` the lock file must be that run's: a run whose lock was broken changes nothing any more.
    """
    deadline = time.monotonic() + seconds
    with (stack_dir / WORK_NAME).open("ab") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LockError(
                        f"a task of an earlier run is still at work in {stack_dir} after {seconds:g} s "
                        "(it drains or starts a release); run again when it has ended"
                    ) from None
                time.sleep(0.05)
        present = holder(stack_dir) if run_id is not None else None
        if run_id is not None and (present is None or present.get("run_id") != run_id):
            who = "it was removed" if present is None else f"{present.get('actor')} has it for {present.get('action')}"
            raise LockError(f"this run no longer holds the lock of {stack_dir} ({who}), so it changes nothing more")
        yield


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
    broken: only that one, so that two runs that saw the same dead holder cannot both win. Raises LockError while
    a task of that run is still at work.
    """
    path = stack_dir / FILE_NAME
    beside = stack_dir / f".{FILE_NAME}.{claim['run_id']}"
    present = holder(stack_dir)
    if present is not None and instead_of is not None and present.get("run_id") == instead_of:
        # What the dead run's last task still does on this host must be over before anything is looked at.
        with working(stack_dir):
            _bury(stack_dir, claim["run_id"], instead_of)
    for _attempt in range(ATTEMPTS):
        try:
            write_atomic(beside, json.dumps(claim, sort_keys=True).encode(), mode=0o600)
            os.link(beside, path)
        except FileExistsError:
            present = holder(stack_dir)
            return None if present is not None and present.get("run_id") == claim["run_id"] else present
        except FileNotFoundError:
            # Swept away by the run that has the lock now, or had it until a moment ago; also while it was written.
            if not stack_dir.is_dir():
                raise
            continue
        else:
            sync_folder(stack_dir)
            return None
        finally:
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()
    raise LockError(f"the lock of {stack_dir} cannot be taken: too many runs want it at once; run again")


def _bury(stack_dir: Path, run_id: str, dead: str) -> None:
    """Take the lock file of run ``dead`` away, and no other's that came in between."""
    path, grave = stack_dir / FILE_NAME, stack_dir / f".{FILE_NAME}.broken.{run_id}"
    with contextlib.suppress(FileNotFoundError):
        path.rename(grave)
        if json.loads(grave.read_bytes() or b"{}").get("run_id") != dead:
            with contextlib.suppress(FileExistsError):
                os.link(grave, path)
        grave.unlink()


def sweep(stack_dir: Path) -> None:
    """Remove what killed runs left beside the lock and the other files. For the run that holds the lock alone."""
    with working(stack_dir):
        for stray in stack_dir.glob(f".{FILE_NAME}.*"):
            with contextlib.suppress(FileNotFoundError):
                stray.unlink()
        files.sweep(stack_dir)


def release(stack_dir: Path, run_id: str) -> bool:
    """Give the lock back. True when it was ours; somebody else's is left alone."""
    present = holder(stack_dir)
    if present is None or present.get("run_id") != run_id:
        return False
    (stack_dir / FILE_NAME).unlink()
    sync_folder(stack_dir)
    return True
