"""Samples that a host keeps between runs, so that the gate of a busy service need not wait for a window.

They stand in one file of the stack's folder, oldest first::

    {"schema": 1, "boot": id of this start of the machine,
     "samples": [{"slot", "release", "at": unix seconds, "ticks": seconds of the monotonic clock,
                  "content_type", "body": gzip as base64, "mark": what was written to the access log then}, ...]}

A sample counts for the release it was taken of alone. Losing the file costs a wait and nothing else, so
whatever is wrong with it means that there are no samples.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional

from .files import write_atomic
from .http import MAX_BODY, FetchError, gunzip

FILE_NAME = "samples.json"
SCHEMA = 1
# Bytes of one packed sample, and of the file. 10,000 series make about 80 kB.
MAX_SAMPLE = 1024 * 1024
MAX_FILE = 8 * 1024 * 1024
# Samples of one slot are at least this part of a window apart, so that one is found that is hardly older than a
# window.
SPACING = 0.25
# By how many seconds the two clocks may disagree on an age. More means that one was set, or that the machine slept.
DRIFT = 1.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TYPES = {
    "slot": str,
    "release": str,
    "at": float,
    "ticks": float,
    "content_type": str,
    "body": str,
}

Sample = Dict[str, Any]


class Now(NamedTuple):
    """One moment by both clocks, in seconds: unix time, and the monotonic clock that all processes share."""

    at: float
    ticks: float


class Keeping(NamedTuple):
    """What is kept: ``releases`` is slot to release id, ``window`` and ``max_age`` are seconds."""

    path: Path
    releases: Dict[str, str]
    window: float
    max_age: float


def _boot() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _load(path: Path) -> List[Sample]:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
        # As floats, since an integer may be beyond all of them.
        found = json.loads(data, parse_int=float) if len(data) <= MAX_FILE else None
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or found.get("boot") != _boot():
        return []
    entries = found.get("samples")
    return [
        entry
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in _TYPES.items())
    ]


def _age(entry: Sample, now: Now) -> float:
    """Seconds since ``entry`` was taken; negative where the clocks do not agree on it."""
    age = now.ticks - entry["ticks"]
    return float(age) if abs(now.at - entry["at"] - age) <= DRIFT else -1.0


def _current(keeping: Keeping, now: Now) -> List[Sample]:
    """The kept samples that may still be of use."""
    return [
        entry
        for entry in _load(keeping.path)
        if keeping.releases.get(entry["slot"]) == entry["release"] and 0 <= _age(entry, now) <= keeping.max_age
    ]


def _unpack(entry: Sample, now: Now) -> Optional[Sample]:
    try:
        body = gunzip(base64.b64decode(entry["body"], validate=True), MAX_BODY).decode("utf-8")
    except (FetchError, ValueError):
        return None
    if not body:
        return None
    # By the monotonic clock, so that the window is as long as it was.
    at = now.at - _age(entry, now)
    mark = str(entry.get("mark") or "")
    return {"slot": entry["slot"], "at": at, "body": body, "content_type": entry["content_type"], "mark": mark}


def pick(keeping: Keeping, slots: Iterable[str], now: Now) -> List[Sample]:
    """For each of ``slots`` the youngest kept sample that is at least a window old; empty when one has none.

    In the form that scrape.scrape answers.
    """
    found = {entry["slot"]: entry for entry in _current(keeping, now) if _age(entry, now) >= keeping.window}
    picked = [_unpack(found[slot], now) if slot in found else None for slot in slots]
    return [one for one in picked if one is not None] if all(picked) else []


def keep(keeping: Keeping, samples: Iterable[Sample], now: Now) -> bool:
    """Add ``samples`` (as scrape.scrape answers them) to the file. True when it was written. Raises OSError.

    Failed samples, and those of a slot that has one which is too young, are left out. What is too old, or of a
    release that is none of ``keeping.releases``, goes; and the oldest where the file would be too large.
    """
    entries = _current(keeping, now)
    last = {entry["slot"]: entry for entry in entries}
    added = []
    for sample in samples:
        slot = sample["slot"]
        ticks = now.ticks - (now.at - sample["at"])
        if "body" not in sample or slot not in keeping.releases:
            continue
        if slot in last and ticks - last[slot]["ticks"] < SPACING * keeping.window:
            continue
        body = base64.b64encode(gzip.compress(sample["body"].encode("utf-8"), 6)).decode("ascii")
        if len(body) <= MAX_SAMPLE:
            entry = {"slot": slot, "release": keeping.releases[slot], "at": sample["at"], "ticks": ticks}
            mark = sample.get("mark", "")
            added.append({**entry, "content_type": sample["content_type"], "body": body, "mark": mark})
    if not added or not keeping.path.parent.is_dir():
        return False
    _write(keeping.path, [*entries, *added])
    return True


def _write(path: Path, entries: List[Sample]) -> None:
    while True:
        data = json.dumps({"schema": SCHEMA, "boot": _boot(), "samples": entries}).encode()
        if len(data) <= MAX_FILE:
            break
        entries = entries[1:]
    write_atomic(path, data, 0o600)


def forget(path: Path, releases: Iterable[str]) -> None:
    """Drop the samples of all but ``releases`` (ids), and the file when none is left. Raises OSError."""
    wanted = set(releases)
    entries = _load(path)
    left = [entry for entry in entries if entry["release"] in wanted]
    if not left:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    elif len(left) < len(entries):
        _write(path, left)
