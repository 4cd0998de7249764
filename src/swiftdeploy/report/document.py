"""What the report says, in which order, before it is Markdown or HTML: made from this, both say the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from swiftdeploy.history import VerifyResult
from swiftdeploy.report import delivery
from swiftdeploy.report.gather import RELEASES_PER_HOST, Audit, Cell, Rows
from swiftdeploy.report.series import CHARTS, TABLE_POINTS
from swiftdeploy.report.words import EMPTY, clock, count, figure, line, share, span, time_of

TITLE = "Audit report"
METRIC_ROWS = 600
EXPLAIN = "ansible-playbook audit.yml -e decision=ID"


@dataclass(frozen=True)
class Column:
    """A column; `kind` says how its cells are set.

    It is text, prose (sentences), number, time, state (an event or an outcome), code or figures.
    """

    name: str
    kind: str = "text"


@dataclass(frozen=True)
class Grid:
    """A table of plain text."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Command:
    """A command line to copy, and what it does (the words after it)."""

    line: str
    does: str


@dataclass(frozen=True)
class Charts:
    """Where the charts go in the HTML."""


Part = str | Grid | Command | Charts


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    parts: Sequence[Part]

    @property
    def slug(self) -> str:
        """Its anchor."""
        return "-".join("".join(letter if letter.isalnum() else " " for letter in self.title.lower()).split())


@dataclass(frozen=True)
class Document:
    """A whole report. `wrong` are sentences on a broken chain, none where it is whole; `notes` what else there is."""

    name: str
    services: str
    period: str
    as_of: str
    shown: str
    verdict: str
    wrong: Sequence[str]
    notes: Sequence[str]
    figures: Sequence[tuple[str, str]]
    sections: Sequence[Section] = field(default_factory=list)


_PROSE = ("What", "Reason", "Reasons", "Details", "Evidence", "How it is computed")


def _text(*names: str) -> list[Column]:
    return [Column(name, "prose" if name in _PROSE else "text") for name in names]


TIME, EVENT, OUTCOME = Column("Time", "time"), Column("Event", "state"), Column("Outcome", "state")
TIMES = Column("Times", "number")
MODE_CHANGES = _text("Host", "From", "To", "By", "Version", "Actor", "Reason")


def make(audit: Audit, outcome: VerifyResult, name: str, notes: Sequence[str] = ()) -> Document:
    """The report of what was gathered. `name` is the history's file name, `notes` what the check could not know."""
    first, last = audit.period()
    period = EMPTY
    if first is not None and last is not None:
        period = f"{clock(first)} … {clock(last)} ({span(last - first)})"
    figures = audit.delivery.rows(first, last)
    return Document(
        name=line(name),
        services=line(sorted(audit.services)) or EMPTY,
        period=period,
        as_of=audit.as_of() or EMPTY,
        shown=shown(audit),
        verdict=_verdict(outcome),
        wrong=_wrong(outcome),
        notes=[line(note) for note in notes],
        figures=[(title, value) for title, value, _how in figures],
        sections=list(_sections(audit, outcome, period, figures)),
    )


def shown(audit: Audit) -> str:
    """Which records are shown, where not all are: the filter, how many of how many, and what may be wrong with it."""
    if not audit.choice:
        return ""
    told = f"{line(audit.choice.told())}: shows {audit.shown} of {count(audit.records, 'record')}"
    host = audit.choice.host
    if audit.shown == 0 and host is not None and not any(known.records for known in audit.hosts.values()):
        names = sorted({known.name for known in audit.hosts.values()})
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        told += f"; the history has the hosts {line(', '.join(names[:10]))}{more}" if names else ""
    return told


def _verdict(outcome: VerifyResult) -> str:
    if outcome.ok:
        return f"whole, every line checked: {count(outcome.records, 'record')}"
    return f"broken at line {outcome.first_bad_line}: {line(outcome.problem)}"


def _wrong(outcome: VerifyResult) -> list[str]:
    if outcome.ok:
        return []
    return [
        f"The history is broken at line {outcome.first_bad_line}: {line(outcome.problem)}.",
        f"Wrong lines: {outcome.bad_lines}.",
        "What follows is what the readable lines say; from that line on it cannot be relied on.",
    ]


def _sections(
    audit: Audit, outcome: VerifyResult, period: str, figures: Sequence[tuple[str, str, str]]
) -> Iterator[Section]:
    yield _summary(audit, outcome, period)
    yield Section(
        "Delivery figures",
        [
            f"As DORA defines them ({delivery.SOURCE}), from these records alone.",
            Grid(
                "Delivery figures",
                [*_text("Figure"), Column("Value", "number"), *_text("How it is computed")],
                figures,
            ),
        ],
    )
    yield _metrics(audit)
    yield _section(
        "Timeline",
        audit.timeline,
        [EVENT, *_text("Host", "Service", "Version", "Mode", "Actor", "What"), Column("Took", "number")],
        "Readings of the status that say the same are one row.",
        counted=True,
    )
    yield _section("Mode changes", audit.modes, MODE_CHANGES)
    yield _section("Chaos injections", audit.chaos, _text("Host", "Chaos", "Reason", "Details", "Actor"))
    yield _section(
        "Policy violations",
        audit.violations,
        [EVENT, *_text("Host", "Policy"), OUTCOME, *_text("Reasons", "Actor")],
        "Changes that were blocked, and readings of the status in which a policy was not met.",
        counted=True,
    )
    yield _section(
        "Policy unavailable, overrides, broken locks",
        audit.exceptions,
        [EVENT, *_text("Host", "Policies", "Actor", "Reason")],
    )
    yield _section(
        "Interrupted runs",
        audit.interrupted,
        [
            *(EVENT, *_text("Host", "Service", "Version"), Column("Begun", "time"), Column("Last sign", "time")),
            *_text("Reason", "Actor"),
        ],
        "Begun and never ended: killed, or the controller went away. The first time is that of the record, which a "
        "later run makes. An interrupted deploy or promote counts as a failed change.",
    )
    yield _decisions(audit)
    yield _releases(audit)
    yield _section(
        "Lines set aside",
        audit.torn,
        [Column("File", "code"), Column("Before record", "number")],
        "A line cut short by a kill or a power cut is kept in a file of its own and is no record.",
    )


def _summary(audit: Audit, outcome: VerifyResult, period: str) -> Section:
    facts = [
        ["Period", period],
        ["Records", str(audit.records)],
        *([["Shown", shown(audit)]] if audit.choice else []),
        ["Runs", str(audit.runs)],
        ["Readings of the status", str(audit.readings)],
        ["Services", line(sorted(audit.services)) or EMPTY],
        ["Hosts", str(len({host.name for host in audit.hosts.values() if host.records}))],
        ["Chain", "whole" if outcome.ok else _verdict(outcome)],
        *([["Last line", f"{outcome.last_seq}, hash {outcome.last_hash}"]] if outcome.last_seq is not None else []),
    ]
    parts: list[Part] = [Grid("What this report is made from", _text("What", "Value"), facts)]
    if audit.events:
        rows = [[line(name), str(audit.events[name])] for name in sorted(audit.events)]
        parts.append(Grid("Events", [EVENT, Column("Count", "number")], rows))
    hosts = [
        [line(name), str(host.records), line(host.last_event), time_of(host.last_time)]
        for name, host in sorted(audit.hosts.items())
        if host.records
    ]
    if hosts:
        columns = [Column("Host"), Column("Records", "number"), Column("Last event", "state"), Column("At", "time")]
        parts.append(Grid("Hosts", columns, hosts))
    return Section("Summary", parts)


def _left_out(data: Rows) -> list[str]:
    if not data.left_out():
        return []
    return [f"The last {len(data.rows)} of {data.total} rows; {data.left_out()} earlier ones are left out."]


def _section(title: str, data: Rows, columns: Sequence[Column], note: str = "", counted: bool = False) -> Section:
    if not data.rows:
        return Section(title, ["None."])
    rows = [[row.time(), *row.cells, *([str(row.count)] if counted else [])] for row in data.rows]
    grid = Grid(title, [TIME, *columns, *([TIMES] if counted else [])], rows)
    return Section(title, [*([note] if note else []), *_left_out(data), grid])


def _decisions(audit: Audit) -> Section:
    columns = [EVENT, *_text("Host", "Policy"), OUTCOME, *_text("Reasons"), Column("Figures and limits", "figures")]
    columns += [Column("Decision id", "code"), *_text("Evidence", "Thresholds")]
    section = _section(
        "Decisions",
        audit.decisions,
        columns,
        "Every answer asked for a change, each figure beside the limit that it was held against. Readings of the "
        "status are left to the sections above.",
    )
    if not audit.decisions.rows:
        return section
    how = Command(EXPLAIN, "explains one of them: what was asked, against which limits, and how to decide it again")
    note, *rest = section.parts
    return Section(section.title, [note, how, *rest])


def _releases(audit: Audit) -> Section:
    title = "Releases per host"
    hosts = [(name, host) for name, host in sorted(audit.hosts.items()) if host.releases]
    if not hosts:
        return Section(title, ["None."])
    left_out = sum(host.releases_total - len(host.releases) for _name, host in hosts)
    notes = [f"The last {RELEASES_PER_HOST} of each host; {left_out} earlier ones are left out."] if left_out else []
    columns = [Column("Host"), TIME, Column("Release", "code"), *_text("Version", "Mode"), Column("By", "state")]
    rows = [[line(name), *cells] for name, host in hosts for cells in host.releases]
    return Section(title, [*notes, Grid(title, [*columns, Column("Actor")], rows)])


def _metrics(audit: Audit) -> Section:
    title = "Metrics over time"
    if not audit.series:
        return Section(title, ["None: no reading of the status and no decision with figures is among these records."])
    parts: list[Part] = [
        "From the readings of the status and the figures that promotions rest on. Request rate is the mean of an "
        "interval, error rate and P99 its worst.",
        Charts(),
    ]
    if len(audit.series) > CHARTS:
        parts.append(
            f"Charts are drawn of the first {CHARTS} hosts by name; {len(audit.series) - CHARTS} more are in the table "
            "alone. -e host=NAME draws others."
        )
    rows: list[list[Cell]] = []
    for name, whole in sorted(audit.series.items()):
        series = whole.shrunk(max(1, min(TABLE_POINTS, METRIC_ROWS // len(audit.series))))
        for index, bucket in sorted(series.buckets.items()):
            rows.append(
                [
                    clock(index * series.width),
                    span(series.width),
                    line(name),
                    str(bucket.count),
                    figure(bucket.rate, 2),
                    share(bucket.error_rate),
                    figure(bucket.p99, 1),
                    line(bucket.mode),
                    line(bucket.chaos),
                ]
            )
    columns = [Column("From", "time"), Column("Interval", "number"), Column("Host")]
    columns += [Column(one, "number") for one in ("Readings", "Requests/s", "Error rate", "P99 ms")]
    return Section(title, [*parts, Grid(title, [*columns, *_text("Mode", "Chaos")], rows)])
