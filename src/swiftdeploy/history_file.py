"""The files of a history, and the one way to write to them.

    history.jsonl                               the lines that are written now
    history.jsonl.000000000001-000000004321     older lines; the name says which (`seq` of the first and the last)
    history.jsonl.head                          seq, hash and time of the line that was written last
    history.jsonl.torn-20261121T035500Z         a line cut short by a kill or a power cut, set aside

`append` does everything under one exclusive lock on `history.jsonl`. The order makes it safe at any point: a line is
on the disk before the head names it, so the head can be behind the file and never ahead of it; a full file gets its
new name in one step, and whoever comes next finds no file, makes one, and carries the chain on from the older lines.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from swiftdeploy.history_line import (
    LINE_START,
    MAX_LINE,
    ZERO_HASH,
    HistoryError,
    Record,
    build_record,
    default_actor,
    encode,
    parse_record,
)

# A file that has reached this many bytes is closed and a new one begun; 0 never does.
MAX_SIZE = 64 * 1024 * 1024
# Seconds to wait for another process that is appending.
LOCK_SECONDS = 30.0

_BLOCK = 64 * 1024
_LINE_BLOCK = 4 * 1024
# A head is far smaller; what is larger is none.
_HEAD_BYTES = 4096

# Asked under the lock with the open file and its size: True when there is nothing left to write.
Unless = Callable[[int, int], bool]


@dataclass(frozen=True)
class Segment:
    """A closed file of the history, and the `seq` of its first and last line as its name says."""

    path: Path
    first: int
    last: int


@dataclass(frozen=True)
class Head:
    """Which line was written last."""

    seq: int
    hash: str
    timestamp: str


# ------------------------------------------------------------------------------------------------ files


def head_path(target: Path) -> Path:
    """Where the head of the history at `target` is."""
    return target.with_name(f"{target.name}.head")


def read_head(target: Path) -> tuple[Head | None, str | None]:
    """The head, or None and why there is none."""
    place = head_path(target)
    try:
        with place.open("rb") as handle:
            value = json.loads(handle.read(_HEAD_BYTES).decode("utf-8"))
        seq, digest, timestamp = value["seq"], value["hash"], value["timestamp"]
    except FileNotFoundError:
        return None, f"{place.name} is missing"
    except OSError as error:
        return None, f"{place.name} cannot be read ({error.strerror or error})"
    except (ValueError, TypeError, LookupError, RecursionError):
        return None, f"{place.name} is not whole"
    if not isinstance(seq, int) or isinstance(seq, bool) or seq < 1:
        return None, f"{place.name} is not whole"
    return Head(seq, str(digest), str(timestamp)), None


def segment_name(target: Path, first: int, last: int) -> str:
    """The name of the closed file with these lines; names sort as their lines do."""
    return f"{target.name}.{first:012d}-{last:012d}"


def segments(target: Path) -> list[Segment]:
    """The closed files beside `target` in the order of their lines."""
    pattern = re.compile(re.escape(target.name) + r"\.(\d{12,18})-(\d{12,18})")
    try:
        names = [entry.name for entry in target.parent.iterdir()]
    except FileNotFoundError:
        return []
    found = [(name, pattern.fullmatch(name)) for name in names]
    return sorted(
        (Segment(target.with_name(name), int(match[1]), int(match[2])) for name, match in found if match),
        key=lambda segment: (segment.first, segment.last),
    )


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise HistoryError when a line could not be written to `path`; writes nothing itself."""
    target = Path(path)
    try:
        if not stat.S_ISDIR(target.parent.stat().st_mode):
            raise NotADirectoryError
        try:
            handle = os.open(target, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            if not os.access(target.parent, os.W_OK | os.X_OK):
                raise PermissionError from None
            return
        try:
            _refuse_other(handle, target)
        finally:
            os.close(handle)
    except OSError as error:
        raise HistoryError(f"cannot write the history {target}: {reason(error)}") from error


# ------------------------------------------------------------------------------------------- appending


def append(path: str | os.PathLike[str], event: Mapping[str, Any], max_size: int | None = None) -> Record:
    """Write `event` as the next line of the history at `path` and return the record.

    Holds an exclusive lock on the file, writes with one call and returns only after the line is on the disk.
    A torn last line is moved to `PATH.torn-<UTC time>` first and the new record names that file under `torn`.
    A file of `max_size` bytes or more (`MAX_SIZE` when None, never when 0) is closed first, see `segment_name`.
    Raises HistoryError; the file is then as it was before.
    """
    # Only `unless` leaves it out.
    return cast("Record", append_unless(path, event, None, max_size))


def append_unless(
    path: str | os.PathLike[str],
    event: Mapping[str, Any],
    unless: Unless | None,
    max_size: int | None = None,
) -> Record | None:
    """As `append`, but ask `unless` under the lock; None when it said that there is nothing to write."""
    target = Path(path)
    limit = MAX_SIZE if max_size is None else max_size
    try:
        while True:
            with _locked(target) as handle:
                size = os.fstat(handle).st_size
                _refuse_foreign(handle, size, target)
                end, last = last_record(handle, size)
                if unless is not None and unless(handle, size):
                    return None
                full = 0 < limit <= size == end
                if full and last is not None and _close(handle, target, last):
                    # Written to the next file, under that file's own lock.
                    continue
                return _append_locked(handle, target, event, end, last)
    except OSError as error:
        raise HistoryError(f"cannot write the history {target}: {reason(error)}") from error


def _append_locked(handle: int, target: Path, event: Mapping[str, Any], end: int, last: Record | None) -> Record:
    size = os.fstat(handle).st_size
    torn = _set_aside(handle, end, size, target) if end < size else None
    seq, prev = _carry_on(handle, end, last, target)
    record = build_record(event, seq + 1, prev, torn)
    line = encode(record)
    if len(line) > MAX_LINE:
        raise HistoryError(f"the event makes a line of {len(line)} bytes, the most is {MAX_LINE}")
    try:
        written = os.write(handle, line)
        if written != len(line):
            raise HistoryError(
                f"cannot write the history {target}: only {written} of {len(line)} bytes fitted. "
                "Free disk space and run again"
            )
        os.fsync(handle)
    except BaseException:
        # Half a line must not stay, not even when Ctrl-C comes in the middle.
        os.ftruncate(handle, end)
        raise
    if end == 0:
        sync_folder(target.parent)
    # The line is there and counts. A head that cannot be written stays behind, and the verification says how far.
    with contextlib.suppress(OSError):
        _write_head(target, record)
    return record


def _carry_on(handle: int, end: int, last: Record | None, target: Path) -> tuple[int, str]:
    """`seq` and hash of the line that the next one follows.

    That is the last line there is, unless the head knows better: what was written and is gone, or was exchanged,
    must stay a gap that every verification finds.
    """
    if last is None:
        last = _last_of_segments(target)
    seq, digest = (0, ZERO_HASH) if last is None else (int(last["seq"]), str(last["hash"]))
    head, _why = read_head(target)
    if head is None:
        return seq, digest
    # A run that was killed between line and head leaves the head behind by one.
    known = digest if head.seq == seq else _hash_of(handle, end, head.seq) if head.seq < seq else None
    if head.seq > seq or (known is not None and known != head.hash):
        return head.seq, head.hash
    return seq, digest


def _hash_of(handle: int, end: int, seq: int) -> str | None:
    """Hash of the line with `seq`, looked for from the end; None when this file has not got it."""
    for _start, raw, _whole in lines_backwards(handle, end):
        record = parse_record(raw)
        if record is not None and record["seq"] <= seq:
            return str(record["hash"]) if record["seq"] == seq else None
    return None


def _last_of_segments(target: Path) -> Record | None:
    for segment in reversed(segments(target)):
        handle = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _end, last = last_record(handle, os.fstat(handle).st_size)
        finally:
            os.close(handle)
        if last is not None:
            return last
    return None


def _write_head(target: Path, record: Record) -> None:
    """Put the head in place whole. Called with the line on the disk, so that the head is never ahead of it."""
    text = json.dumps({"seq": record["seq"], "hash": record["hash"], "timestamp": record["timestamp"]}) + "\n"
    place = head_path(target)
    new = place.with_name(f"{place.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        handle = os.open(new, flags, 0o644)
    except FileExistsError:
        # Of a writer that was killed; nobody else writes it, we have the lock.
        new.unlink()
        handle = os.open(new, flags, 0o644)
    try:
        os.write(handle, text.encode("utf-8"))
        # Or a power cut could leave the name with nothing behind it. The rename may be lost: that leaves the old head.
        os.fsync(handle)
    finally:
        os.close(handle)
    new.replace(place)


def _close(handle: int, target: Path, last: Record) -> bool:
    """Give the full file the name of its lines; False when that cannot be done, and it grows on."""
    begin = parse_record(os.pread(handle, MAX_LINE, 0).split(b"\n", 1)[0])
    earlier = segments(target)
    first = begin["seq"] if begin is not None else earlier[-1].last + 1 if earlier else 1
    place = target.with_name(segment_name(target, first, last["seq"]))
    # What has that name was put there by somebody; it is not ours to overwrite.
    if first > last["seq"] or place.exists():
        return False
    try:
        target.rename(place)
    except OSError:
        return False
    # Before a new file can be made: it would be taken for the whole history if this name were lost.
    sync_folder(target.parent)
    return True


# ------------------------------------------------------------------------------------------------- lock


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[int]:
    """Open the file for appending under an exclusive lock; yields the descriptor."""
    handle = _open_locked(target)
    try:
        yield handle
    finally:
        # Said explicitly: a worker forked meanwhile has the descriptor too, and closing ours would not do.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _open_locked(target: Path) -> int:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        handle = os.open(target, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise HistoryError(f"cannot write the history {target}: it is not a regular file")
            _lock(handle, target, deadline)
            if same_file(handle, target):
                return handle
        except BaseException:
            os.close(handle)
            raise
        # Moved away while we waited for the lock: the line belongs into the new file.
        os.close(handle)


def _lock(handle: int, target: Path, deadline: float) -> None:
    pause = 0.001
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise HistoryError(
                    f"cannot write the history {target}: another process has held its lock for more than "
                    f"{LOCK_SECONDS:.0f} s. Find it with: fuser -v {target}"
                ) from None
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        else:
            return


def same_file(handle: int, target: Path) -> bool:
    """Whether the open file is still the one that `target` names."""
    try:
        return os.path.samestat(os.fstat(handle), target.stat())
    except FileNotFoundError:
        return False


def _refuse_other(handle: int, target: Path) -> None:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise HistoryError(f"cannot write the history {target}: it is not a regular file")
    _refuse_foreign(handle, os.fstat(handle).st_size, target)


def _refuse_foreign(handle: int, size: int, target: Path) -> None:
    """A wrong path must not cut or grow a file that is something else."""
    start = os.pread(handle, len(LINE_START), 0)
    if size == 0 or start == LINE_START:
        return
    if size < len(LINE_START) and LINE_START.startswith(start):
        return
    if not start.strip(b"\0") and b"\n" not in os.pread(handle, _BLOCK, 0):
        # A power cut can leave zero bytes where the first line should be.
        return
    raise HistoryError(
        f"cannot write the history {target}: the file exists and is not a SwiftDeploy history. "
        "Move it away or give another path"
    )


def _set_aside(handle: int, end: int, size: int, target: Path) -> str:
    """Move the bytes from `end` on to a file beside the history and cut them off; returns its name."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in range(1000):
        aside = target.with_name(f"{target.name}.torn-{stamp}" + (f"-{number}" if number else ""))
        try:
            copy = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            continue
        break
    else:
        raise HistoryError(f"cannot set aside the torn last line of {target}: too many {target.name}.torn-* files")
    try:
        with os.fdopen(copy, "wb") as out:
            for offset in range(end, size, _BLOCK):
                out.write(os.pread(handle, min(_BLOCK, size - offset), offset))
            out.flush()
            os.fsync(out.fileno())
        sync_folder(target.parent)
    except BaseException:
        # Nothing was cut off yet, so half a copy is only clutter.
        aside.unlink(missing_ok=True)
        raise
    os.ftruncate(handle, end)
    os.fsync(handle)
    return aside.name


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reason(error: OSError) -> str:
    """The cause in words with what to do, for the usual causes."""
    advice = {
        FileNotFoundError: "its folder does not exist. Create it or give another path",
        NotADirectoryError: "a part of the path is a file. Give another path",
        IsADirectoryError: "it is a folder. Give the path of a file",
        PermissionError: f"{default_actor()} may not write there. Correct the owner or give another path",
    }
    for kind, text in advice.items():
        if isinstance(error, kind):
            return text
    text = error.strerror or str(error)
    return f"{text}. Free disk space and run again" if "space" in text else text


# ------------------------------------------------------------------------------------ reading backwards


def last_record(handle: int, size: int) -> tuple[int, Record | None]:
    """Where the last whole record of an open file ends, and that record; (0, None) when there is none."""
    for start, raw, whole in lines_backwards(handle, size):
        record = parse_record(raw) if whole else None
        if record is not None:
            return start + len(raw) + 1, record
    return 0, None


def lines_backwards(handle: int, size: int) -> Iterator[tuple[int, bytes, bool]]:
    """Lines from the last to the first: offset, bytes without newline, whether a newline ended it."""
    end = size
    while end > 0:
        whole = os.pread(handle, 1, end - 1) == b"\n"
        stop = end - 1 if whole else end
        start = _line_start(handle, stop)
        # A line too long to be ours is not read into memory.
        raw = os.pread(handle, stop - start, start) if stop - start <= MAX_LINE else b""
        yield start, raw, whole
        end = start


def _line_start(handle: int, stop: int) -> int:
    # Most lines are short, and there may be a million of them.
    position, block = stop, _LINE_BLOCK
    while position > 0:
        begin = max(0, position - block)
        found = os.pread(handle, position - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        position, block = begin, _BLOCK
    return 0
