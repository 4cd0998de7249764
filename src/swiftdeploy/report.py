"""The audit report, made from the history alone in one pass.

`build(path)` reads the history once, checks its chain on the way and returns the report as GitHub-flavoured
Markdown. Memory does not grow with the file: tables keep their last rows and say how many are left out, the
metrics are merged into ever wider intervals. The same history gives the same bytes; the only times in the
report are those of the records.

Everything in a record comes from outside (a version, a reason, a name): every value goes through `md`.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import tempfile
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from swiftdeploy import history, measurement
from swiftdeploy.history import HistoryError, Line, Record, VerifyResult

DEFAULT_NAME = "audit_report.md"
TIMELINE_ROWS = 1000
TABLE_ROWS = 200
RELEASES_PER_HOST = 20
METRIC_ROWS = 600
METRIC_ROWS_PER_HOST = 60
# Runs are counted by ids not seen among the last so many; the lines of a run stand near each other.
RECENT_RUNS = 4096
RESTORE_TIMES = 10_000
MAX_NAMES = 1000
CELL = 400
OTHER = "(others)"

CHANGES = ("deploy", "promote", "rollback")
WEEK = 7 * 86400.0

_EMPTY = "–"  # noqa: RUF001 - a dash for "nothing" is what a table wants
# Control characters, and the invisible ones that turn the direction of text around.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]+")
_MARKUP = re.compile(r"[\\`*\[\]~$]")
# An underscore inside a word is no markup, and names of events stay searchable.
_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


# ------------------------------------------------------------------------------------------- formatting


def md(value: object) -> str:
    """Any value as text that cannot be markup, HTML, a link or the end of a table cell."""
    text = _CONTROL.sub(" ", _words(value)).strip()
    if len(text) > CELL:
        text = text[: CELL - 1] + "…"
    if not text:
        return _EMPTY
    # An escaped bar after a backslash is read differently by different renderers, an entity is not.
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
    text = _UNDERSCORE.sub(r"\\_", _MARKUP.sub(r"\\\g<0>", text))
    # GitHub makes links of these by itself.
    return text.replace("://", "&#58;//").replace("www.", "www&#46;").replace("WWW.", "WWW&#46;")


def _words(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_words(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "; ".join(_words(item) for item in value)
    return str(value)


def number(value: object) -> float | None:
    """A finite number, else None (true and false are none)."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    return None


def seconds_of(timestamp: object) -> float | None:
    """Unix seconds of a record's time, None when it is no time."""
    if not isinstance(timestamp, str):
        return None
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def show_time(timestamp: object) -> str:
    """`2026-11-21 03:55:00`, UTC; a time that is none is shown as it is."""
    seconds = seconds_of(timestamp)
    return md(timestamp) if seconds is None else _clock(seconds)


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def show_span(seconds: float) -> str:
    """A duration for a person: `42 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def show_figure(value: float | None, digits: int, unit: str = "") -> str:
    """A figure with its unit, a dash when it is not known."""
    return _EMPTY if value is None else f"{value:.{digits}f}{unit}"


def show_share(value: float | None) -> str:
    """A share of 0 to 1 in percent."""
    return show_figure(None if value is None else value * 100, 2, " %")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of a table; the cells are already safe."""
    yield "| " + " | ".join(headers) + " |"
    yield "|" + " --- |" * len(headers)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


# ------------------------------------------------------------------------------------------ aggregating


@dataclass
class Row:
    """One row that may stand for several records that say the same."""

    cells: list[str]
    first: str
    last: str
    count: int = 1

    def time(self) -> str:
        """When, and until when if there were several."""
        return self.first if self.count == 1 else f"{self.first} … {self.last}"


class Table:
    """The last `limit` rows, and how many there were."""

    def __init__(self, limit: int) -> None:
        self.rows: deque[Row] = deque(maxlen=limit)
        self.total = 0

    def add(self, record: Record, cells: Sequence[object]) -> Row:
        """Append a row; the cells are made safe here."""
        moment = show_time(record.get("timestamp"))
        row = Row([md(cell) for cell in cells], moment, moment)
        self.rows.append(row)
        self.total += 1
        return row

    def left_out(self) -> int:
        """Rows that are no longer kept."""
        return self.total - len(self.rows)


class Repeats:
    """Lets a record that says the same as the host's one before grow that row instead of adding one."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[object, Row]] = {}

    def grow(self, host: str, key: object, record: Record) -> bool:
        """Count the record in the host's open row when the key is the same; False when it is not."""
        opened = self._open.get(host)
        if opened is None or opened[0] != key:
            return False
        opened[1].count += 1
        opened[1].last = show_time(record.get("timestamp"))
        return True

    def open(self, host: str, key: object, row: Row) -> None:
        """Remember the row that equal records of this host belong to."""
        if host in self._open or len(self._open) < MAX_NAMES:
            self._open[host] = (key, row)

    def close(self, host: str) -> None:
        """Something else happened on this host."""
        self._open.pop(host, None)


@dataclass
class Bucket:
    """Status readings of one interval."""

    count: int = 0
    rates: int = 0
    rate_sum: float = 0.0
    error_rate: float | None = None
    p99: float | None = None
    mode: str = ""
    chaos: str = ""

    def merge(self, later: Bucket) -> None:
        """Take in the interval that follows."""
        self.count += later.count
        self.rates += later.rates
        self.rate_sum += later.rate_sum
        self.error_rate = _worst(self.error_rate, later.error_rate)
        self.p99 = _worst(self.p99, later.p99)
        self.mode = later.mode or self.mode
        # Chaos at any time in the interval explains its figures.
        self.chaos = later.chaos if later.chaos not in ("", "none") else self.chaos or later.chaos


def _worst(left: float | None, right: float | None) -> float | None:
    known = [value for value in (left, right) if value is not None]
    return max(known) if known else None


class Series:
    """Readings of one host over time in at most `limit` intervals, which get wider as time goes on."""

    def __init__(self, limit: int = METRIC_ROWS_PER_HOST) -> None:
        self.limit = limit
        self.width = 60.0
        self.buckets: dict[int, Bucket] = {}

    def add(self, when: float, reading: Bucket) -> None:
        """Count one reading, `when` in Unix seconds."""
        self.buckets.setdefault(int(when // self.width), Bucket()).merge(reading)
        self.shrink(self.limit)

    def shrink(self, limit: int) -> None:
        """Double the interval until there are at most `limit`."""
        while len(self.buckets) > max(1, limit):
            self.width *= 2
            merged: dict[int, Bucket] = {}
            for index in sorted(self.buckets):
                merged.setdefault(index // 2, Bucket()).merge(self.buckets[index])
            self.buckets = merged


@dataclass
class Delivery:
    """Figures on how changes get delivered; `key` is host and service."""

    changes: int = 0
    succeeded: int = 0
    failed: int = 0
    rolled_back: int = 0
    restore: deque[float] = field(default_factory=lambda: deque(maxlen=RESTORE_TIMES))
    _broken: dict[str, float] = field(default_factory=dict)
    _changed: dict[str, float] = field(default_factory=dict)

    def add(self, key: str, event: str, when: float) -> None:
        """Count an event; those that are no change are passed over."""
        if event in ("deploy", "promote"):
            self.changes += 1
            self.succeeded += 1
            self._restored(self._broken.pop(key, None), when)
            self._changed[key] = when
        elif event in ("deploy_failed", "promote_failed"):
            self.changes += 1
            self.failed += 1
            self._broken.setdefault(key, when)
        elif event == "rollback_failed":
            self._broken.setdefault(key, when)
        elif event == "rollback":
            since = self._broken.pop(key, None)
            # After a failed change the rollback belongs to that failure, which is counted already.
            self.rolled_back += since is None
            self._restored(since if since is not None else self._changed.pop(key, None), when)

    def _restored(self, since: float | None, when: float) -> None:
        if since is not None:
            self.restore.append(max(0.0, when - since))


@dataclass
class Host:
    """What is known of one host."""

    records: int = 0
    last_event: str = ""
    last_time: object = None
    releases: deque[list[str]] = field(default_factory=lambda: deque(maxlen=RELEASES_PER_HOST))
    releases_total: int = 0
    mode: str | None = None


class Audit:
    """Everything the report says, gathered record by record."""

    def __init__(self) -> None:
        self.records = 0
        self.first: float | None = None
        self.last: float | None = None
        self.runs = 0
        self.events: Counter[str] = Counter()
        self.services: Counter[str] = Counter()
        self.hosts: dict[str, Host] = {}
        self.torn = Table(TABLE_ROWS)
        self.timeline = Table(TIMELINE_ROWS)
        self.modes = Table(TABLE_ROWS)
        self.chaos = Table(TABLE_ROWS)
        self.violations = Table(TABLE_ROWS)
        self.exceptions = Table(TABLE_ROWS)
        self.decisions = Table(TABLE_ROWS)
        self.series: dict[str, Series] = {}
        self.delivery = Delivery()
        self._recent: OrderedDict[str, None] = OrderedDict()
        self._same_status = Repeats()
        self._same_violation = Repeats()

    def add(self, record: Record) -> None:
        """Count one record in; any shape of it is borne."""
        event, host = _name(record.get("event")), _name(record.get("host"))
        self.records += 1
        _count(self.events, event)
        if record.get("service") is not None:
            _count(self.services, _name(record["service"]))
        self._period(record)
        self._run(record)
        self._timeline(record, event, host)
        self._policies(record, event, host)
        if event == "chaos":
            self.chaos.add(record, [host, record.get("chaos"), _extras(record), record.get("actor")])
        if event == "status_scrape":
            self._metrics(record, host)
        if record.get("torn") is not None:
            self.torn.add(record, [record.get("torn"), record.get("seq")])
        self._host(record, event, host)
        when = seconds_of(record.get("timestamp"))
        if when is not None and record.get("changed") is not False:
            key = f"{host}\n{_name(record.get('service'))}"
            if len(self.hosts) < MAX_NAMES:
                self.delivery.add(key, event, when)

    def _period(self, record: Record) -> None:
        when = seconds_of(record.get("timestamp"))
        if when is not None:
            self.first = when if self.first is None else min(self.first, when)
            self.last = when if self.last is None else max(self.last, when)

    def _run(self, record: Record) -> None:
        run = _name(record.get("run_id"))
        if not run:
            return
        self.runs += run not in self._recent
        self._recent[run] = None
        self._recent.move_to_end(run)
        if len(self._recent) > RECENT_RUNS:
            self._recent.popitem(last=False)

    def _timeline(self, record: Record, event: str, host: str) -> None:
        scrape = event == "status_scrape"
        outcomes = tuple((domain, answer.get("outcome")) for domain, answer in _policies(record))
        key = repr((record.get("service"), record.get("mode"), record.get("version"), record.get("chaos"), outcomes))
        if scrape and self._same_status.grow(host, key, record):
            return
        cells = [event, host, record.get("service"), record.get("version"), record.get("mode"), record.get("actor")]
        row = self.timeline.add(record, [*cells, _what(record), show_figure(number(record.get("duration_s")), 1, " s")])
        if scrape:
            self._same_status.open(host, key, row)
        else:
            self._same_status.close(host)

    def _policies(self, record: Record, event: str, host: str) -> None:
        scrape = event == "status_scrape"
        bad = [(domain, answer) for domain, answer in _policies(record) if answer.get("outcome") != "allowed"]
        denied = [(domain, answer) for domain, answer in bad if answer.get("outcome") == "denied"]
        violations = bad if event.endswith("_blocked") else denied
        key = repr((event, [domain for domain, _answer in violations]))
        if violations:
            if not (scrape and self._same_violation.grow(host, key, record)):
                for domain, answer in violations:
                    cells = [event, host, domain, answer.get("outcome"), _reasons(answer), record.get("actor")]
                    row = self.violations.add(record, cells)
                    if scrape:
                        self._same_violation.open(host, key, row)
        elif event.endswith("_blocked"):
            self.violations.add(record, [event, host, None, "denied", record.get("reason"), record.get("actor")])
        if not (scrape and violations):
            self._same_violation.close(host)
        unavailable = [domain for domain, answer in bad if answer.get("outcome") == "unavailable"]
        if event in ("policy_unavailable", "override", "lock_broken") or (unavailable and not scrape):
            cells = [event, host, unavailable, record.get("actor"), record.get("reason") or _what(record)]
            self.exceptions.add(record, cells)
        if not scrape:
            for domain, answer in _policies(record):
                self.decisions.add(
                    record,
                    [
                        event,
                        host,
                        domain,
                        answer.get("outcome"),
                        _reasons(answer),
                        _evidence(record) if domain == "canary" else None,
                        answer.get("checked"),
                        answer.get("thresholds"),
                        answer.get("decision_id"),
                    ],
                )

    def _metrics(self, record: Record, host: str) -> None:
        when = seconds_of(record.get("timestamp"))
        if when is None or (host not in self.series and len(self.series) >= MAX_NAMES):
            return
        rate = number(record.get("req_per_sec"))
        reading = Bucket(
            count=1,
            rates=int(rate is not None),
            rate_sum=rate or 0.0,
            error_rate=number(record.get("error_rate")),
            p99=number(record.get("p99_latency_ms")),
            mode=_words(record.get("mode")),
            chaos=_words(record.get("chaos")),
        )
        self.series.setdefault(host, Series()).add(when, reading)

    def _host(self, record: Record, event: str, host: str) -> None:
        if not host or (host not in self.hosts and len(self.hosts) >= MAX_NAMES):
            return
        known = self.hosts.setdefault(host, Host())
        known.records += 1
        known.last_event, known.last_time = event, record.get("timestamp")
        if event == "teardown":
            known.mode = None
        if event not in CHANGES:
            return
        cells = [record.get("release"), record.get("version"), record.get("mode"), event, record.get("actor")]
        if record.get("changed") is not False:
            known.releases.append([show_time(record.get("timestamp")), *(md(cell) for cell in cells)])
            known.releases_total += 1
        mode = record.get("mode")
        if mode is None:
            return
        if mode != known.mode and not (known.mode is None and event == "deploy"):
            cells = [host, known.mode, mode, event, record.get("version"), record.get("actor"), record.get("reason")]
            self.modes.add(record, cells)
        known.mode = _name(mode)


def _name(value: object) -> str:
    return "" if value is None else _words(value)[:CELL]


def _count(counter: Counter[str], name: str) -> None:
    counter[name if name in counter or len(counter) < MAX_NAMES else OTHER] += 1


def _policies(record: Record) -> list[tuple[str, Mapping[str, Any]]]:
    """Domain and answer of every decision a record holds."""
    policy = record.get("policy")
    if not isinstance(policy, Mapping):
        return []
    return [(str(domain), answer) for domain, answer in policy.items() if isinstance(answer, Mapping)]


def _reasons(answer: Mapping[str, Any]) -> object:
    return answer.get("reasons") or answer.get("detail")


def _evidence(record: Record) -> str | None:
    """What the decision on a service rests on: how many requests, and how many of them were probes."""
    found = record.get("evidence")
    if not isinstance(found, Mapping):
        return None
    try:
        return measurement.told(found)
    except (ArithmeticError, LookupError, TypeError, ValueError):  # not as this version writes it
        return None


def _extras(record: Record) -> dict[str, Any]:
    """What an event brought beyond the known fields."""
    known = {*history.FIELDS, *history.RESERVED, "changed"}
    return {key: value for key, value in record.items() if key not in known}


def _what(record: Record) -> str:
    """The point of a record in words: its reason, else what the policies said, else chaos."""
    parts = [_words(record["reason"])] if record.get("reason") else []
    if not parts:
        parts += [
            f"{domain}: {_words(_reasons(answer)) or _words(answer.get('outcome'))}"
            for domain, answer in _policies(record)
            if answer.get("outcome") != "allowed"
        ]
    if _words(record.get("chaos")) not in ("", "none") or record.get("event") == "chaos":
        parts.append(f"chaos: {_words(record.get('chaos'))}")
    return "; ".join(parts)


# -------------------------------------------------------------------------------------------- rendering


def render(audit: Audit, outcome: VerifyResult, name: str) -> str:
    """The report as Markdown. `name` is the history's file name."""
    sections: list[Iterator[str]] = [
        _head(audit, outcome, name),
        _summary(audit, outcome),
        _section(
            "Timeline",
            audit.timeline,
            ["Event", "Host", "Service", "Version", "Mode", "Actor", "What", "Took"],
            "Readings of the status that say the same are one row.",
            counted=True,
        ),
        _section("Mode changes", audit.modes, ["Host", "From", "To", "By", "Version", "Actor", "Reason"]),
        _section("Chaos injections", audit.chaos, ["Host", "Chaos", "Details", "Actor"]),
        _section(
            "Policy violations",
            audit.violations,
            ["Event", "Host", "Policy", "Outcome", "Reasons", "Actor"],
            "Changes that were blocked, and readings of the status in which a policy was not met.",
            counted=True,
        ),
        _section(
            "Policy unavailable, overrides, broken locks",
            audit.exceptions,
            ["Event", "Host", "Policies", "Actor", "Reason"],
        ),
        _section(
            "Decisions",
            audit.decisions,
            ["Event", "Host", "Policy", "Outcome", "Reasons", "Evidence", "Checked", "Thresholds", "Decision id"],
            "Every answer asked for a change. Readings of the status are left to the sections above.",
        ),
        _releases(audit),
        _metrics(audit),
        _delivery(audit),
    ]
    if audit.torn.total:
        sections.append(
            _section(
                "Lines set aside",
                audit.torn,
                ["File", "Before record"],
                "A line cut short by a kill or a power cut is kept in a file of its own and is no record.",
            )
        )
    return "\n".join(line for section in sections for line in section) + "\n"


def verdict(outcome: VerifyResult, path: object) -> str:
    """One sentence on the chain, plain text."""
    name = Path(str(path)).name
    if outcome.ok:
        return f"{name} is whole: {outcome.records} records"
    more = f" ({outcome.bad_lines} wrong lines in all)" if outcome.bad_lines > 1 else ""
    return f"{name} is broken at line {outcome.first_bad_line}: {outcome.problem}{more}"


def _head(audit: Audit, outcome: VerifyResult, name: str) -> Iterator[str]:
    yield "# Audit report"
    yield ""
    if not outcome.ok:
        yield "> [!CAUTION]"
        yield f"> **The history is broken at line {outcome.first_bad_line}**: {md(outcome.problem)}."
        yield f"> Wrong lines: {outcome.bad_lines}. What follows is what the readable lines say; from that line on"
        yield "> it cannot be relied on."
        yield ""
    last = _EMPTY if audit.last is None else _clock(audit.last)
    yield f"Made from {md(name)} alone, as of its last record ({last}). All times are UTC."
    yield ""


def _summary(audit: Audit, outcome: VerifyResult) -> Iterator[str]:
    period = _EMPTY
    if audit.first is not None and audit.last is not None:
        period = f"{_clock(audit.first)} … {_clock(audit.last)} ({show_span(audit.last - audit.first)})"
    chain = "whole" if outcome.ok else f"broken at line {outcome.first_bad_line}: {md(outcome.problem)}"
    yield "## Summary"
    yield ""
    yield from table(
        ["What", "Value"],
        [
            ["Period", period],
            ["Records", str(audit.records)],
            ["Runs", str(audit.runs)],
            ["Services", md(sorted(audit.services))],
            ["Hosts", str(len(audit.hosts))],
            ["Chain", chain],
        ],
    )
    yield ""
    if audit.events:
        yield from table(["Event", "Count"], [[md(name), str(audit.events[name])] for name in sorted(audit.events)])
        yield ""
    if audit.hosts:
        yield from table(
            ["Host", "Records", "Last event", "At"],
            [
                [md(name), str(host.records), md(host.last_event), show_time(host.last_time)]
                for name, host in sorted(audit.hosts.items())
            ],
        )
        yield ""


def _section(title: str, data: Table, headers: Sequence[str], note: str = "", counted: bool = False) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    if not data.rows:
        yield "None."
        yield ""
        return
    if note:
        yield note
        yield ""
    if data.left_out():
        yield f"The last {len(data.rows)} of {data.total} rows; {data.left_out()} earlier ones are left out."
        yield ""
    extra = ["Times"] if counted else []
    yield from table(
        ["Time", *headers, *extra],
        ([row.time(), *row.cells, *([str(row.count)] if counted else [])] for row in data.rows),
    )
    yield ""


def _releases(audit: Audit) -> Iterator[str]:
    yield "## Releases per host"
    yield ""
    hosts = [(name, host) for name, host in sorted(audit.hosts.items()) if host.releases]
    if not hosts:
        yield "None."
        yield ""
        return
    left_out = sum(host.releases_total - len(host.releases) for _name, host in hosts)
    if left_out:
        yield f"The last {RELEASES_PER_HOST} of each host; {left_out} earlier ones are left out."
        yield ""
    yield from table(
        ["Host", "Time", "Release", "Version", "Mode", "By", "Actor"],
        ([md(name), *cells] for name, host in hosts for cells in host.releases),
    )
    yield ""


def _metrics(audit: Audit) -> Iterator[str]:
    yield "## Metrics over time"
    yield ""
    if not audit.series:
        yield "None."
        yield ""
        return
    yield "From the readings of the status. Request rate is the mean of an interval, error rate and P99 its worst."
    yield ""
    rows: list[list[str]] = []
    for name, series in sorted(audit.series.items()):
        series.shrink(max(1, min(METRIC_ROWS_PER_HOST, METRIC_ROWS // len(audit.series))))
        for index, bucket in sorted(series.buckets.items()):
            rate = bucket.rate_sum / bucket.rates if bucket.rates else None
            rows.append(
                [
                    _clock(index * series.width),
                    show_span(series.width),
                    md(name),
                    str(bucket.count),
                    show_figure(rate, 2),
                    show_share(bucket.error_rate),
                    show_figure(bucket.p99, 1),
                    md(bucket.mode),
                    md(bucket.chaos),
                ]
            )
    yield from table(
        ["From", "Interval", "Host", "Readings", "Requests/s", "Error rate", "P99 ms", "Mode", "Chaos"], rows
    )
    yield ""


def _delivery(audit: Audit) -> Iterator[str]:
    figures = audit.delivery
    span = 0.0 if audit.first is None or audit.last is None else audit.last - audit.first
    # A week is the least there is to divide by, or one deploy in a minute would be 10,000 a week.
    weeks = max(span / WEEK, 1.0)
    bad = figures.failed + figures.rolled_back
    rate = bad / figures.changes if figures.changes else None
    restore = statistics.median(figures.restore) if figures.restore else None
    yield "## Delivery figures"
    yield ""
    yield from table(
        ["Figure", "Value", "How it is computed"],
        [
            [
                "Deployment frequency",
                f"{figures.succeeded / weeks:.2f} a week",
                f"{figures.succeeded} deploys and promotes that went through, in {weeks:.2f} weeks "
                "(first to last record, one week at least)",
            ],
            [
                "Change failure rate",
                show_share(rate),
                f"({figures.failed} failed + {figures.rolled_back} rolled back) of {figures.changes} deploys and "
                "promotes that were begun; a blocked one never began, a rollback after a failed one is not "
                "counted again",
            ],
            [
                "Median time to restore",
                _EMPTY if restore is None else show_span(restore),
                f"{len(figures.restore)} times: from a failed change, or from the change a rollback takes back, to "
                "the next deploy, promote or rollback that went through on the same host",
            ],
        ],
    )


# ------------------------------------------------------------------------------------------------ files


def build(path: str | os.PathLike[str]) -> tuple[str, VerifyResult]:
    """Read the history once; return the report and what the check of the chain found.

    Raises FileNotFoundError when there is no history, HistoryError when it cannot be read.
    """
    audit = Audit()
    first: Line | None = None
    bad = 0
    for line in history.scan(path):
        if line.problem is not None:
            bad += 1
            first = first or line
        if line.record is not None:
            audit.add(line.record)
    outcome = history.verify_result(audit.records, first, bad)
    return render(audit, outcome, Path(path).name), outcome


def current(path: Path) -> str | None:
    """The report that is there, None when there is none. Raises HistoryError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HistoryError(f"cannot read the report {path}: {error.strerror or error}") from error


def write(path: Path, text: str) -> None:
    """Put the report in place whole or not at all. Raises HistoryError."""
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
            os.fchmod(out.fileno(), 0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise HistoryError(
            f"cannot write the report {path}: {error.strerror or error}. Free space there or give another path"
        ) from error
