"""Everything the report says, gathered record by record in one pass with bounded memory.

Tables keep their last rows and say how many are left out, readings are merged into ever wider intervals. Cells are
plain text: what is markup in Markdown or HTML is escaped where those are made. State that later records need (the mode
of a host, a change that failed) is kept of every record; rows and counts are of the records that are shown.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from swiftdeploy import history, measurement
from swiftdeploy.history import Record
from swiftdeploy.report.choice import Choice
from swiftdeploy.report.delivery import Delivery
from swiftdeploy.report.series import CHART_POINTS, CHARTS, TABLE_POINTS, Series, Track
from swiftdeploy.report.words import CELL, clock, figure, line, number, seconds_of, time_of, words

TIMELINE_ROWS = 1000
TABLE_ROWS = 200
RELEASES_PER_HOST = 20
# Runs are counted by ids not seen among the last so many; the lines of a run stand near each other.
RECENT_RUNS = 4096
MAX_NAMES = 1000
FIGURES = 60
OTHER = "(others)"
CHANGES = frozenset(("deploy", "promote", "rollback"))
# Records whose figures are readings of the service.
READ = frozenset(("status_scrape", "deploy", "promote", "deploy_blocked", "promote_blocked", "promote_failed"))
# Keys of thresholds that are about them.
_ABOUT_LIMITS = ("environment", "source")
_KNOWN = frozenset((*history.FIELDS, *history.RESERVED, "changed"))


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that a policy looked at, and the limit it was held against (empty: none)."""

    name: str
    value: str
    limit: str


Cell = str | tuple[Figure, ...]


@dataclass(slots=True)
class Row:
    """One row that may stand for several records that say the same; times are as the records have them."""

    cells: list[Cell]
    first: object
    last: object
    count: int = 1

    def time(self) -> str:
        """When, and until when if there were several."""
        return time_of(self.first) if self.count == 1 else f"{time_of(self.first)} … {time_of(self.last)}"


class Rows:
    """The last `limit` rows, and how many there were."""

    def __init__(self, limit: int) -> None:
        self.rows: deque[Row] = deque(maxlen=limit)
        self.total = 0

    def add(self, record: Record, cells: Sequence[object]) -> Row:
        """Append a row; figures stay figures, all else becomes text."""
        moment = _stamp(record.get("timestamp"))
        row = Row([_cell(cell) for cell in cells], moment, moment)
        self.rows.append(row)
        self.total += 1
        return row

    def left_out(self) -> int:
        """Rows that are no longer kept."""
        return self.total - len(self.rows)


def _cell(value: object) -> Cell:
    if isinstance(value, tuple) and value and isinstance(value[0], Figure):
        return value
    return line(value)


def _stamp(timestamp: object) -> object:
    # What is no time is shown cut; it must not be kept whole.
    return timestamp if isinstance(timestamp, str) and len(timestamp) < CELL else line(timestamp)


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
        opened[1].last = _stamp(record.get("timestamp"))
        return True

    def open(self, host: str, key: object, row: Row) -> None:
        """Remember the row that equal records of this host belong to."""
        if host in self._open or len(self._open) < MAX_NAMES:
            self._open[host] = (key, row)

    def close(self, host: str) -> None:
        """Something else happened on this host."""
        self._open.pop(host, None)


@dataclass(slots=True)
class Host:
    """What is known of one service on one host; records and releases are those shown."""

    name: str
    records: int = 0
    last_event: str = ""
    last_time: object = None
    releases: deque[list[str]] = field(default_factory=lambda: deque(maxlen=RELEASES_PER_HOST))
    releases_total: int = 0
    mode: str | None = None


Answers = list[tuple[str, Mapping[str, Any]]]


class Audit:
    """The facts of a report. `add` takes every record of a history, in order."""

    def __init__(self, choice: Choice | None = None) -> None:
        self.choice = choice or Choice()
        self.records = 0
        self.shown = 0
        self.first: float | None = None
        self.last: float | None = None
        # Of all records, shown or not.
        self.all_first: float | None = None
        self.all_last: float | None = None
        # Of operations: each reading of the status may be a run of its own.
        self.runs = 0
        self.readings = 0
        self.events: Counter[str] = Counter()
        self.services: Counter[str] = Counter()
        # By host, and by host and service where a host has several: see `_place`. So are tracks and series.
        self.hosts: dict[str, Host] = {}
        self.tracks: dict[str, Track] = {}
        self.torn = Rows(TABLE_ROWS)
        self.timeline = Rows(TIMELINE_ROWS)
        self.modes = Rows(TABLE_ROWS)
        self.chaos = Rows(TABLE_ROWS)
        self.violations = Rows(TABLE_ROWS)
        self.exceptions = Rows(TABLE_ROWS)
        self.interrupted = Rows(TABLE_ROWS)
        self.decisions = Rows(TABLE_ROWS)
        self.series: dict[str, Series] = {}
        self.delivery = Delivery()
        self._all = not self.choice
        self._recent: OrderedDict[str, None] = OrderedDict()
        self._places: dict[str, dict[str, str]] = {}
        self._same_status = Repeats()
        self._same_violation = Repeats()

    def add(self, record: Record) -> None:
        """Count one record in; any shape of it is borne."""
        event, host = _name(record.get("event")), _name(record.get("host"))
        when = seconds_of(record.get("timestamp"))
        shown = self._all or self.choice.shows(host, when)
        answers = _answers(record)
        self.records += 1
        if when is not None:
            self.all_first = when if self.all_first is None or when < self.all_first else self.all_first
            self.all_last = when if self.all_last is None or when > self.all_last else self.all_last
        if record.get("torn") is not None:
            # Belongs to the file, not to a host or a time.
            self.torn.add(record, [record["torn"], record.get("seq")])
        place = self._place(host, _name(record.get("service")))
        self._host(record, event, (host, place), shown)
        if when is not None:
            self._followed(record, (event, host, place), when, answers, shown)
        if shown:
            self._shown(record, event, (host, place), when, answers)

    def _place(self, host: str, service: str) -> str:
        """What the records of a service on a host go by: the host, with the service where the host has several."""
        known = self._places.get(host)
        if known is None:
            if not host or not service or len(self._places) >= MAX_NAMES:
                return host
            known = self._places[host] = {service: host}
        if service not in known and service and len(known) < MAX_NAMES:
            if len(known) == 1:
                (first,) = known
                known[first] = f"{host} ({first})"
                for table in cast("tuple[dict[str, object], ...]", (self.hosts, self.tracks, self.series)):
                    if host in table:
                        table[known[first]] = table.pop(host)
            known[service] = f"{host} ({service})"
        return known.get(service) or next(iter(known.values()))

    def _shown(self, record: Record, event: str, where: tuple[str, str], when: float | None, answers: Answers) -> None:
        host, place = where
        self.shown += 1
        _count(self.events, f"{event}, nothing changed" if record.get("changed") is False else event)
        service = record.get("service")
        if service is not None:
            _count(self.services, _name(service))
        if when is not None:
            self.first = when if self.first is None or when < self.first else self.first
            self.last = when if self.last is None or when > self.last else self.last
            if event in READ and host:
                self._reading(record, event, place, when)
        scrape = event == "status_scrape"
        if scrape:
            self.readings += 1
        else:
            self._run(record)
        outcomes = [(domain, answer.get("outcome")) for domain, answer in answers]
        self._timeline(record, event, where, outcomes if scrape else None, answers)
        self._judged(record, event, where, answers, scrape)
        if not scrape:
            self._special(record, event, host)

    def _special(self, record: Record, event: str, host: str) -> None:
        actor = record.get("actor")
        if event == "chaos":
            self.chaos.add(record, [host, record.get("chaos"), record.get("reason"), _extras(record), actor])
        elif event.endswith("_interrupted"):
            begun, last = (moment and time_of(moment) for moment in (record.get("since"), record.get("last_sign")))
            cells = [event, host, record.get("service"), record.get("version"), begun, last]
            self.interrupted.add(record, [*cells, record.get("reason"), actor])

    def _run(self, record: Record) -> None:
        run = _name(record.get("run_id"))
        if not run:
            return
        if run in self._recent:
            self._recent.move_to_end(run)
            return
        self.runs += 1
        self._recent[run] = None
        if len(self._recent) > RECENT_RUNS:
            self._recent.popitem(last=False)

    def _timeline(
        self, record: Record, event: str, where: tuple[str, str], outcomes: Sequence[object] | None, answers: Answers
    ) -> None:
        host, place = where
        key: object = None
        if outcomes is not None:
            # Compared, never hashed: any of these may be a list.
            key = (record.get("service"), record.get("mode"), record.get("version"), record.get("chaos"), outcomes)
            if self._same_status.grow(place, key, record):
                return
        cells = [event, host, record.get("service"), record.get("version"), record.get("mode"), record.get("actor")]
        took = number(record.get("duration_s"))
        row = self.timeline.add(
            record, [*cells, _what(record, answers), None if took is None else figure(took, 1, " s")]
        )
        if outcomes is not None:
            self._same_status.open(place, key, row)
        else:
            self._same_status.close(place)

    def _judged(self, record: Record, event: str, where: tuple[str, str], answers: Answers, scrape: bool) -> None:
        host, place = where
        bad = [(domain, answer) for domain, answer in answers if answer.get("outcome") != "allowed"]
        violations = bad if event.endswith("_blocked") else [one for one in bad if one[1].get("outcome") == "denied"]
        if violations:
            key = (event, [domain for domain, _answer in violations])
            if not (scrape and self._same_violation.grow(place, key, record)):
                for domain, answer in violations:
                    cells = [event, host, domain, answer.get("outcome"), _reasons(answer), record.get("actor")]
                    row = self.violations.add(record, cells)
                    if scrape:
                        self._same_violation.open(place, key, row)
        elif event.endswith("_blocked"):
            self.violations.add(record, [event, host, None, "denied", record.get("reason"), record.get("actor")])
        if not (scrape and violations):
            self._same_violation.close(place)
        if scrape:
            return
        unavailable = [domain for domain, answer in bad if answer.get("outcome") == "unavailable"]
        if unavailable or event in ("policy_unavailable", "override", "lock_broken"):
            what = record.get("reason") or _what(record, answers)
            self.exceptions.add(record, [event, host, unavailable, record.get("actor"), what])
        for domain, answer in answers:
            told = _evidence(record) if domain == "canary" else None
            cells = [event, host, domain, answer.get("outcome"), _reasons(answer), _figures(answer)]
            self.decisions.add(record, [*cells, answer.get("decision_id"), told, _entry(answer)])

    def _reading(self, record: Record, event: str, place: str, when: float) -> None:
        if event != "status_scrape" and all(
            number(record.get(name)) is None for name in ("req_per_sec", "error_rate", "p99_latency_ms")
        ):
            return
        series = self.series.get(place)
        if series is None:
            if len(self.series) >= MAX_NAMES:
                return
            many = len(self.series) >= CHARTS
            if len(self.series) == CHARTS:
                for other in self.series.values():
                    other.limit = TABLE_POINTS
                    other.shrink(TABLE_POINTS)
            series = self.series[place] = Series(TABLE_POINTS if many else CHART_POINTS)
        series.add(when, record)

    def _followed(
        self, record: Record, names: tuple[str, str, str], when: float, answers: Answers, shown: bool
    ) -> None:
        """What later records and the charts need, whether this one is shown or not; `names` are event, host, place."""
        event, host, place = names
        if record.get("changed") is not False:
            self.delivery.add((host, _name(record.get("service"))), event, when, record, shown)
        track = self.tracks.get(place)
        if track is None:
            if not host or len(self.tracks) >= MAX_NAMES:
                return
            track = self.tracks[place] = Track()
        for domain, answer in answers:
            if domain == "canary":
                track.judged(when, answer)
        track.happened(when, event, _name(record.get("chaos")), shown and record.get("changed") is not False)

    def _host(self, record: Record, event: str, where: tuple[str, str], shown: bool) -> None:
        host, place = where
        known = self.hosts.get(place)
        if known is None:
            if not host or len(self.hosts) >= MAX_NAMES:
                return
            known = self.hosts[place] = Host(host)
        if shown:
            known.records += 1
            known.last_event, known.last_time = event, record.get("timestamp")
        if event == "teardown":
            known.mode = None
        if event not in CHANGES:
            return
        mode = record.get("mode")
        if shown and record.get("changed") is not False:
            cells = [record.get("release"), record.get("version"), mode, event, record.get("actor")]
            known.releases.append([time_of(record.get("timestamp")), *(line(cell) for cell in cells)])
            known.releases_total += 1
        if mode is None:
            return
        mode = _name(mode)
        if shown and mode != known.mode and not (known.mode is None and event == "deploy"):
            cells = [place, known.mode, mode, event, record.get("version"), record.get("actor"), record.get("reason")]
            self.modes.add(record, cells)
        known.mode = mode

    def period(self) -> tuple[float | None, float | None]:
        """The ends of what is shown: those that were chosen, cut to what the history spans; Unix seconds."""
        if self.choice.since is None and self.choice.until is None:
            return self.first, self.last
        if self.all_first is None or self.all_last is None:
            return None, None
        first = self.all_first if self.choice.since is None else max(self.choice.since, self.all_first)
        last = self.all_last if self.choice.until is None else min(self.choice.until, self.all_last)
        return (first, last) if first <= last else (None, None)

    def as_of(self) -> str | None:
        """Time of the last record of all."""
        return None if self.all_last is None else clock(self.all_last)


def _name(value: object) -> str:
    return words(value)[:CELL]


def _count(counter: Counter[str], name: str) -> None:
    counter[name if name in counter or len(counter) < MAX_NAMES else OTHER] += 1


def _answers(record: Record) -> Answers:
    """Domain and answer of every decision a record holds."""
    policy = record.get("policy")
    # What JSON holds is a dict; asking for any mapping would cost more than the rest of this.
    if not isinstance(policy, dict):
        return []
    return [(domain, answer) for domain, answer in policy.items() if isinstance(answer, dict)]


def _reasons(answer: Mapping[str, Any]) -> object:
    return answer.get("reasons") or answer.get("detail")


def _bounds(limit: object) -> str:
    """`max 500` of {"max": 500}; `limit 500` of 500."""
    if isinstance(limit, Mapping):
        return ", ".join(f"{key} {words(value)}" for key, value in limit.items())
    return f"limit {words(limit)}"


def _figures(answer: Mapping[str, Any]) -> tuple[Figure, ...] | None:
    """Each figure that was looked at beside its limit; those with a limit first."""
    checked, limits = answer.get("checked"), answer.get("thresholds")
    if not isinstance(checked, Mapping):
        return None
    limits = limits if isinstance(limits, Mapping) else {}
    rows = [
        Figure(line(name, 80), line(value, 120), line(_bounds(limits[name]), 80) if name in limits else "")
        for name, value in checked.items()
        if value is not None or name in limits
    ]
    rows += [
        Figure(line(name, 80), "", line(_bounds(limit), 80))
        for name, limit in limits.items()
        if name not in checked and name not in _ABOUT_LIMITS
    ]
    return tuple(sorted(rows, key=lambda row: not row.limit)[:FIGURES]) or None


def _entry(answer: Mapping[str, Any]) -> str | None:
    """Which entry of the thresholds was used."""
    limits = answer.get("thresholds")
    return words(limits.get("source")) if isinstance(limits, Mapping) else None


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
    return {key: value for key, value in record.items() if key not in _KNOWN}


def _what(record: Record, answers: Answers) -> str:
    """The point of a record in words: its reason, else what the policies said, else chaos."""
    reason, chaos = record.get("reason"), words(record.get("chaos"))
    parts = [words(reason)] if reason else []
    if not parts:
        parts += [
            f"{domain}: {words(_reasons(answer)) or words(answer.get('outcome'))}"
            for domain, answer in answers
            if answer.get("outcome") != "allowed"
        ]
    if chaos not in ("", "none") or record.get("event") == "chaos":
        parts.append(f"chaos: {chaos}")
    return "; ".join(parts)
