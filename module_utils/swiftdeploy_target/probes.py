"""Probes: requests of our own through nginx, so that a quiet service has evidence too.

Each is sent at its planned moment whether or not the ones before it were answered. Otherwise a slow service
would be asked less often, and would look better than it is.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any, Dict, List, Optional, Tuple

from .http import FetchError, fetch

HEADER = "X-SwiftDeploy-Probe"
SLOT_HEADER = "X-SwiftDeploy-Slot"
MAX_BODY = 8 * 1024 * 1024
MAX_AT_ONCE = 64

Plan = List[Tuple[float, str]]


def send_one(probes: Dict[str, Any], slot: str = "") -> Optional[int]:
    """Send a probe, for the slot that nginx knows by the word ``slot`` when it is given.

    The status of the answer; None after a transport error (refused, cut, out of time). A body that is merely too
    large is a 200.
    """
    headers = {HEADER: str(probes["header_value"]), "User-Agent": "swiftdeploy-probe"}
    if slot:
        headers[SLOT_HEADER] = slot
    if probes.get("host_header"):
        headers["Host"] = str(probes["host_header"])
    try:
        return fetch(probes["url"], probes["timeout"], headers, MAX_BODY).status
    except FetchError as problem:
        return 200 if problem.cause == "too_large" else None


def plan(probes: Dict[str, Any], start: float, seconds: float) -> Plan:
    """When each probe is sent, and for which slot: evenly over ``seconds`` from ``start``, the slots in turn."""
    words = probes.get("slots") or [""]
    total = int(probes["count"]) * len(words)
    return [(start + (number + 0.5) * seconds / total, words[number % len(words)]) for number in range(total)]


def nothing() -> Dict[str, int]:
    """The counts before a probe is sent: sent; failed (no answer, or 500 and above); client_errors (400 to 499)."""
    return {"sent": 0, "failed": 0, "client_errors": 0}


class _Sending:
    """The probes under way. Its threads are daemons, so that an early end waits for no answer."""

    def __init__(self, probes: Dict[str, Any], planned: Plan, stop: threading.Event) -> None:
        self._probes = probes
        self._stop = stop
        self._waiting: queue.SimpleQueue[Tuple[float, str]] = queue.SimpleQueue()
        for one in planned:
            self._waiting.put(one)
        self._lock = threading.Lock()
        self._counts = {word: nothing() for word in (probes.get("slots") or [""])}
        self._threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(min(len(planned), MAX_AT_ONCE))
        ]

    def run(self) -> Dict[str, Any]:
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            while thread.is_alive() and not self._stop.is_set():
                thread.join(0.05)
        with self._lock:
            by_slot = {word: dict(counts) for word, counts in self._counts.items()}
        return {**{name: sum(one[name] for one in by_slot.values()) for name in nothing()}, "by_slot": by_slot}

    def _work(self) -> None:
        while True:
            try:
                at, slot = self._waiting.get_nowait()
            except queue.Empty:
                return
            if self._stop.wait(max(0.0, at - time.monotonic())):
                return
            self._count(slot, "sent")
            status = send_one(self._probes, slot)
            if status is None or status >= 500:
                self._count(slot, "failed")
            elif status >= 400:
                self._count(slot, "client_errors")

    def _count(self, slot: str, name: str) -> None:
        with self._lock:
            self._counts[slot][name] += 1


def send_all(
    probes: Dict[str, Any], start: float, seconds: float, stop: Optional[threading.Event] = None
) -> Dict[str, Any]:
    """Send ``probes["count"]`` probes, for each of ``probes["slots"]`` if there are any, evenly over ``seconds``.

    ``start`` is of the monotonic clock. Ends when all are answered or out of time, so that a slow answer is
    still within what is measured; or at once when ``stop`` is set: what is not sent then never is, and what
    is not answered is no failure.
    ``probes``: {"url", "count", "header_value", "timeout", "host_header" or none, "slots" or none}.
    Answers the counts of nothing() over all probes, and "by_slot" with those of each word.
    """
    return _Sending(probes, plan(probes, start, seconds), stop or threading.Event()).run()
