"""The history: append-only JSON lines, each chained to the one before by SHA-256.

One line is one event. `append` writes it, `read` and `scan` stream it, `verify` checks the chain,
`find` looks for the record of a run, `Recorder` turns task results into records (it knows nothing of
Ansible, the callback plugin is a thin shell around it).

A line holds, in this order: the keys of `FIELDS` (every one present, null when not known), `schema`, any
further keys the event brought, `prev` and `hash`. `hash` is the SHA-256 of the record without `hash` as
canonical JSON: sorted keys, no spaces, UTF-8 as it is. `prev` is the hash of the line before, 64 zeros on
the first one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import pwd
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

SCHEMA = 1
ZERO_HASH = "0" * 64
DEFAULT_NAME = "history.jsonl"
FIELDS = (
    "seq",
    "timestamp",
    "event",
    "run_id",
    "actor",
    "host",
    "service",
    "mode",
    "version",
    "release",
    "req_per_sec",
    "error_rate",
    "p99_latency_ms",
    "chaos",
    "policy",
    "reason",
    "duration_s",
)
# Written by this module alone; an event that brings them is not believed.
RESERVED = frozenset({"seq", "schema", "torn", "prev", "hash"})
# Keys of an event that steer recording and display and are no part of the record.
CONTROL = frozenset({"check", "history_path", "summary"})
# Longest line written or believed, bytes.
MAX_LINE = 4 * 1024 * 1024
# Seconds to wait for another process that is appending.
LOCK_SECONDS = 30.0
# How far back `find` looks, bytes. The record looked for was written moments ago.
FIND_BYTES = 64 * 1024 * 1024

_BLOCK = 64 * 1024
_MAX_DEPTH = 50
# Every line starts with this, because `seq` is the first field.
_LINE_START = b'{"seq":'
_EVENT_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

Record = dict[str, Any]


class HistoryError(Exception):
    """The history could not be read or written; the message is for a person."""


@dataclass(frozen=True)
class VerifyResult:
    """What checking the chain found.

    `records` counts whole records, `first_bad_line` is the number of the first wrong line (from 1, None when
    all are right), `problem` says what is wrong there, `bad_lines` counts wrong lines.
    """

    ok: bool
    records: int
    first_bad_line: int | None = None
    problem: str | None = None
    bad_lines: int = 0


@dataclass(frozen=True)
class Line:
    """One line as read: its number from 1, the record (None when it is none) and what is wrong with it."""

    number: int
    record: Record | None
    problem: str | None


# ---------------------------------------------------------------------------------------------- values


def utc_now() -> str:
    """Now, UTC, milliseconds: `2026-11-21T03:55:00.123Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def default_actor() -> str:
    """Who runs this: the person behind sudo if there is one, else the login name, at this machine."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    if os.getuid() == 0:
        # Only root can have got here by sudo; for anyone else the variable is just a claim.
        name = os.environ.get("SUDO_USER") or name
    return f"{name}@{socket.gethostname()}"


def check_event_name(name: object) -> str:
    """Return the name of an event, or raise HistoryError saying what one looks like."""
    if isinstance(name, str) and _EVENT_NAME.fullmatch(name):
        return str(name)
    raise HistoryError(
        f"event is {name!r}; it must be a name of small letters, digits and underscores, for example deploy"
    )


def plain(value: Any, depth: int = 0) -> Any:
    """Copy `value` as plain JSON types: NaN and infinities become null, what JSON does not know a string."""
    if depth > _MAX_DEPTH:
        raise HistoryError(f"the event is nested more than {_MAX_DEPTH} levels deep")
    if value is None or isinstance(value, bool | int | float):
        return None if isinstance(value, float) and not math.isfinite(value) else value
    if isinstance(value, str):
        # A lone surrogate (bytes that were no UTF-8) cannot be written as UTF-8.
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, Set):
        return sorted((plain(item, depth + 1) for item in value), key=str)
    return plain(str(value), depth)


def canonical(record: Mapping[str, Any]) -> bytes:
    """The bytes the hash is taken of: `record` without `hash`, sorted keys, no spaces, UTF-8."""
    body = {key: value for key, value in record.items() if key != "hash"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record, hexadecimal."""
    return hashlib.sha256(canonical(record)).hexdigest()


def encode(record: Mapping[str, Any]) -> bytes:
    """The line of a record, with its newline; keys keep their order."""
    text = json.dumps(record, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str)
    return text.encode("utf-8") + b"\n"


def build_record(event: Mapping[str, Any], seq: int, prev: str, torn: str | None = None) -> Record:
    """Make the record of an event: known fields first, then schema, extras, prev, hash."""
    values = plain(event)
    check_event_name(values.get("event"))
    record: Record = {field: values.get(field) for field in FIELDS}
    record["seq"] = seq
    record["timestamp"] = values.get("timestamp") or utc_now()
    record["schema"] = SCHEMA
    for key, value in values.items():
        if key not in record and key not in RESERVED and key not in CONTROL:
            record[key] = value
    if torn is not None:
        record["torn"] = torn
    record["prev"] = prev
    record["hash"] = digest(record)
    return record


def parse_record(raw: bytes) -> Record | None:
    """The record in one line without its newline, None when the line is not a record."""
    try:
        value = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    seq, digest_text = value.get("seq"), value.get("hash")
    if not isinstance(seq, int) or isinstance(seq, bool) or not isinstance(digest_text, str):
        return None
    return value


# ------------------------------------------------------------------------------------------- appending


def append(path: str | os.PathLike[str], event: Mapping[str, Any]) -> Record:
    """Write `event` as the next line of the history at `path` and return the record.

    Holds an exclusive lock on the file, writes with one call and returns only after the line is on the disk.
    A torn last line is moved to `PATH.torn-<UTC time>` first and the new record names that file under `torn`.
    Raises HistoryError; the file is then as it was before.
    """
    target = Path(path)
    try:
        with _locked(target) as handle:
            return _append_locked(handle, target, event)
    except OSError as error:
        raise HistoryError(f"cannot write the history {target}: {_reason(error)}") from error


def _append_locked(handle: int, target: Path, event: Mapping[str, Any]) -> Record:
    size = os.fstat(handle).st_size
    _refuse_foreign(handle, size, target)
    end, last = _last_record(handle, size)
    torn = _set_aside(handle, end, size, target) if end < size else None
    seq, prev = (last["seq"] + 1, last["hash"]) if last is not None else (1, ZERO_HASH)
    record = build_record(event, seq, prev, torn)
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
        _sync_folder(target.parent)
    return record


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
            if _same_file(handle, target):
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


def _same_file(handle: int, target: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), target.stat())
    except FileNotFoundError:
        return False


def _refuse_foreign(handle: int, size: int, target: Path) -> None:
    """A wrong path must not cut or grow a file that is something else."""
    start = os.pread(handle, len(_LINE_START), 0)
    if size == 0 or start == _LINE_START:
        return
    if size < len(_LINE_START) and _LINE_START.startswith(start):
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
        _sync_folder(target.parent)
    except BaseException:
        # Nothing was cut off yet, so half a copy is only clutter.
        aside.unlink(missing_ok=True)
        raise
    os.ftruncate(handle, end)
    os.fsync(handle)
    return aside.name


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: OSError) -> str:
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


# --------------------------------------------------------------------------------------------- reading


def _last_record(handle: int, size: int) -> tuple[int, Record | None]:
    """Where the last whole record ends, and that record; (0, None) when there is none."""
    for start, raw, whole in _lines_backwards(handle, size):
        record = parse_record(raw) if whole else None
        if record is not None:
            return start + len(raw) + 1, record
    return 0, None


def _lines_backwards(handle: int, size: int) -> Iterator[tuple[int, bytes, bool]]:
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
    position = stop
    while position > 0:
        begin = max(0, position - _BLOCK)
        found = os.pread(handle, position - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        position = begin
    return 0


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, int]]:
    """Open for reading; yields the file and the size it had while nobody was writing."""
    target = Path(path)
    try:
        with target.open("rb") as handle:
            if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
                raise HistoryError(f"cannot read the history {target}: it is not a regular file")
            # Only the length is taken under the lock: a long read must not hold up a deploy.
            fcntl.flock(handle, fcntl.LOCK_SH)
            size = os.fstat(handle.fileno()).st_size
            fcntl.flock(handle, fcntl.LOCK_UN)
            yield handle, size
    except FileNotFoundError:
        raise
    except OSError as error:
        raise HistoryError(f"cannot read the history {target}: {error.strerror or error}") from error


def scan(path: str | os.PathLike[str], expected_seq: int | None = 1, prev: str | None = ZERO_HASH) -> Iterator[Line]:
    """Read every line once and check it against the one before; memory does not grow with the file.

    `expected_seq` and `prev` are what the first line must carry (None: not checked). After a wrong line
    the check goes on from what that line itself says, so one fault is told once.
    Raises FileNotFoundError when there is no history, HistoryError when it cannot be read.
    """
    with _opened(path) as (handle, size):
        number = 0
        left = size
        while left > 0:
            number += 1
            raw = handle.readline(min(left, MAX_LINE))
            if not raw:
                return
            left -= len(raw)
            overlong = not raw.endswith(b"\n") and left > 0
            while overlong and left > 0 and not raw.endswith(b"\n"):
                raw = handle.readline(min(left, _BLOCK))
                left -= len(raw)
            record, problem = (None, f"longer than {MAX_LINE} bytes") if overlong else _judge(raw)
            if record is not None:
                problem = problem or _chain_problem(record, expected_seq, prev)
                expected_seq, prev = record["seq"] + 1, record["hash"]
            elif expected_seq is not None:
                expected_seq += 1
                prev = None
            yield Line(number, record, problem)


def _judge(raw: bytes) -> tuple[Record | None, str | None]:
    """The record in a line with its newline, and what is wrong with the line by itself."""
    if not raw.endswith(b"\n"):
        return None, "torn: the file ends in the middle of it (a kill or power cut; the next run sets it aside)"
    record = parse_record(raw[:-1])
    if record is None:
        return None, "not a history record in JSON"
    try:
        same = encode(record) == raw
        right = digest(record) == record["hash"]
    except (ValueError, RecursionError):
        return None, "not a history record in JSON"
    if not right:
        return record, "hash does not fit the line: it was changed after it was written"
    # The hash covers the values; this covers the bytes (a doubled key, a space, another spelling).
    return record, None if same else "not written as SwiftDeploy writes it: it was changed after it was written"


def _chain_problem(record: Record, expected_seq: int | None, prev: str | None) -> str | None:
    if expected_seq is not None and record["seq"] != expected_seq:
        return f"seq is {record['seq']}, expected {expected_seq}: lines are missing, doubled or out of order"
    if prev is not None and record.get("prev") != prev:
        return "prev is not the hash of the line before: a line was removed, put in or changed"
    return None


def read(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Every record in order, one at a time; lines that are no record are passed over."""
    return (line.record for line in scan(path) if line.record is not None)


def verify(path: str | os.PathLike[str]) -> VerifyResult:
    """Check the whole chain in one pass. Raises as `scan` does."""
    records = bad = 0
    first: Line | None = None
    for line in scan(path):
        records += line.record is not None
        if line.problem is not None:
            bad += 1
            first = first or line
    return verify_result(records, first, bad)


def verify_result(records: int, first: Line | None, bad: int) -> VerifyResult:
    """Put together what a pass over the lines found."""
    if first is None:
        return VerifyResult(ok=True, records=records)
    return VerifyResult(False, records, first.number, first.problem, bad)


def find(path: str | os.PathLike[str], run_id: str, event: str, host: str) -> Record | None:
    """The record of this run, event and host, looked for from the end; None when there is none.

    Only a whole record whose own hash is right counts. Raises FileNotFoundError or HistoryError.
    """
    needle = json.dumps(run_id, ensure_ascii=False).encode("utf-8", "replace")
    with _opened(path) as (handle, size):
        for start, raw, whole in _lines_backwards(handle.fileno(), size):
            if size - start > FIND_BYTES:
                break
            if not whole or needle not in raw:
                continue
            record = parse_record(raw)
            wanted = (run_id, event, host)
            if (
                record is not None
                and tuple(record.get(key) for key in ("run_id", "event", "host")) == wanted
                and record["hash"] == digest(record)
            ):
                return record
    return None


# ------------------------------------------------------------------------------------------- recording

# Why a record could not be written, by (run_id, event, host). The callback fills it in the main process;
# a worker is forked from that, so the action that looks for the record finds the reason here.
failures: dict[tuple[str, str, str], str] = {}


def outcome_words(event: str) -> str:
    """What became of the work itself, for a message that says its record is missing."""
    for ending, words in (("_blocked", "was blocked"), ("_failed", "failed")):
        if event.endswith(ending):
            return f"the {event.removesuffix(ending)} {words}"
    return f"the {event} itself went through"


def default_path(option: str | None, start_folder: str | None = None) -> Path:
    """Where the history is: `option` if given, else history.jsonl in the folder the playbook was started from."""
    folder = Path(start_folder or Path.cwd())
    return folder / Path(option).expanduser() if option else folder / DEFAULT_NAME


class Recorder:
    """Turns the results of tasks into records. It observes and appends; it never decides and never raises.

    `write(path, event)` is `append` unless a test gives another.
    """

    def __init__(
        self,
        path: Path,
        run_id: str,
        actor: str,
        write: Callable[[Path, Mapping[str, Any]], Record] = append,
    ) -> None:
        self.path = path
        self.run_id = run_id
        self.actor = actor
        self.problems: list[str] = []
        self._write = write
        self._contexts: dict[str, dict[str, Any]] = {}
        self._ended: set[tuple[str, str, str]] = set()

    def observe(self, host: str, result: object, trusted: bool = False, check: bool = False) -> str | None:
        """Look at one task result; append its event if it has one. Returns an error line or None.

        `trusted`: the result was made on the controller. What a host sends may only speak of that host and
        may not choose the file. `check`: the task ran in check mode.
        """
        if not isinstance(result, Mapping):
            return None
        context = result.get("swiftdeploy_context")
        if isinstance(context, Mapping):
            self._contexts[host] = dict(context, _trusted=trusted)
        event = result.get("swiftdeploy_event")
        if not isinstance(event, Mapping):
            return None
        return self._record(host, dict(event), trusted, check)

    def unreachable(self, host: str, reason: str, check: bool = False) -> str | None:
        """A host cannot be reached: if it was in the middle of one of our runs, that run failed there."""
        context = self._contexts.pop(host, None)
        if context is None or not context.get("event"):
            return None
        trusted = bool(context.pop("_trusted", False))
        base = str(context["event"])
        run_id = str(context.get("run_id") or self.run_id)
        if (run_id, host, base) in self._ended:
            return None
        event = {**context, "event": f"{base}_failed", "reason": f"unreachable: {reason}"}
        return self._record(host, event, trusted, check)

    def _record(self, host: str, event: dict[str, Any], trusted: bool, check: bool) -> str | None:
        own_path = event.get("history_path") if trusted else None
        if not trusted or not event.get("host"):
            event["host"] = host
        event["run_id"] = str(event.get("run_id") or self.run_id)
        event["actor"] = event.get("actor") or self.actor
        name = str(event.get("event"))
        self._ended.add((event["run_id"], str(event["host"]), re.sub(r"_(blocked|failed)$", "", name)))
        if event.get("check", check) is True:
            return None
        path = default_path(str(own_path)) if own_path else self.path
        try:
            self._write(path, event)
        except HistoryError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the play goes on and the check below it stops it
            problem = f"cannot write the history {path}: {type(error).__name__}: {error}"
        else:
            failures.pop((event["run_id"], name, str(event["host"])), None)
            return None
        failures[(event["run_id"], name, str(event["host"]))] = problem
        line = f"{event['host']}: {name} is not recorded: {problem}"
        self.problems.append(line)
        return line
