"""Folders that are made once, used by many runs and removed when no run needs them any more.

Each holds a mark, `.swiftdeploy.json`, that is written last: a folder without it was never finished. The mark's
modification time is the folder's last use, so old folders can be found by their mark alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from .command import Finished
from .files import read_bytes, write_atomic

MARK = ".swiftdeploy.json"


class PartsError(Exception):
    """A part cannot be had. The text says what, where, and what to do."""


def read_mark(folder: Path) -> Optional[Dict[str, Any]]:
    """What the mark of ``folder`` says, or None when the folder is missing or was never finished."""
    try:
        found = json.loads(read_bytes(folder / MARK) or b"null")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_mark(folder: Path, content: Dict[str, Any]) -> None:
    """Declare ``folder`` finished: what was put there reaches the disk before the mark does."""
    os.sync()
    write_atomic(folder / MARK, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def note_use(folder: Path) -> None:
    """Remember that ``folder`` was used now. Somebody else's folder is used as it is."""
    with contextlib.suppress(OSError):
        os.utime(folder / MARK)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file of any size. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(path: Path, patience: float) -> Iterator[int]:
    """Hold the kernel's lock on ``path``; gives its descriptor.

    Children that inherit the descriptor keep the lock: when a run is killed, the next one waits until what it had
    started is gone too. Raises PartsError after ``patience`` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    limit = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise PartsError(
                        f"another run has been installing below {path.parent} for more than {patience:g} s; "
                        f"wait for it, or find who holds {path} (`fuser -v {path}`) and end it"
                    ) from None
                time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)


def run_held(
    arguments: List[str],
    environment: Dict[str, str],
    folder: Path,
    timeout: float,
    lock: Optional[int] = None,
) -> Finished:
    """Run a program in ``folder``, sharing the lock with it. Status 127: cannot be started; 124: out of time."""
    try:
        done = subprocess.run(
            arguments,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            pass_fds=() if lock is None else (lock,),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finished(124, "", f"{arguments[0]} did not end within {timeout:g} s")
    except OSError as error:
        return Finished(127, "", f"{arguments[0]} cannot be started: {error.strerror or error}")
    return Finished(done.returncode, done.stdout, done.stderr)


def last_lines(text: str, count: int = 4) -> str:
    """The last ``count`` lines that say something, errors preferred, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # Neither pip's advice about itself nor Go's progress is a cause.
    lines = [line for line in lines if not line.lower().startswith(("[notice]", "notice:", "go: downloading"))]
    errors = [line for line in lines if line.lower().startswith(("error", "fatal", "go: "))]
    return " | ".join((errors or lines)[-count:]) or "it printed nothing"


def platform_of(system: str, machine: str) -> str:
    """Name of a platform as Go writes it, for example linux-amd64."""
    names = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    return f"{system.lower()}-{names.get(machine.lower(), machine.lower())}"


def version_tuple(version: str) -> Tuple[int, ...]:
    """Leading numbers of a dotted version: "1.31.3-dev" gives (1, 31, 3)."""
    numbers = []
    for word in re.split(r"[-+]", version, maxsplit=1)[0].split("."):
        if not word.isdigit():
            break
        numbers.append(int(word))
    return tuple(numbers)
