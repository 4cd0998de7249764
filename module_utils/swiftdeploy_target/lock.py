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
import shutil
import stat
import time
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, Optional, cast

from . import files
from .files import sync_folder, write_atomic

FILE_NAME = "lock.json"
WORK_NAME = ".working"
# Longer than a module drains by default; one that drains longer makes the next run say so and end.
WORK_SECONDS = 60.0
ATTEMPTS = 20
# Of a lock file; ours have a few hundred bytes.
LARGEST = 65536
# Stands for the run that holds a lock which names none, so that it can be broken like any other.
UNREADABLE = "unreadable"
Holder = Dict[str, Any]


class LockError(Exception):
    """The stack may not be changed now; the message says who stands in the way and what to do."""


@contextlib.contextmanager
def working(stack_dir: Path, run_id: Optional[str] = None, seconds: float = WORK_SECONDS) -> Iterator[None]:
    """Be the only process that changes the stack, for as long as the block takes. Raises LockError.

    With ``run_id`` the lock file must be that run's: a run whose lock was broken changes nothing any more.
    """
    deadline = time.monotonic() + seconds
    with _work_file(stack_dir / WORK_NAME) as stream:
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


def _work_file(path: Path) -> BinaryIO:
    """The file of the kernel lock, for nobody else to open: whoever can may hold it for ever."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    stream = os.fdopen(descriptor, "r+b", buffering=0)
    if os.fstat(descriptor).st_uid == os.geteuid():
        os.fchmod(descriptor, 0o600)
    return cast(BinaryIO, stream)


def holder(stack_dir: Path) -> Optional[Holder]:
    """Who holds the lock, or None. What is no lock of ours is held by somebody unknown, run UNREADABLE."""
    return _holder_in(stack_dir / FILE_NAME)


def _holder_in(path: Path) -> Optional[Holder]:
    """Who holds the lock file at ``path``. Whatever lies there, this neither waits nor reads without end."""
    try:
        # Not held up by a FIFO, and not led elsewhere by a link.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        return _unreadable(f"it cannot be read: {error.strerror}")
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return _unreadable("it is no file")
        data = os.read(descriptor, LARGEST)
    finally:
        os.close(descriptor)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return _unreadable("it is not JSON")
    if not isinstance(found, dict) or not isinstance(found.get("run_id"), str):
        return _unreadable("it names no run")
    return found


def _unreadable(why: str) -> Holder:
    words = f"an operation that nobody knows, since {FILE_NAME} is no lock of a run ({why})"
    return {"run_id": UNREADABLE, "actor": "somebody unknown", "since": "an unknown time", "action": words}


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
        if (_holder_in(grave) or {}).get("run_id") != dead:
            with contextlib.suppress(FileExistsError):
                os.link(grave, path)
        if grave.is_dir() and not grave.is_symlink():
            shutil.rmtree(grave)
        else:
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
