"""Reading a service's page of metrics: Prometheus's text format, OpenMetrics, and their quoted UTF-8 names.

A reader of our own, because a stranger's page must not cost more than its length: each line is looked at once, from
left to right, and only lines of the families that are asked for are taken apart. A line of another family that cannot
be read loses nothing but itself. Everything else Prometheus reads too: types are not needed, so one that is not known
is none of our business.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_LINE = 16 * 1024
# Lines of a page, and series of the families that are asked for. More would take seconds to read.
MAX_LINES = 1_000_000
MAX_SERIES = 100_000

Labels = frozenset[tuple[str, str]]
Series = dict[Labels, float]

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
# Between two escapes there is no escape: one way to read a text, so no way back to try another.
_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_BARE = re.compile(_NAME)
_LABEL = re.compile(rf"[ \t]*({_NAME}|{_QUOTED})[ \t]*=[ \t]*({_QUOTED})[ \t]*([,}}])")
# A quoted name among the labels, which is the metric's own.
_OWN_NAME = re.compile(rf"[ \t]*({_QUOTED})[ \t]*([,}}])")
_END = re.compile(r"[ \t]*\}")
# The value; a time stamp and an exemplar may follow, which do not matter.
_VALUE = re.compile(r"[ \t]*([0-9A-Za-z.+-]+)(?:[ \t]+[0-9A-Za-z.+-]+)?[ \t]*(?:#.*)?\r?", re.DOTALL)
_COMMENT = re.compile(rf"#[ \t]+(?:TYPE|HELP|UNIT)[ \t]+({_NAME}|{_QUOTED})")
_ESCAPE = re.compile(r"\\(.)")


class EvidenceProblem(Exception):  # noqa: N818 - most are no error of ours, they are findings
    """A sample is no evidence. ``cause`` is one word for programs, ``detail`` says it to a person.

    Causes: not_prometheus, too_large, family_missing, bad_value, one_sample, clock, changed, no_proxy. A sample that
    could not be taken brings its own.
    """

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail


@dataclass(frozen=True)
class Scrape:
    """A parsed sample: when it was taken (unix seconds), the series by sample name, the families declared.

    A family that is declared without a series is one that has counted nothing yet. ``empty``: the page says nothing.
    """

    at: float
    series: Mapping[str, Series]
    families: frozenset[str]
    empty: bool = False

    def counter(self, name: str) -> Series | None:
        """The series of counter ``name``, with or without its _total; None when there is no such family."""
        bare = name.removesuffix("_total")
        for candidate in (name, f"{name}_total", bare):
            if candidate in self.series:
                return self.series[candidate]
        return {} if self.families & {name, bare, f"{name}_total"} else None

    def buckets(self, name: str) -> Series | None:
        """The bucket series of histogram ``name``; None when there is no such family."""
        if f"{name}_bucket" in self.series:
            return self.series[f"{name}_bucket"]
        if f"{name}_count" in self.series or name in self.series:
            return None  # a summary, or something else of that name
        return {} if name in self.families else None


class _Unreadable(Exception):  # noqa: N818 - a finding about one line
    """The line is no sample."""


def parse(sample: Mapping[str, Any], names: Iterable[str]) -> Scrape:
    """Read the series of ``names`` in ``sample``.

    ``sample``: {"slot", "at", "body", "content_type"} or {"slot", "at", "cause", "detail"}. A series that comes twice
    counts once, the first, as in Prometheus. Raises EvidenceProblem.
    """
    if sample.get("cause"):
        raise EvidenceProblem(str(sample["cause"]), str(sample.get("detail")))
    body, at = sample.get("body"), sample.get("at")
    if not isinstance(body, str) or not isinstance(at, (int, float)) or not math.isfinite(at):
        raise EvidenceProblem("not_prometheus", "the sample has no text or no time")
    if "openmetrics" in str(sample.get("content_type") or "").lower() and not body.rstrip().endswith("# EOF"):
        # Half the figures are worse than none.
        raise EvidenceProblem("not_prometheus", "the metrics were cut: their last line, # EOF, is missing")
    if body.count("\n") > MAX_LINES:
        raise EvidenceProblem("too_large", f"the metrics have more than {MAX_LINES} lines")
    page = _Page(frozenset(names))
    for number, line in enumerate(body.split("\n"), 1):
        if line and not line.isspace():
            page.add(number, line)
    if page.unread and not page.read:
        start = " ".join(body[:200].split())[:60]
        raise EvidenceProblem("not_prometheus", f"the metrics are no Prometheus text: they start with {start!r}")
    return Scrape(float(at), dict(page.series), frozenset(page.families), empty=not page.read)


class _Page:
    """What was read so far; ``read`` and ``unread`` are numbers of lines."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self._wanted = wanted
        self._count = 0
        self.series: dict[str, Series] = defaultdict(dict)
        self.families: set[str] = set()
        self.read = self.unread = 0

    def add(self, number: int, line: str) -> None:
        """Read one line. Raises EvidenceProblem where it is of a family that is wanted and is no sample."""
        if line.startswith("#"):
            typed = _COMMENT.match(line[:MAX_LINE])
            if typed:
                self.read += 1
                self.families.add(_plain(typed[1]))
            return
        name = _name(line)
        if name is None:
            self.unread += 1
            return
        self.read += 1
        if name not in self._wanted:
            return
        self._count += 1
        if self._count > MAX_SERIES:
            raise EvidenceProblem("too_large", f"the metrics have more than {MAX_SERIES} series of {name} and the like")
        try:
            labels, value = _sample(line)
        except _Unreadable as problem:
            shown = " ".join(line[:80].split())
            raise EvidenceProblem("not_prometheus", f"line {number} of the metrics {problem}: {shown!r}") from None
        self.series[name].setdefault(labels, value)


def _plain(name: str) -> str:
    return _ESCAPE.sub(_unescaped, name[1:-1]) if name.startswith('"') else name


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


def _name(line: str) -> str | None:
    """The name of the sample; None where there is none."""
    begin = line[:MAX_LINE].lstrip(" \t")
    bare = _BARE.match(begin)
    if bare:
        rest = begin[bare.end() : bare.end() + 1]
        return bare[0] if rest in ("{", " ", "\t") and rest else None
    if begin.startswith("{"):
        own = _OWN_NAME.match(begin, 1)
        return _plain(own[1]) if own else None
    return None


def _sample(line: str) -> tuple[Labels, float]:
    """Labels and value of a line of ours. Raises _Unreadable."""
    if len(line) > MAX_LINE:
        raise _Unreadable(f"has more than {MAX_LINE} characters")
    line = line.lstrip(" \t")
    bare = _BARE.match(line)
    position = bare.end() if bare else 0
    while position < len(line) and line[position] in " \t":
        position += 1
    labels: dict[str, str] = {}
    if line.startswith("{", position):
        labels, position = _labels(line, position + 1)
    number = _VALUE.fullmatch(line, position)
    if number is None:
        raise _Unreadable("is no sample")
    return frozenset(labels.items()), _number(number[1])


def _labels(line: str, position: int) -> tuple[dict[str, str], int]:
    """The labels from ``position`` on, and where the brace behind them ends. A label without a text is none."""
    labels: dict[str, str] = {}
    while True:
        end = _END.match(line, position)
        if end:
            return labels, end.end()
        own = _OWN_NAME.match(line, position)
        found = own or _LABEL.match(line, position)
        if found is None:
            raise _Unreadable("has labels that cannot be read")
        position = found.end()
        if own is None and found[2] != '""':
            labels.setdefault(_plain(found[1]), _plain(found[2]))
        if line[position - 1] == "}":
            return labels, position


def _number(text: str) -> float:
    try:
        return float.fromhex(text) if "x" in text.lower() else float(text)
    except OverflowError:
        return math.inf
    except ValueError:
        raise _Unreadable(f"has {text[:40]!r} for a value") from None
