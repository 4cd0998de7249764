"""Moving closed files of a history away, so that its verification knows that they were moved on purpose."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from swiftdeploy import history_file, history_read
from swiftdeploy.history_file import Segment
from swiftdeploy.history_line import HistoryError, default_actor


def archive(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[str]:
    """Move every closed file of the history at `path` to `folder`; their names, oldest first.

    First a line ``history_archived`` says which files go, with `seq` and hash of the last line of each; a history that
    starts behind one of these is whole. Killed in the middle, the same call again does the rest.
    Raises HistoryError when the history is broken, and when a file cannot be moved.
    """
    target, place = Path(path), Path(folder)
    closed = history_file.segments(target)
    if not closed:
        return []
    if not place.is_dir():
        raise HistoryError(f"cannot archive to {place}: it is not a folder. Create it or give another path")
    outcome = history_read.verify(target)
    if not outcome.ok:
        raise HistoryError(
            f"{target} is broken at line {outcome.first_bad_line} of {outcome.file}: {outcome.problem}. "
            "Nothing was moved: look into that first"
        )
    taken = [segment.path.name for segment in closed if _differs(segment.path, place / segment.path.name)]
    if taken:
        raise HistoryError(f"cannot archive to {place}: other files of these names are there: {', '.join(taken)}")
    history_file.append(
        target,
        {
            "event": history_read.ARCHIVED,
            "actor": default_actor(),
            "reason": f"lines {closed[0].first} to {closed[-1].last} were moved to {place}",
            "files": [_described(segment) for segment in closed],
        },
        # Not to be among the closed ones itself.
        max_size=0,
    )
    try:
        for segment in closed:
            _move(segment.path, place / segment.path.name)
        history_file.sync_folder(place)
        history_file.sync_folder(target.parent)
    except OSError as error:
        raise HistoryError(
            f"cannot archive to {place}: {error.strerror or error}. What was not moved yet is where it was; run again"
        ) from error
    return [segment.path.name for segment in closed]


def _described(segment: Segment) -> dict[str, Any]:
    handle = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _end, last = history_file.last_record(handle, os.fstat(handle).st_size)
    finally:
        os.close(handle)
    return {
        "name": segment.path.name,
        "first": segment.first,
        "last": segment.last,
        "hash": None if last is None else last["hash"],
    }


def _differs(source: Path, target: Path) -> bool:
    """Whether something else has the name. The same bytes are of a move that was killed."""
    try:
        with source.open("rb") as ours, target.open("rb") as theirs:
            while True:
                one, other = ours.read(1 << 20), theirs.read(1 << 20)
                if one != other:
                    return True
                if not one:
                    return False
    except FileNotFoundError:
        return False


def _move(source: Path, target: Path) -> None:
    """Move to what may be another disk: copied, on the disk, and only then removed."""
    part = target.with_name(f"{target.name}.part")
    shutil.copyfile(source, part)
    with part.open("rb") as handle:
        os.fsync(handle.fileno())
    part.replace(target)
    history_file.sync_folder(target.parent)
    source.unlink()
