"""How many requests a slot is working on, asked of the slot itself before it is stopped.

Of its metrics only one gauge is read, with a narrow grammar of its own: the Prometheus parser lives on the controller,
hosts have the standard library alone, and the question is asked many times a second. Whatever does not fit that
grammar to the letter counts as not told, so a misread page never passes for an idle slot.

The gauge must not count its own scrape (that of the bundled service does not). A request counts until the service has
made its answer; the sending of the last bytes is the server's own, orderly stop.
"""

from __future__ import annotations

import re
import time
from typing import Any, Dict, Optional

from .http import Answer, FetchError, fetch
from .scrape import ACCEPT

METRIC = "http_requests_in_progress"
MAX_BODY = 4 * 1024 * 1024
# Seconds for one question: a slot whose workers are all busy answers when one of them is free.
QUESTION = 2.0
CONTENT_TYPES = ("", "text/plain", "application/openmetrics-text")

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_LABEL = rf"(?:[a-zA-Z_][a-zA-Z0-9_]*|{_QUOTED})[ \t]*=[ \t]*{_QUOTED}"
# Nowhere two runs of blanks side by side: on a line of 400,000 of them that would take hours.
_LABELS = rf"\{{[ \t]*(?:{_LABEL}[ \t]*(?:,[ \t]*{_LABEL}[ \t]*)*(?:,[ \t]*)?)?\}}"
_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
# After the name: labels, the value, and a time stamp that does not matter. NaN and Inf are no count.
_SAMPLE = re.compile(rf"(?:{_LABELS}[ \t]*|[ \t]+)(?P<value>{_NUMBER})(?:[ \t]+{_NUMBER})?[ \t]*")
_TYPE = re.compile(r"#[ \t]+TYPE[ \t]+(?P<name>\S+)[ \t]+(?P<kind>\S+)[ \t]*")


def read_gauge(text: str, metric: str) -> Optional[int]:
    """The sum of the samples of the gauge ``metric`` in a Prometheus or OpenMetrics text. Pure.

    None when there is no such gauge, or when what is there is no count: another type, NaN, a fraction, a negative sum,
    a line that is no sample.
    """
    total = 0.0
    told = False
    for line in text.split("\n"):
        typed = _TYPE.fullmatch(line) if line.startswith("#") else None
        if typed is not None and typed["name"] == metric:
            if typed["kind"] not in ("gauge", "untyped", "unknown"):
                return None
            told = True
        if not line.startswith(metric) or line[len(metric) : len(metric) + 1] not in ("{", " ", "\t"):
            continue
        sample = _SAMPLE.fullmatch(line, len(metric))
        if sample is None:
            return None
        total += float(sample["value"])
        told = True
    return int(total) if told and total >= 0 and total.is_integer() else None


def _count(answer: Answer, metric: str) -> Optional[int]:
    """What an answer tells, None when it is no page of metrics."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if answer.status != 200 or kind not in CONTENT_TYPES:
        return None
    framed = "content-length" in answer.headers or "transfer-encoding" in answer.headers
    if not framed and not answer.body.endswith(b"\n"):
        return None  # ended by closing alone: a cut number would still be a number
    try:
        return read_gauge(answer.body.decode("utf-8"), metric)
    except UnicodeDecodeError:
        return None


def _ask(address: str, path: str, metric: str, timeout: float) -> Optional[int]:
    """As in_progress, but raises FetchError where there is no answer."""
    headers = {"Accept": ACCEPT, "User-Agent": "swiftdeploy"}
    return _count(fetch(f"http://{address}{path}", timeout, headers, MAX_BODY), metric)


def in_progress(address: str, path: str, metric: str = METRIC, timeout: float = QUESTION) -> Optional[int]:
    """How many requests the slot at ``address`` (host:port) is working on, by its gauge ``metric`` at ``path``.

    None when it does not tell: no answer within ``timeout`` seconds, no page of metrics, no such gauge.
    """
    try:
        return _ask(address, path, metric, timeout)
    except FetchError:
        return None


def wait_idle(address: str, path: str, metric: str, deadline_monotonic: float, pause: float = 0.05) -> Dict[str, Any]:
    """Wait until the slot works on nothing: {"idle": bool or None, "left": requests or None}.

    Asks every ``pause`` seconds and at least once. ``idle`` is None as soon as the slot does not tell; one that is too
    busy to answer in time is asked again until the deadline, and is not idle if it ever told that it was not.
    """
    left: Optional[int] = None
    while True:
        remaining = deadline_monotonic - time.monotonic()
        try:
            left = _ask(address, path, metric, min(QUESTION, max(remaining, pause)))
            if left is None:
                return {"idle": None, "left": None}
        except FetchError as problem:
            if problem.cause != "timeout":
                return {"idle": None, "left": None}
        if left == 0:
            return {"idle": True, "left": 0}
        if time.monotonic() + pause >= deadline_monotonic:
            return {"idle": None if left is None else False, "left": left}
        time.sleep(pause)
