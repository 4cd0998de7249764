"""Reports on disk: read as they are, replaced whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from swiftdeploy.history import HistoryError


def current(path: Path) -> str | None:
    """The report that is there, None when there is none. Raises HistoryError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HistoryError(f"cannot read the report {path}: {error.strerror or error}") from error


def write(path: Path, text: str) -> None:
    """Put the report in place whole or not at all. Raises HistoryError."""
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
            os.fchmod(out.fileno(), 0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise HistoryError(
            f"cannot write the report {path}: {error.strerror or error}. Free space there or give another path"
        ) from error
