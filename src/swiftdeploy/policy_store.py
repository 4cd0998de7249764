"""The policies that decided, kept beside the history: one file for each revision, written once.

A line of the history names the revision, and the revision is a hash of the policies, so the chain of the history
vouches for these files too. With them a decision can be explained, and decided again, long after the policies changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from swiftdeploy import policies
from swiftdeploy.history import HistoryError

_REVISION = re.compile(r"[0-9a-f]{64}")


def place(history_path: Path, revision: str) -> Path:
    """Where the policies of a revision are kept: ``history.jsonl.policies/REVISION.json``."""
    return history_path.with_name(f"{history_path.name}.policies") / f"{revision}.json"


def keep(history_path: Path, files: Iterable[Mapping[str, str]], *, dry: bool = False) -> tuple[Path, bool]:
    """Keep ``files`` ({"path", "content"}); where they are, and whether they were not there yet.

    ``dry`` writes nothing. Raises HistoryError where they cannot be kept.
    """
    kept = [{"path": one["path"], "content": one["content"]} for one in files]
    target = place(history_path, policies.revision(kept))
    with contextlib.suppress(HistoryError):
        load(history_path, target.stem)
        return target, False
    if dry:
        return target, True
    try:
        target.parent.mkdir(mode=0o755, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as out:
            try:
                json.dump(kept, out, ensure_ascii=False, indent=1)
                out.write("\n")
                out.flush()
                os.fsync(out.fileno())
                os.fchmod(out.fileno(), 0o644)
                # Several hosts of one run do this at the same time, with the same content.
                Path(out.name).replace(target)
            except BaseException:
                Path(out.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise HistoryError(
            f"cannot keep the policies in {target.parent}: {error.strerror or error}. Free space there, or correct its "
            "owner: a decision that cannot be explained later is not asked for"
        ) from error
    return target, True


def load(history_path: Path, revision: str) -> list[policies.File]:
    """The policies of a revision. Raises HistoryError where they are not there or not those."""
    if not _REVISION.fullmatch(revision):
        raise HistoryError(f"{revision!r} is no revision of policies")
    target = place(history_path, revision)
    try:
        kept = json.loads(target.read_text(encoding="utf-8"))
        files = [{"path": str(one["path"]), "content": str(one["content"])} for one in kept]
    except FileNotFoundError:
        raise HistoryError(f"the policies of revision {revision} are not kept in {target.parent}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise HistoryError(f"cannot read the policies in {target}: {error}") from error
    if policies.revision(files) != revision:
        raise HistoryError(f"the policies in {target} are not those of their revision: the file was changed")
    return files
