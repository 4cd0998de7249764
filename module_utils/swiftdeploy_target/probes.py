"""Probes: requests of our own through nginx, so that a quiet service has evidence too.

Each is sent at its planned moment whether or not the ones before it were answered. Otherwise a slow service
would be asked less often, and would look better than it is.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict

from .scrape import FetchError, fetch

HEADER = "X-SwiftDeploy-Probe"
MAX_BODY = 8 * 1024 * 1024
MAX_AT_ONCE = 64


def send_one(probes: Dict[str, Any], at: float) -> bool:
    """Send a probe at ``at`` (monotonic clock). True when it was answered with a status below 500.

    A transport error (refused, cut, out of time) is a failure; a body that is merely too large is not.
    """
    time.sleep(max(0.0, at - time.monotonic()))
    headers = {HEADER: str(probes["header_value"]), "User-Agent": "swiftdeploy-probe"}
    if probes.get("host_header"):
        headers["Host"] = str(probes["host_header"])
    try:
        return fetch(probes["url"], probes["timeout"], headers, MAX_BODY).status < 500
    except FetchError as problem:
        return problem.cause == "too_large"


def send_all(probes: Dict[str, Any], start: float, seconds: float) -> Dict[str, int]:
    """Send ``probes["count"]`` probes evenly over ``seconds`` from ``start`` (monotonic clock).

    Ends when all are answered or out of time, so that a slow answer is still within what is measured.
    ``probes``: {"url", "count", "header_value", "timeout", "host_header" or none}. Answers {"sent", "failed"}.
    """
    count = int(probes["count"])
    moments = [start + (number + 0.5) * seconds / count for number in range(count)]
    with ThreadPoolExecutor(max_workers=max(1, min(count, MAX_AT_ONCE))) as pool:
        answered = list(pool.map(lambda at: send_one(probes, at), moments))
    return {"sent": count, "failed": answered.count(False)}
