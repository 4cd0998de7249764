"""Values of records as plain text on one line. What is markup in a file is escaped where that file is made."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from swiftdeploy.untrusted import UNSAFE_ON_A_LINE

EMPTY = "–"  # noqa: RUF001 - a dash for "nothing" is what a table wants
CELL = 400
# Told by its size alone from here on.
LARGE = 1e15


def words(value: object) -> str:
    """A value of JSON in words; empty for null."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {words(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return "; ".join(words(item) for item in value)
    return str(value)


def line(value: object, limit: int = CELL) -> str:
    """A value as at most ``limit`` characters on one line that cannot act on a terminal; empty for nothing."""
    text = UNSAFE_ON_A_LINE.sub(" ", words(value)).strip()
    return text[: limit - 1] + "…" if len(text) > limit else text


def number(value: object) -> float | None:
    """A finite number, else None (true and false are none)."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    return None


def seconds_of(timestamp: object) -> float | None:
    """Unix seconds of a record's time, None when it is no time."""
    if not isinstance(timestamp, str):
        return None
    try:
        moment = datetime.fromisoformat(timestamp)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def clock(seconds: float) -> str:
    """`2026-11-21 03:55:00`, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def time_of(timestamp: object) -> str:
    """A record's time as `clock` shows it; one that is no time as it is."""
    seconds = seconds_of(timestamp)
    return (line(timestamp) or EMPTY) if seconds is None else clock(seconds)


def span(seconds: float) -> str:
    """A duration for a person: `42 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def figure(value: float | None, digits: int, unit: str = "") -> str:
    """A figure with its unit, a dash when it is not known."""
    if value is None:
        return EMPTY
    # Nobody reads three hundred digits.
    return f"{value:.{digits}f}{unit}" if abs(value) < LARGE else f"{value:.3g}{unit}"


def share(value: float | None) -> str:
    """A share of 0 to 1 in percent."""
    return figure(None if value is None else value * 100, 2, " %")


def count(number_of: int, one: str, several: str | None = None) -> str:
    """`1 record`, `2 records`."""
    return f"{number_of} {one if number_of == 1 else several or one + 's'}"
