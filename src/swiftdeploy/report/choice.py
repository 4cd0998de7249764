"""Which records a report shows: from when, until when, of which hosts.

A choice is about what is shown. The chain is checked over every line, and what is known from earlier records (the mode
of a host, a change that failed) is known all the same.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from swiftdeploy.report.words import CELL, clock
from swiftdeploy.untrusted import UNSAFE_ON_A_LINE

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?", re.ASCII)


class ChoiceError(Exception):
    """A filter cannot be understood; the message is for a person."""


@dataclass(frozen=True)
class Choice:
    """`since` and `until` in Unix seconds, both included; `host` a name or a shell pattern. None: all."""

    since: float | None = None
    until: float | None = None
    host: str | None = None

    def __bool__(self) -> bool:
        return self != Choice()

    def shows(self, host: str, when: float | None) -> bool:
        """Whether a record of this host (empty: none) and this time (None: none that can be read) is shown."""
        if self.since is not None and (when is None or when < self.since):
            return False
        if self.until is not None and (when is None or when > self.until):
            return False
        return self.host is None or fnmatch.fnmatchcase(host, self.host)

    def told(self) -> str:
        """The choice in words; empty where everything is shown."""
        parts = [f"since {clock(self.since)}"] if self.since is not None else []
        parts += [f"until {clock(self.until)}"] if self.until is not None else []
        parts += [f"host {self.host}"] if self.host is not None else []
        return ", ".join(parts)


def _moment(name: str, text: str, now: datetime, end: bool) -> float:
    wrong = ChoiceError(
        f"{name} is {text!r}; give a date (2026-11-20), a time (2026-11-20T14:30, UTC unless it names a zone), "
        "or how long ago (7d, 24h, 30m)"
    )
    try:
        ago = _AGO.fullmatch(text)
        if ago:
            return (now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).timestamp()
        if _DATE.fullmatch(text):
            day = datetime.fromisoformat(text).replace(tzinfo=UTC)
            # Records have milliseconds, so this is the last moment of the day.
            return (day + timedelta(days=1)).timestamp() - 0.001 if end else day.timestamp()
        if _MOMENT.fullmatch(text):
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise wrong from None
    raise wrong


def choose(since: str = "", until: str = "", host: str = "", now: datetime | None = None) -> Choice:
    """The choice that three words of a person mean; empty ones choose nothing.

    A date alone is its first moment for `since` and its last for `until`. How long ago counts back from `now`.
    Raises ChoiceError.
    """
    moment = now or datetime.now(UTC)
    first = _moment("since", since, moment, end=False) if since else None
    last = _moment("until", until, moment, end=True) if until else None
    if first is not None and last is not None and first > last:
        raise ChoiceError(f"since is {clock(first)}, which is after until, {clock(last)}: no record can be shown")
    if len(host) > CELL or UNSAFE_ON_A_LINE.search(host):
        raise ChoiceError(f"host is {host[:40]!r}; give the name of a host, or a pattern such as 'web*'")
    return Choice(first, last, host or None)
