"""A folder as one value: its hash, and its files packed into text that fits a task's argument.

Only contents, relative paths and the executable bit count; owners, times and the umask do not.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

LARGEST = 64 * 1024 * 1024  # bytes, unpacked


def excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether the relative ``path`` or the name of one of its folders matches a pattern."""
    words = path.split("/")
    return any(
        fnmatch.fnmatchcase(path, pattern) or any(fnmatch.fnmatchcase(word, pattern) for word in words)
        for pattern in patterns
    )


def files_below(root: Path, patterns: Sequence[str] = ()) -> List[str]:
    """Relative paths of the files below ``root`` that no pattern excludes, sorted. ValueError when there is none."""
    found = []
    for folder, folders, names in os.walk(root):
        above = Path(folder).relative_to(root)
        folders[:] = [name for name in folders if not excluded((above / name).as_posix(), patterns)]
        found += [(above / name).as_posix() for name in names]
    found = sorted(path for path in found if not excluded(path, patterns))
    if not found:
        raise ValueError(f"there is no file below {root}")
    return found


def read_tree(root: Path, patterns: Sequence[str] = ()) -> List[Tuple[str, bool, bytes]]:
    """(path, executable, content) of each file, sorted. Raises OSError and ValueError."""
    tree, size = [], 0
    for name in files_below(root, patterns):
        path = root / name
        data = path.read_bytes()
        size += len(data)
        if size > LARGEST:
            raise ValueError(
                f"{root} holds more than {LARGEST // 1024 // 1024} MB ({name} is one of its files); "
                "leave out what the service does not need to run"
            )
        tree.append((name, os.access(path, os.X_OK), data))
    return tree


def hash_tree(tree: Sequence[Tuple[str, bool, bytes]]) -> str:
    """Hexadecimal SHA-256 over what ``read_tree`` gave."""
    digest = hashlib.sha256()
    for name, executable, data in tree:
        line = [name, executable, hashlib.sha256(data).hexdigest()]
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()


def pack(tree: Sequence[Tuple[str, bool, bytes]]) -> str:
    """``tree`` as text. Equal trees give equal text."""
    files: List[Dict[str, Any]] = [
        {"path": name, "executable": executable, "content": base64.b64encode(data).decode()}
        for name, executable, data in tree
    ]
    return base64.b64encode(zlib.compress(json.dumps(files).encode(), 9)).decode()


def unpack(text: str, target: Path) -> str:
    """Write the files of ``text`` below the empty folder ``target``; their hash. Raises OSError and ValueError."""
    tree = [
        (entry["path"], bool(entry["executable"]), base64.b64decode(entry["content"]))
        for entry in json.loads(zlib.decompress(base64.b64decode(text)))
    ]
    for name, executable, data in tree:
        path = target / name
        if os.path.isabs(name) or ".." in Path(name).parts:  # noqa: PTH117
            raise ValueError(f"{name} leaves the folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755 if executable else 0o644)
    return hash_tree(tree)
