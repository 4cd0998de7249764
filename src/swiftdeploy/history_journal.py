"""Operations that are open: what a run that is killed leaves behind, so that the history still tells of it.

While a run is in the middle of an operation on a host, ``history.jsonl.open/`` has one small file for the two. It is
removed when the record that ends the operation is on the disk. Whoever comes next and finds a file whose run is gone
appends ``<event>_interrupted`` for it (`sweep`), exactly once.

The file has two lines: what was begun, written once and on the disk before the operation goes on; and the last task
that began, padded to `STEP_BYTES` so that it is exchanged with one small write that nothing waits for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from swiftdeploy import context, history_file, history_read
from swiftdeploy.history_line import HistoryError, Record, check_event_name, plain, utc_now
from swiftdeploy.history_read import Wanted

# What of an announced operation is kept. Never the arguments of a task, nor any other value of a play.
KEPT = ("run_id", "event", "host", "service", "mode", "version", "actor")
STEP_BYTES = 512
# An entry of another controller is judged by its age alone: nobody can look from here whether that run lives.
FOREIGN_SECONDS = 7 * 24 * 3600.0
# An entry that cannot be read was being written when its run was killed.
UNREADABLE_SECONDS = 3600.0
# How far a clock may be set back between the begin and the end of an operation.
CLOCK = timedelta(days=1)

_TEXT_BYTES = 160


@dataclass(frozen=True)
class Entry:
    """An open operation's file, and where in it the last task stands."""

    path: Path
    offset: int


@dataclass(frozen=True)
class Holder:
    """The process that an operation belongs to, in the words of `context.is_gone`."""

    controller: str
    pid: int
    process_start: str


def folder(history_path: Path) -> Path:
    """Where the open operations of a history are."""
    return history_path.with_name(f"{history_path.name}.open")


def base(event: str) -> str:
    """The operation that an event ends."""
    return re.sub(r"_(blocked|failed|interrupted)$", "", event)


def endings(event: str) -> frozenset[str]:
    """The events that end an operation."""
    return frozenset({event, *(f"{event}_{how}" for how in ("blocked", "failed", "interrupted"))})


# ------------------------------------------------------------------------------------- of the run itself


def begin(history_path: Path, operation: Mapping[str, Any], holder: Holder) -> Entry:
    """Put down that `operation` (`KEPT`) was begun. Raises HistoryError."""
    check_event_name(f"{operation.get('event')}_interrupted")
    values = plain({key: operation.get(key) for key in KEPT})
    values |= {"controller": holder.controller, "pid": holder.pid, "process_start": holder.process_start}
    line = _line({**values, "since": utc_now()})
    key = json.dumps([values["run_id"], values["host"], values["event"]]).encode()
    entry = Entry(folder(history_path) / f"{hashlib.sha256(key).hexdigest()[:32]}.json", len(line))
    try:
        entry.path.parent.mkdir(mode=0o755, exist_ok=True)
        handle = os.open(entry.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(handle, line + _step(None, None))
            os.fsync(handle)
        finally:
            os.close(handle)
        history_file.sync_folder(entry.path.parent)
    except OSError as error:
        raise HistoryError(f"cannot write below {entry.path.parent}: {history_file.reason(error)}") from error
    return entry


def note(entry: Entry, task: str | None, step: str | None, unrecorded: str | None = None) -> None:
    """Put down that `task` begins, after `step` was told. Waits for no disk, and a failure is let go."""
    with contextlib.suppress(OSError):
        handle = os.open(entry.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(handle, _step(task, step, unrecorded), entry.offset)
        finally:
            os.close(handle)


def end(entry: Entry) -> None:
    """Remove the file of an operation whose end is recorded. One that stays is found to be ended by the next sweep."""
    with contextlib.suppress(OSError):
        entry.path.unlink()


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=True).encode() + b"\n"


def _step(task: str | None, step: str | None, unrecorded: str | None = None) -> bytes:
    values = {"at": utc_now() if task or unrecorded else None}
    for name, text in (("task", task), ("step", step), ("unrecorded", unrecorded)):
        # What is escaped takes up to six bytes a letter.
        values[name] = None if text is None else _printable(text)
    line = json.dumps(values, ensure_ascii=False).encode("utf-8", "replace")
    if len(line) >= STEP_BYTES:
        line = json.dumps({"at": values["at"]}).encode()
    return line.ljust(STEP_BYTES - 1) + b"\n"


def _printable(text: str) -> str:
    """One line without what JSON would escape, and not too long."""
    clean = "".join(letter if letter.isprintable() and letter not in '"\\' else " " for letter in text)
    return " ".join(clean.split()).encode("utf-8", "replace")[:_TEXT_BYTES].decode("utf-8", "ignore")


# --------------------------------------------------------------------------------------- of other runs


def interrupted(begun: Mapping[str, Any], last: Mapping[str, Any], how: str) -> dict[str, Any]:
    """The event that tells of an operation without an end. `how` begins its reason: "interrupted after TIME"."""
    task, unrecorded = last.get("task"), last.get("unrecorded")
    words = f"{how} while: {task or 'nothing had begun yet'}"
    if unrecorded:
        words = f"its end could not be recorded: {unrecorded}"
    return {
        **{key: begun.get(key) for key in KEPT},
        "event": f"{begun.get('event')}_interrupted",
        "reason": words,
        "task": task,
        "step": last.get("step"),
        "since": begun.get("since"),
        "last_sign": last.get("at") or begun.get("since"),
        "controller": begun.get("controller"),
        "pid": begun.get("pid"),
    }


def close(
    history_path: Path, entry: Entry, how: str, max_size: int | None = None, changed: Sequence[str] = ()
) -> Record | None:
    """Record the run's own operation as interrupted, and remove its file. None when its end was recorded already.

    `changed` are the hosts that a run over many hosts has changed by then.
    """
    found = _load(entry.path)
    if found is None:
        return None
    event = interrupted(*found, how)
    if changed:
        event["hosts"] = {"changed": list(changed)}
    return _record(history_path, entry.path, event, max_size)


def sweep(
    history_path: Path,
    controller: str,
    max_size: int | None = None,
    appended: Callable[[Record], None] | None = None,
) -> list[Record]:
    """Record every open operation whose run is gone as interrupted; the records, oldest operation first.

    A run of this machine is gone when its process is; one of another controller when it gave no sign for
    `FOREIGN_SECONDS`. Raises HistoryError when a record cannot be written; the operation stays open then. `appended`
    is given each record once it is written, so also those before one that cannot be.
    """
    found = []
    for path in _entries(history_path):
        entry = _load(path)
        if entry is None:
            _forget_unreadable(path)
            continue
        begun, last = entry
        sign = str(last.get("at") or begun.get("since"))
        if begun.get("controller") == controller:
            if context.is_gone(begun, controller):
                found.append((path, interrupted(begun, last, f"interrupted after {sign}")))
        elif _age(sign) > FOREIGN_SECONDS:
            how = f"no sign from controller {begun.get('controller')} since {sign}, taken for interrupted"
            found.append((path, interrupted(begun, last, how)))
    records = []
    for path, event in sorted(found, key=lambda one: str(one[1]["since"])):
        record = _record(history_path, path, event, max_size)
        if record is not None:
            records.append(record)
            if appended is not None:
                appended(record)
    return records


def told(record: Mapping[str, Any]) -> str:
    """What a person reads of an interruption that was found: one line, and one on the way back where hosts changed."""
    what = f"{record.get('event')} of {record.get('actor')}, begun {record.get('since')}"
    line = f"{record.get('host')}: recorded {what}: {record.get('reason')}"
    changed = (record.get("hosts") or {}).get("changed")
    if not changed:
        return line
    names = ",".join(changed)
    return f"{line}\n  changed by then: {names}\n  next: ansible-playbook rollback.yml --limit {names}  takes them back"


def _record(history_path: Path, path: Path, event: Mapping[str, Any], max_size: int | None) -> Record | None:
    """Append the event unless an end is recorded already, then remove the operation's file."""
    # The end of an operation is not older than its begin, by a clock that may have been set meanwhile.
    begun = _time(str(event["since"]))
    since = (begun - CLOCK).isoformat() if begun is not None else ""
    wanted = Wanted(str(event["run_id"]), endings(base(str(event["event"]))), str(event["host"]), since)

    def ended(handle: int, size: int) -> bool:
        # Of two that find it, the second sees the first one's line.
        return history_read.find_locked(history_path, handle, size, wanted) is not None

    record = None
    # Not under the lock: the whole history may have to be read.
    if history_read.find_any(history_path, wanted) is None:
        record = history_file.append_unless(history_path, event, ended, max_size)
    with contextlib.suppress(OSError):
        path.unlink()
    return record


def _entries(history_path: Path) -> Iterator[Path]:
    place = folder(history_path)
    try:
        found = sorted(place.iterdir())
    except OSError:
        return
    yield from (path for path in found if re.fullmatch(r"[0-9a-f]{32}\.json", path.name))


def _load(path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What was begun, and the last task; None when the file cannot be read or is not whole."""
    try:
        first, _newline, second = path.read_bytes()[: 64 * 1024].partition(b"\n")
        begun = json.loads(first.decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(begun, dict) or not all(isinstance(begun.get(key), str) for key in ("run_id", "event", "since")):
        return None
    with contextlib.suppress(HistoryError):
        check_event_name(f"{begun['event']}_interrupted")
        return begun, _last_step(second)
    return None


def _last_step(text: bytes) -> dict[str, Any]:
    try:
        last = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return {}
    return last if isinstance(last, dict) else {}


def _forget_unreadable(path: Path) -> None:
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > UNREADABLE_SECONDS:
            path.unlink()


def _age(timestamp: str) -> float:
    """Seconds since a time of ours; 0 for what is none."""
    time_then = _time(timestamp)
    return 0.0 if time_then is None else (datetime.now(UTC) - time_then).total_seconds()


def _time(timestamp: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
