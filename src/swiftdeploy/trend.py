"""The last minutes of a host's figures, and the last events: from the end of the history, and from what a run sees."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from swiftdeploy import history

# How long a sparkline reaches back, seconds.
SPAN = 300.0
# A line further back in the history than this many bytes is not looked for.
TAIL_BYTES = 4 * 1024 * 1024
KEPT_EVENTS = 40
KEPT_POINTS = 720
BARS = "▁▂▃▄▅▆▇█"
# Longer without a figure is a gap, in bins.
BRIDGED = 2


@dataclass(frozen=True)
class Point:
    """One refresh: when (unix seconds), requests a second, error rate 0..1, P99 in ms; None where not measured."""

    at: float
    req_per_sec: float | None = None
    error_rate: float | None = None
    p99_latency_ms: float | None = None


def seconds(stamp: object) -> float | None:
    """Unix seconds of a timestamp as the history writes it."""
    try:
        return datetime.fromisoformat(str(stamp).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


class Tail:
    """The whole records at the end of a history, read on from where the last call ended."""

    def __init__(self, path: Path, most: int = TAIL_BYTES) -> None:
        self._path, self._most = path, most
        self._file: tuple[int, int] | None = None
        self._offset = 0

    def read(self) -> list[history.Record]:
        """The records since the last call, at first those of the last ``most`` bytes.

        A history that is not there, cannot be read or was replaced by a new one is no error: this only shows.
        """
        try:
            with self._path.open("rb") as handle:
                found = os.fstat(handle.fileno())
                file = (found.st_dev, found.st_ino)
                if file != self._file or found.st_size < self._offset:
                    self._file, self._offset = file, 0
                begin = max(self._offset, found.st_size - self._most)
                handle.seek(begin)
                data = handle.read(found.st_size - begin)
        except OSError:
            return []
        # A line without its end is being written just now.
        whole = data.rfind(b"\n") + 1
        self._offset = begin + whole
        records = (history.parse_record(raw) for raw in data[:whole].split(b"\n") if raw)
        return [record for record in records if record is not None]


class Trends:
    """What the last minutes of each host were like, the canary's own among it, and the last events."""

    def __init__(self) -> None:
        self.events: deque[history.Record] = deque(maxlen=KEPT_EVENTS)
        # By host and service: several services of one host may be in one history.
        self._points: dict[tuple[str, str, bool], deque[Point]] = {}
        self._silent: dict[tuple[str, str], str] = {}

    def learn(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take in records of the history, or events that are about to be."""
        for record in records:
            if record.get("event") == "status_scrape":
                self._scrape(record)
            else:
                self.events.append(dict(record))

    def _scrape(self, record: Mapping[str, Any]) -> None:
        host, at = str(record.get("host")), seconds(record.get("timestamp"))
        if at is None:
            return
        where = (host, str(record.get("service")))
        self._add((*where, False), at, record)
        canary = record.get("canary")
        if isinstance(canary, Mapping):
            self._add((*where, True), at, canary)
        if record.get("answered") is False:
            self._silent.setdefault(where, str(record["timestamp"]))
        else:
            self._silent.pop(where, None)

    def _add(self, key: tuple[str, str, bool], at: float, figures: Mapping[str, Any]) -> None:
        points = self._points.setdefault(key, deque(maxlen=KEPT_POINTS))
        # What this run has taken in already comes once more out of the history.
        if not points or at > points[-1].at:
            points.append(Point(at, *(_number(figures.get(name)) for name in Point.__annotations__ if name != "at")))

    def of(self, host: str, service: str | None, canary: bool = False) -> Sequence[Point]:
        """The points of a service on a host, or of the canary there, oldest first."""
        return self._points.get((host, str(service), canary), ())

    def silent_since(self, host: str, service: str | None) -> str | None:
        """Since when a host has given no answer to any look."""
        return self._silent.get((host, str(service)))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def bins(points: Sequence[Point], figure: str, now: float, width: int) -> list[float | None]:
    """The largest value of ``figure`` in each of ``width`` equal parts of the last SPAN seconds; None in a gap."""
    size = SPAN / width
    # On a grid of its own, so that a bar does not change while time goes on.
    first = (int(now / size) - width + 1) * size
    found: list[float | None] = [None] * width
    seen: set[int] = set()
    for point in points:
        index = int((point.at - first) / size)
        if not 0 <= index < width:
            continue
        seen.add(index)
        value = getattr(point, figure)
        if value is not None:
            found[index] = max(value, found[index] or 0.0)
    for index in range(1, width):
        near = [back for back in range(1, BRIDGED + 1) if index - back in seen]
        # Between two refreshes, and up to now, the last figure stands; a refresh without a figure is a gap.
        if index not in seen and near:
            found[index] = found[index - near[0]]
    return found


def sparkline(values: Sequence[float | None]) -> tuple[str, float | None]:
    """A bar for each value, the highest one full, and the highest value; a gap is a space."""
    known = [value for value in values if value is not None]
    if not known:
        return " " * len(values), None
    top = max(known)
    return "".join(" " if value is None else _bar(value, top) for value in values), top


def _bar(value: float, top: float) -> str:
    return BARS[0] if value <= 0 or top <= 0 else BARS[min(len(BARS) - 1, 1 + int(value / top * (len(BARS) - 2)))]
