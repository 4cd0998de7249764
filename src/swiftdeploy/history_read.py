"""Reading the history: all its files in order, each line checked against the one before."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from swiftdeploy import history_line
from swiftdeploy.history_file import (
    Head,
    head_path,
    last_record,
    lines_backwards,
    read_head,
    same_file,
    segment_name,
    segments,
)
from swiftdeploy.history_line import ZERO_HASH, HistoryError, Record, digest, judge, parse_record

# How far back `find` looks, bytes. The record looked for was written moments ago.
FIND_BYTES = 64 * 1024 * 1024
# The event that says which files were moved away on purpose.
ARCHIVED = "history_archived"

_BLOCK = 64 * 1024
# The time is the second field of every line.
_STAMP = re.compile(rb'\{"seq":\d+,"timestamp":"([0-9TZ:.-]{20,30})"')


@dataclass(frozen=True)
class Line:
    """One line as read: its number in its file from 1, the record (None when it is none) and what is wrong with it.

    `file` is the name of its file. What is missing is told as a line of its own, without a record, that has the number
    of the first line that is not there.
    """

    number: int
    record: Record | None
    problem: str | None
    file: str = ""


@dataclass(frozen=True)
class VerifyResult:
    """What checking the chain found.

    `records` counts whole records, `first_bad_line` is the number of the first wrong line in its `file` (from 1, None
    when all are right), `problem` says what is wrong there, `bad_lines` counts wrong lines. `last_seq` and `last_hash`
    are those of the last whole line. `notes` says what the check cannot know, and where the history starts when it does
    not start at line 1.
    """

    ok: bool
    records: int
    first_bad_line: int | None = None
    problem: str | None = None
    bad_lines: int = 0
    file: str | None = field(default=None, compare=False)
    last_seq: int | None = field(default=None, compare=False)
    last_hash: str | None = field(default=None, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class _Part:
    """One file of a history, opened already (the one that is written to) or by its path. `last` is as its name says."""

    path: Path
    size: int
    handle: BinaryIO | None = None
    last: int | None = None

    @contextlib.contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        if self.handle is not None:
            self.handle.seek(0)
            yield self.handle
            return
        try:
            handle = self.path.open("rb")
        except FileNotFoundError:
            raise HistoryError(f"{self.path} was moved away while it was read. Run again") from None
        with handle:
            yield handle


@dataclass(frozen=True)
class _Book:
    """All files of a history as they were at one moment when nobody was writing."""

    target: Path
    parts: list[_Part]
    head: Head | None
    headless: str | None


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[_Book]:
    """All files of the history. Raises FileNotFoundError when there is none, HistoryError when it cannot be read."""
    target = Path(path)
    try:
        while True:
            # Before the files, as it must not name a line that was not written yet when they were looked at.
            head, headless = read_head(target)
            try:
                handle = target.open("rb")
            except FileNotFoundError:
                # Between two files, or gone.
                closed = _closed(target)
                if not closed and head is None:
                    raise
                yield _Book(target, closed, head, headless)
                return
            with handle:
                if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
                    raise HistoryError(f"cannot read the history {target}: it is not a regular file")
                # Only the lengths are taken under the lock: a long read must not hold up a deploy.
                fcntl.flock(handle, fcntl.LOCK_SH)
                if not same_file(handle.fileno(), target):
                    continue
                head, headless = read_head(target)
                closed = _closed(target)
                size = os.fstat(handle.fileno()).st_size
                fcntl.flock(handle, fcntl.LOCK_UN)
                yield _Book(target, [*closed, _Part(target, size, handle)], head, headless)
                return
    except FileNotFoundError:
        raise
    except OSError as error:
        raise HistoryError(f"cannot read the history {target}: {error.strerror or error}") from error


def _closed(target: Path) -> list[_Part]:
    try:
        return [_Part(segment.path, segment.path.stat().st_size, last=segment.last) for segment in segments(target)]
    except FileNotFoundError as error:
        raise HistoryError(f"{error.filename} was moved away while it was read. Run again") from None


# ------------------------------------------------------------------------------------------------- scan


def scan(path: str | os.PathLike[str], expected_seq: int | None = 1, prev: str | None = ZERO_HASH) -> Iterator[Line]:
    """Read every line of every file once and check it against the one before; memory does not grow with the history.

    `expected_seq` and `prev` are what the first line must carry (None: not checked). After a wrong line
    the check goes on from what that line itself says, so one fault is told once.
    Raises FileNotFoundError when there is no history, HistoryError when it cannot be read.
    """
    with _opened(path) as book:
        head_seq, head_hash = (book.head.seq, book.head.hash) if book.head else (0, "")
        several = len(book.parts) > 1
        last, number, name = 0, 0, book.target.name
        for part in book.parts:
            number, name = 0, part.path.name
            for raw, overlong in _raw_lines(part):
                number += 1
                record, problem = (None, f"longer than {history_line.MAX_LINE} bytes") if overlong else judge(raw)
                if record is not None:
                    seq = record["seq"]
                    if seq != expected_seq and last == 0 and expected_seq == 1 and _archived(book, record):
                        expected_seq, prev = seq, None
                    opening = book.target if number == 1 and several else None
                    problem = problem or _chain_problem(record, expected_seq, prev, opening)
                    if seq == head_seq and record["hash"] != head_hash:
                        problem = problem or f"not the line {seq} that {head_path(book.target).name} says was written"
                    last, expected_seq, prev = seq, seq + 1, record["hash"]
                elif expected_seq is not None:
                    expected_seq += 1
                    prev = None
                yield Line(number, record, _placed(problem, name, book), name)
            if part.last is not None and last < part.last:
                gap = f"{_lines(last + 1, part.last)} missing at the end: {_ends(last)}, its name says {part.last}"
                yield Line(number + 1, None, _placed(gap, name, book), name)
                expected_seq, prev = part.last + 1, None
        if book.head is not None and last < book.head.seq:
            written = f"the last one written was line {book.head.seq} of {book.head.timestamp}"
            gap = f"{_lines(last + 1, book.head.seq)} missing at the end: {_ends(last)}, {written}"
            if last == 0:
                gap += f". To begin anew on purpose, move {book.target.name}.* away too"
            yield Line(number + 1, None, gap, name)


def _placed(problem: str | None, name: str, book: _Book) -> str | None:
    """The problem with the name of its file where that is not the one everybody thinks of."""
    return problem if problem is None or name == book.target.name else f"in {name}: {problem}"


def _raw_lines(part: _Part) -> Iterator[tuple[bytes, bool]]:
    """Each line with its newline, and whether it is longer than any of ours (then it is only its end)."""
    most = history_line.MAX_LINE
    with part.opened() as handle:
        left = part.size
        while left > 0:
            raw = handle.readline(min(left, most))
            if not raw:
                return
            left -= len(raw)
            overlong = left > 0 and not raw.endswith(b"\n")
            while overlong and left > 0 and not raw.endswith(b"\n"):
                raw = handle.readline(min(left, _BLOCK))
                left -= len(raw)
            yield raw, overlong


def _lines(first: int, last: int) -> str:
    return f"line {first} is" if first == last else f"lines {first} to {last} are"


def _ends(last: int) -> str:
    return f"the file ends at line {last}" if last else "the file holds none"


def _chain_problem(record: Record, expected_seq: int | None, prev: str | None, opening: Path | None) -> str | None:
    """What is wrong between this line and the one before; `opening` is the history where the line is a file's first."""
    seq = record["seq"]
    if expected_seq is not None and seq != expected_seq:
        if seq < expected_seq:
            return f"seq is {seq}, expected {expected_seq}: doubled or out of order"
        gap = f"{_lines(expected_seq, seq - 1)} missing or out of place"
        # At the start of a file it may be a file that is missing; that one had this name, or ended with these lines.
        file = f" ({segment_name(opening, expected_seq, seq - 1)}, if they had a file of their own)" if opening else ""
        return f"seq is {seq}, expected {expected_seq}: {gap}{file}"
    if prev is not None and record.get("prev") != prev:
        return "prev is not the hash of the line before: a line was removed, put in or changed"
    return None


def _archived(book: _Book, record: Record) -> bool:
    """Whether a line of this history says that what came before `record`, its first line, was moved away on purpose."""
    needle = f'"event":"{ARCHIVED}"'.encode()
    wanted = {"last": record["seq"] - 1, "hash": record.get("prev")}
    # The lines are read a second time; the file that is open must be read on from where it was.
    places = [(part.handle, part.handle.tell()) for part in book.parts if part.handle is not None]
    try:
        for part in book.parts:
            for raw, overlong in _raw_lines(part):
                found, problem = judge(raw) if not overlong and needle in raw else (None, None)
                moved = found.get("files") if found is not None and problem is None else None
                for one in moved if isinstance(moved, list) else []:
                    if isinstance(one, Mapping) and {key: one.get(key) for key in wanted} == wanted:
                        return True
    finally:
        for handle, place in places:
            handle.seek(place)
    return False


def read(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Every record in order, one at a time; lines that are no record are passed over."""
    return (line.record for line in scan(path) if line.record is not None)


# ----------------------------------------------------------------------------------------------- verify


def verify(path: str | os.PathLike[str]) -> VerifyResult:
    """Check the whole chain in one pass. Raises as `scan` does."""
    records = bad = 0
    first: Line | None = None
    for line in scan(path):
        records += line.record is not None
        if line.problem is not None:
            bad += 1
            first = first or line
    return with_ends(verify_result(records, first, bad), path)


def verify_result(records: int, first: Line | None, bad: int) -> VerifyResult:
    """Put together what a pass over the lines found."""
    if first is None:
        return VerifyResult(ok=True, records=records)
    return VerifyResult(False, records, first.number, first.problem, bad, first.file)


def with_ends(outcome: VerifyResult, path: str | os.PathLike[str]) -> VerifyResult:
    """`outcome` with what is to be said of the history's start and end: `last_seq`, `last_hash` and `notes`."""
    with _opened(path) as book:
        last = _last(book)
        begin = _first(book)
    notes = []
    if begin is not None and begin["seq"] > 1 and outcome.ok:
        notes.append(f"it starts at line {begin['seq']}, the earlier ones were archived")
    if book.head is None and last is not None:
        notes.append(f"the end cannot be checked: {book.headless}")
    elif book.head is not None and last is not None and book.head.seq < last["seq"]:
        notes.append(
            f"the end can be checked up to line {book.head.seq}: {head_path(book.target).name} knows no later one"
        )
    return dataclasses.replace(
        outcome,
        last_seq=None if last is None else last["seq"],
        last_hash=None if last is None else last["hash"],
        notes=tuple(notes),
    )


def notes_words(outcome: VerifyResult) -> str:
    """What a verdict has to add, plain text: what cannot be known, and the last line, to be kept elsewhere."""
    words = list(outcome.notes)
    if outcome.last_seq is not None:
        words.append(f"the last line is {outcome.last_seq} with hash {outcome.last_hash}")
    return "; ".join(words)


def _last(book: _Book) -> Record | None:
    for part in reversed(book.parts):
        with part.opened() as handle:
            _end, record = last_record(handle.fileno(), part.size)
        if record is not None:
            return record
    return None


def _first(book: _Book) -> Record | None:
    for part in book.parts:
        for raw, overlong in _raw_lines(part):
            return None if overlong else parse_record(raw.rstrip(b"\n"))
    return None


# ------------------------------------------------------------------------------------------------- find


@dataclass(frozen=True)
class Wanted:
    """A record to look for: this run, one of these events, this host, and not before `since` (a timestamp)."""

    run_id: str
    events: Collection[str]
    host: str
    since: str = ""

    def is_in(self, record: Mapping[str, Any]) -> bool:
        """Whether `record` is one."""
        return (
            record.get("run_id") == self.run_id
            and record.get("host") == self.host
            and record.get("event") in self.events
        )


def find(path: str | os.PathLike[str], run_id: str, event: str, host: str) -> Record | None:
    """The record of this run, event and host, looked for from the end; None when there is none.

    Only a whole record whose own hash is right counts. Raises FileNotFoundError or HistoryError.
    """
    with _opened(path) as book:
        return _find(book.parts, Wanted(run_id, {event}, host), FIND_BYTES)


def find_any(path: str | os.PathLike[str], wanted: Wanted) -> Record | None:
    """As `find`, in the whole history from `wanted.since` on; None also when there is no history."""
    try:
        with _opened(path) as book:
            return _find(book.parts, wanted, None)
    except FileNotFoundError:
        return None


def find_locked(target: Path, handle: int, size: int, wanted: Wanted) -> Record | None:
    """As `find`, by one who has the lock on the open file of `size` bytes."""
    return _find_in(handle, size, wanted, FIND_BYTES) or _find(_closed(target)[-1:], wanted, FIND_BYTES)


def _find(parts: list[_Part], wanted: Wanted, most: int | None) -> Record | None:
    for part in reversed(parts):
        with part.opened() as handle:
            record = _find_in(handle.fileno(), part.size, wanted, most)
        if record is not None:
            return record
        if most is not None:
            most -= part.size
            if most <= 0:
                break
    return None


def _find_in(handle: int, size: int, wanted: Wanted, most: int | None) -> Record | None:
    needle = json.dumps(wanted.run_id, ensure_ascii=False).encode("utf-8", "replace")
    for start, raw, whole in lines_backwards(handle, size):
        if most is not None and size - start > most:
            break
        stamp = _STAMP.match(raw)
        if stamp and stamp[1].decode() < wanted.since:
            break
        if not whole or needle not in raw:
            continue
        record = parse_record(raw)
        if record is not None and wanted.is_in(record) and record["hash"] == digest(record):
            return record
    return None
