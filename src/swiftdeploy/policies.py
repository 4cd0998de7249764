"""The policies as a host gets them: a bundle of OPA whose manifest carries the policies' revision.

A file is {"path", "content"}, paths relative to the policies' folder and with slashes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

File = dict[str, str]

# The only names of data files that OPA reads from a bundle.
PATTERNS = ("*.rego", "data.json", "data.yaml", "data.yml")
MANIFEST = ".manifest"


def policy_files(folder: Path) -> list[File]:
    """The policies below ``folder`` without their tests, sorted. Raises ValueError where there is none."""
    found = [path for pattern in PATTERNS for path in folder.rglob(pattern) if not path.name.endswith("_test.rego")]
    if not found:
        raise ValueError(f"there is no policy below {folder}")
    return [
        {"path": path.relative_to(folder).as_posix(), "content": path.read_text(encoding="utf-8")}
        for path in sorted(found)
    ]


def revision(files: Iterable[File]) -> str:
    """64 hexadecimal digits that stand for exactly these policies: SHA-256 of what ``sha256sum`` prints of them.

    The same from a shell, in the policies' folder, for anyone who holds the files beside a decision:
    ``find . \\( -name '*.rego' -o -name 'data.*' \\) ! -name '*_test.rego' -printf '%P\\n' | LC_ALL=C sort |
    xargs sha256sum | sha256sum``.
    """
    lines = [
        f"{hashlib.sha256(entry['content'].encode()).hexdigest()}  {entry['path']}\n"
        for entry in sorted(files, key=lambda entry: entry["path"].encode())
        if entry["path"] != MANIFEST
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def loaded_path(files: Iterable[File]) -> str:
    """The path at which an OPA says whether it has loaded exactly these policies."""
    return f"/health/loaded/{revision(files)}"


def bundle(files: list[File]) -> list[File]:
    """The files with OPA's bundle manifest behind them.

    OPA loads the revision together with the policies, keeps both in one store, and tells it with each decision from the
    same transaction that evaluates it. So a decision names what was evaluated, whatever lies on the disk by then.
    The manifest comes last: files are installed in order, so an installation that is cut short leaves the old
    revision, which is never taken for the new one. It claims the whole of ``data``: nothing can be put beside it.
    """
    manifest = json.dumps({"revision": revision(files), "roots": [""]}, indent=2) + "\n"
    return [*files, {"path": MANIFEST, "content": manifest}]
