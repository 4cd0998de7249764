"""Whole-file writes: a reader sees the old bytes or the new ones, never a mixture and never nothing.

The data are written beside the target, synced, and moved into place; the folder is synced so that the
move itself survives a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple


def read_bytes(path: Path) -> Optional[bytes]:
    """The bytes of ``path``, or None when there is no such file. Other errors are raised as they are."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def fault(error: BaseException, folder: Path) -> str:
    """What went wrong below ``folder``, in words: the system's own name no file where a disk is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = error.filename or folder
        return (
            f"no space left to write {place}\n"
            f"next: free some on the host's disk (df -h {folder}; df -i {folder}) and run the same command again"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or folder}: {error.strerror}"
    return str(error)


def keep_private(folder: Path) -> None:
    """Make ``folder`` where it is missing, and keep all other users out of it. Raises OSError for somebody else's."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            why = f"belongs to user {found.st_uid}, and this is user {os.geteuid()}: run as that user, or remove it"
            raise PermissionError(errno.EPERM, why, str(folder))
        if found.st_mode & 0o077:
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sync_folder(folder: Path) -> None:
    """Make earlier renames in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_folder(folder: Path) -> None:
    """Make ``folder``, or mend its mode, so that a container's user can read what is in it. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    bits = mode_of(folder) or 0
    if bits & 0o555 != 0o555:
        folder.chmod(bits | 0o555)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put ``data`` at ``path`` with ``mode``. Raises OSError; the old file is then untouched."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


# What mkstemp appends to a temporary file's name.
_RANDOM = r"[a-z0-9_]{8}"


def sweep(folder: Path) -> None:
    """Remove what a write in ``folder`` or below left that was killed. Nobody else may be writing there now."""
    for path in folder.rglob(".*"):
        if re.fullmatch(rf"\..+\.{_RANDOM}", path.name) and path.is_file() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def mode_of(path: Path) -> Optional[int]:
    """Permission bits of ``path``, or None when it does not exist."""
    try:
        return path.stat().st_mode & 0o7777
    except FileNotFoundError:
        return None


class Write(NamedTuple):
    """A file that is to be written."""

    path: Path
    data: bytes
    mode: int


def inside(root: Path, path: str) -> Path:
    """``path`` below ``root``; ValueError for one that would leave it."""
    target = root / path
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"{path} is not a path below {root}")
    return target


def difference(path: Path, before: bytes, after: bytes) -> Dict[str, str]:
    """One entry of Ansible's diff."""
    return {
        "before": before.decode(errors="replace"),
        "after": after.decode(errors="replace"),
        "before_header": str(path),
        "after_header": str(path),
    }


def outdated(root: Path, files: List[Dict[str, Any]]) -> List[Write]:
    """Which of ``files`` ([{"path" below root, "content", "mode": octal text}]) are not on disk as they are here."""
    writes = []
    for entry in files:
        wanted = Write(inside(root, entry["path"]), entry["content"].encode(), int(entry["mode"], 8))
        if read_bytes(wanted.path) != wanted.data or mode_of(wanted.path) != wanted.mode:
            writes.append(wanted)
    return writes


def differences(writes: List[Write]) -> List[Dict[str, str]]:
    """What the writes change, as Ansible shows it."""
    before = [(write, read_bytes(write.path)) for write in writes]
    return [difference(write.path, data or b"", write.data) for write, data in before if data != write.data]


def install(writes: List[Write]) -> None:
    """Write them all, each whole. Raises OSError."""
    for write in writes:
        write.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(write.path, write.data, write.mode)


class Change(NamedTuple):
    """What brings a folder to a set of files: to write, to remove, and folders to make with their permissions."""

    root: Path
    writes: List[Write]
    removals: List[Path]
    folders: List[Tuple[Path, int]]

    @property
    def paths(self) -> List[str]:
        """What changes, relative to the folder."""
        targets = [*(write.path for write in self.writes), *self.removals, *(folder for folder, _mode in self.folders)]
        return [str(target.relative_to(self.root)) for target in targets]

    def differences(self) -> List[Dict[str, str]]:
        """What changes, as Ansible shows it."""
        removed = [difference(path, read_bytes(path) or b"", b"") for path in self.removals]
        return differences(self.writes) + removed

    def apply(self, mode: int = 0o755) -> None:
        """Do it; ``mode`` is for the folder itself when it is made. Raises OSError; what was done stays done."""
        if not self.paths:
            return
        self.root.mkdir(parents=True, exist_ok=True, mode=mode)
        for folder, bits in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(bits)
        install(self.writes)
        for target in self.removals:
            with contextlib.suppress(FileNotFoundError):
                target.unlink()
            for folder in target.relative_to(self.root).parents:
                with contextlib.suppress(OSError):
                    # One that has become empty.
                    (self.root / folder).rmdir()


def change(
    root: Path,
    files: List[Dict[str, Any]],
    folders: Sequence[Dict[str, str]] = (),
    absent: Sequence[str] = (),
    only: Optional[str] = None,
) -> Change:
    """What is missing for ``root`` to hold ``files`` (see ``outdated``) and ``folders`` ([{"path", "mode"}]), nothing
    at the paths ``absent``, and nothing else that the glob ``only`` matches.

    Raises ValueError for a path that leaves the folder, OSError for what cannot be read.
    """
    wanted = {inside(root, entry["path"]) for entry in files}
    stray = [path for path in root.glob(only) if path.is_file()] if only else []
    unwanted = [*(inside(root, path) for path in absent), *stray]
    removals = [path for path in unwanted if path not in wanted and read_bytes(path) is not None]
    modes = [(inside(root, entry["path"]), int(entry["mode"], 8)) for entry in folders]
    return Change(
        root, outdated(root, files), removals, [(path, bits) for path, bits in modes if mode_of(path) != bits]
    )
