"""Readings over time in a bounded number of intervals, and what is marked beside them in a chart."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from swiftdeploy.history import Record
from swiftdeploy.report.words import number, words

# Hosts with a chart; the intervals that one shows; those of a host when there are more hosts than charts.
CHARTS = 12
CHART_POINTS = 300
TABLE_POINTS = 60
MARKS = 200
LIMIT_CHANGES = 50
# Widths of an interval in seconds, each a multiple of the one before; wider ones are doubled.
WIDTHS = tuple(60 * minutes for minutes in (1, 5, 15, 30, 60, 120, 240, 480, 1440))
# What is held against figures in one look at a canary, and not what a promotion has to meet.
_PARTIAL = "canary_partial"
_KINDS = {"deploy": "deploy", "promote": "promote", "rollback": "rollback", "teardown": "teardown"}
_ENDINGS = {"blocked": "denied", "failed": "failed", "interrupted": "interrupted"}


def worst(left: float | None, right: float | None) -> float | None:
    """The greater of two figures, either of which may not be known."""
    if left is None or right is None:
        return right if left is None else left
    return left if left >= right else right


@dataclass(slots=True)
class Bucket:
    """Readings of one interval: how many, the sum of the request rates that were known, the worst of the rest."""

    count: int = 0
    rates: int = 0
    rate_sum: float = 0.0
    error_rate: float | None = None
    p99: float | None = None
    mode: str = ""
    chaos: str = ""

    @property
    def rate(self) -> float | None:
        """Requests a second, mean of the readings."""
        return self.rate_sum / self.rates if self.rates else None

    def merge(self, later: Bucket) -> None:
        """Take in the interval that follows."""
        self.count += later.count
        self.rates += later.rates
        self.rate_sum += later.rate_sum
        self.error_rate = worst(self.error_rate, later.error_rate)
        self.p99 = worst(self.p99, later.p99)
        self.mode = later.mode or self.mode
        # Chaos at any time in the interval explains its figures.
        self.chaos = later.chaos if later.chaos not in ("", "none") else self.chaos or later.chaos


class Series:
    """Readings of one host over time in at most `limit` intervals, which get wider as time goes on."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.width = WIDTHS[0]
        self.buckets: dict[int, Bucket] = {}

    def add(self, when: float, record: Record) -> None:
        """Count one reading, `when` in Unix seconds."""
        index = int(when // self.width)
        bucket = self.buckets.get(index)
        if bucket is None:
            bucket = self.buckets[index] = Bucket()
            self.shrink(self.limit)
            bucket = self.buckets[int(when // self.width)]
        rate = number(record.get("req_per_sec"))
        if rate is not None:
            bucket.rates += 1
            bucket.rate_sum += rate
        bucket.count += 1
        bucket.error_rate = worst(bucket.error_rate, number(record.get("error_rate")))
        bucket.p99 = worst(bucket.p99, number(record.get("p99_latency_ms")))
        bucket.mode = words(record.get("mode"))[:40] or bucket.mode
        chaos = words(record.get("chaos"))[:40]
        bucket.chaos = chaos if chaos not in ("", "none") else bucket.chaos or chaos

    def shrink(self, limit: int) -> None:
        """Widen the interval until there are at most `limit`."""
        while len(self.buckets) > max(1, limit):
            wider = next((width for width in WIDTHS if width > self.width), 2 * self.width)
            factor, self.width = wider // self.width, wider
            merged: dict[int, Bucket] = {}
            for index in sorted(self.buckets):
                merged.setdefault(index // factor, Bucket()).merge(self.buckets[index])
            self.buckets = merged

    def ends(self) -> tuple[int, int]:
        """Begin of the first interval and end of the last, Unix seconds; there must be one."""
        return min(self.buckets) * self.width, (max(self.buckets) + 1) * self.width

    def shrunk(self, limit: int) -> Series:
        """A copy with at most `limit` intervals."""
        copy = Series(limit)
        copy.width = self.width
        copy.buckets = {index: replace(bucket) for index, bucket in self.buckets.items()}
        copy.shrink(limit)
        return copy


@dataclass(frozen=True, slots=True)
class Limits:
    """What figures were held against from `since` (Unix seconds) on; None where nothing was."""

    since: float
    error_rate: float | None
    p99: float | None


def _limit(found: Any) -> float | None:
    return number(found.get("max") if isinstance(found, dict) else found)


@dataclass
class Track:
    """What belongs to a host's chart besides its readings."""

    marks: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=MARKS))
    limits: deque[Limits] = field(default_factory=lambda: deque(maxlen=LIMIT_CHANGES))
    # Begin and end of injected faults; an end of None is still open.
    chaos: deque[tuple[float, float | None]] = field(default_factory=lambda: deque(maxlen=MARKS))

    def judged(self, when: float, answer: Mapping[str, Any]) -> None:
        """Learn the limits that the canary policy held figures against."""
        thresholds = answer.get("thresholds")
        if not isinstance(thresholds, dict) or str(thresholds.get("source", "")).startswith(_PARTIAL):
            return
        error_rate, p99 = _limit(thresholds.get("error_rate")), _limit(thresholds.get("p99_latency_ms"))
        if error_rate is None and p99 is None:
            return
        last = self.limits[-1] if self.limits else None
        if last is None or (last.error_rate, last.p99) != (error_rate, p99):
            self.limits.append(Limits(when, error_rate, p99))

    def happened(self, when: float, event: str, chaos: str, shown: bool) -> None:
        """Mark an event; `chaos` is the record's state of fault injection ("none", empty where not known)."""
        ended = event in _KINDS or (chaos == "none" and event in ("chaos", "status_scrape"))
        if ended and self.chaos and self.chaos[-1][1] is None:
            self.chaos[-1] = (self.chaos[-1][0], when)
        begun = event == "chaos" and chaos not in ("", "none")
        if begun and not (self.chaos and self.chaos[-1][1] is None):
            self.chaos.append((when, None))
        if not shown:
            return
        kind = "chaos" if begun else _KINDS.get(event) or _ENDINGS.get(event.rpartition("_")[2], "")
        if kind:
            self.marks.append((when, kind))
