"""One line of the history: what it holds, how it is written, and whether it is as it was written.

A line holds, in this order: the keys of `FIELDS` (every one present, null when not known), `schema`, any
further keys the event brought, `prev` and `hash`. `hash` is the SHA-256 of the record without `hash` as
canonical JSON: sorted keys, no spaces, UTF-8 as it is. `prev` is the hash of the line before, 64 zeros on
the first one. `history.schema.json` is its JSON Schema.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import socket
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

from swiftdeploy import untrusted

SCHEMA = 1
ZERO_HASH = "0" * 64
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
# Every line starts with this, because `seq` is the first field.
LINE_START = b'{"seq":'

_MAX_DEPTH = 50
_EVENT_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
# Made once: building an encoder costs as much as encoding a small line. What is encoded is a tree without cycles.
_LINE = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False, default=str
).encode
_CANONICAL = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False, sort_keys=True
).encode
_VALUE = json.JSONDecoder().raw_decode

Record = dict[str, Any]


class HistoryError(Exception):
    """The history could not be read or written; the message is for a person."""


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
    """Copy `value` as plain JSON types: a number that nothing can have becomes null, what JSON does not know a string.

    Text keeps nothing that steers a terminal, and is bounded (`untrusted.text`). Mappings inside it are sorted by key,
    as `judge` reads a line faster then.
    """
    if depth > _MAX_DEPTH:
        raise HistoryError(f"the event is nested more than {_MAX_DEPTH} levels deep")
    if value is None or isinstance(value, bool | int | float):
        return value if value is None else untrusted.number(value)
    if isinstance(value, str):
        return untrusted.text(value)
    if isinstance(value, Mapping):
        pairs = [(plain(str(key)), plain(item, depth + 1)) for key, item in value.items()]
        return dict(sorted(pairs, key=itemgetter(0)) if depth else pairs)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, Set):
        return sorted((plain(item, depth + 1) for item in value), key=str)
    return plain(str(value), depth)


def canonical(record: Mapping[str, Any]) -> bytes:
    """The bytes the hash is taken of: `record` without `hash`, sorted keys, no spaces, UTF-8."""
    body = dict(record)
    body.pop("hash", None)
    return _CANONICAL(body).encode("utf-8")


def digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record, hexadecimal."""
    return hashlib.sha256(canonical(record)).hexdigest()


def encode(record: Mapping[str, Any]) -> bytes:
    """The line of a record, with its newline; keys keep their order."""
    return _LINE(record).encode("utf-8") + b"\n"


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
        return _record_in(raw.decode("utf-8"))
    except ValueError:
        return None


def _record_in(text: str) -> Record | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    seq, digest_text = value.get("seq"), value.get("hash")
    if not isinstance(seq, int) or isinstance(seq, bool) or not isinstance(digest_text, str):
        return None
    return value


def _unchanged(text: str) -> Record | None:
    """The record in a line when all of it is as it was written, None when that has to be looked into.

    The pieces `"key":value` of the line, put together in the order of their keys, are the canonical JSON, as long as
    mappings inside a value are sorted too. So the hash is taken of the very bytes of the line, and nothing has to be
    encoded again; a piece that is spelled another way than it was written does not fit the hash.
    """
    record: Record = {}
    pieces: list[tuple[str, str]] = []
    at, end = 1, len(text) - 1
    try:
        while at < end:
            stop = text.find('":', at)
            key = text[at + 1 : stop]
            if stop < 0 or text[at] != '"' or "\\" in key or key in record:
                return None
            record[key], after = _VALUE(text, stop + 2)
            pieces.append((key, text[at:after]))
            if after < end and text[after] != ",":
                return None
            at = after + 1
    except (ValueError, RecursionError):
        return None
    stated, seq = record.get("hash"), record.get("seq")
    if text[:1] != "{" or text[-1:] != "}" or at != end + 1 or not isinstance(seq, int) or isinstance(seq, bool):
        return None
    pieces.sort(key=itemgetter(0))
    body = ",".join(piece for key, piece in pieces if key != "hash")
    right = hashlib.sha256(f"{{{body}}}".encode()).hexdigest()
    # The one piece that the hash does not cover.
    return record if stated == right and ("hash", f'"hash":"{right}"') in pieces else None


def judge(raw: bytes) -> tuple[Record | None, str | None]:
    """The record in a line with its newline, and what is wrong with the line by itself (None for nothing)."""
    if not raw.endswith(b"\n"):
        return None, "torn: the file ends in the middle of it (a kill or power cut; the next run sets it aside)"
    try:
        text = raw[:-1].decode("utf-8")
        record = _unchanged(text)
        if record is not None:
            return record, None
        record = _record_in(text)
        if record is None:
            return None, "not a history record in JSON"
        same = _LINE(record) == text
        stated = record.pop("hash")
        right = hashlib.sha256(_CANONICAL(record).encode("utf-8")).hexdigest() == stated
        record["hash"] = stated
    except (ValueError, RecursionError):
        return None, "not a history record in JSON"
    if not right:
        return record, "hash does not fit the line: it was changed after it was written"
    # The hash covers the values; this covers the bytes (a doubled key, a space, another spelling).
    return record, None if same else "not written as SwiftDeploy writes it: it was changed after it was written"
