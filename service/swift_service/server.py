"""What happens around the workers: gunicorn's hooks.

The master alone wipes the state directory, gives out slots and tidies up after a dead worker. It is the parent
of every worker and drops one from its list only after having reaped it, so the slot of a process that may still
be counting is never given out again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from . import metrics
from .settings import Settings, SettingsError, read_settings

# From the master to its workers, through the environment.
STARTED = "SERVICE_STARTED"
SLOT = "SERVICE_SLOT"


def stop_with(reason: str) -> NoReturn:
    """End before anything was started, with one line that says why."""
    sys.stderr.write(f"service: cannot start: {reason}\n")
    sys.exit(2)


def load_settings() -> Settings:
    """The settings, or the end of the process with a line that names every bad variable."""
    try:
        settings = read_settings(os.environ)
    except SettingsError as problem:
        stop_with(str(problem))
    if settings.log_dir is not None:
        try:
            settings.log_dir.mkdir(parents=True, exist_ok=True)
            (settings.log_dir / "service.log").open("a").close()
        except OSError as problem:
            stop_with(f"LOG_DIR {settings.log_dir} is not writable ({problem.strerror}); unset it or make it so")
    return settings


def memory_dir() -> str | None:
    """A directory in memory where there is one: heartbeats and figures should not wait for a disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None  # noqa: S108


def on_starting(server: Any) -> None:
    """Take the state directory for this service alone and start from zero."""
    given = os.environ.get("STATE_DIR")
    try:
        if given:
            directory = Path(given).absolute()
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            directory = Path(tempfile.mkdtemp(prefix="service-", dir=memory_dir()))
            server.temporary_state = directory
        # Held as long as the master lives. Two services on one directory would count into the same files.
        server.state_lock = (directory / "lock").open("w")
        fcntl.flock(server.state_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        metrics.wipe(directory)
    except BlockingIOError:
        stop_with(f"STATE_DIR {given} is in use by another running service; give each its own")
    except OSError as problem:
        stop_with(f"STATE_DIR {given or '(temporary)'} is not usable: {problem.strerror}")
    os.environ["STATE_DIR"] = str(directory)
    os.environ[STARTED] = repr(time.monotonic())


def pre_fork(server: Any, worker: Any) -> None:
    """Give the coming worker the lowest slot that no living one holds."""
    held = {living.slot for living in server.WORKERS.values()}
    worker.slot = next(number for number in range(len(held) + 1) if number not in held)
    metrics.lay_out(Path(os.environ["STATE_DIR"]), worker.slot)


def post_fork(server: Any, worker: Any) -> None:
    os.environ[SLOT] = str(worker.slot)
    server.state_lock.close()


def child_exit(server: Any, worker: Any) -> None:
    # A full disk must not stop the master from replacing the worker.
    try:
        metrics.forget_in_progress(Path(os.environ["STATE_DIR"]), worker.slot)
    except OSError as problem:
        server.log.warning("the requests in progress of a dead worker stay counted: %s", problem)


def on_exit(server: Any) -> None:
    directory = getattr(server, "temporary_state", None)
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)
