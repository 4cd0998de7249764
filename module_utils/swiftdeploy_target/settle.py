"""Watching a release that has just got its traffic, so that one that dies goes back to the one before it.

It is dead when its process or container has ended, or was started again; when it fails RETRIES health questions in a
row; or when the proxy had to answer 502 in its place too often. These are no limits that a site would choose: they say
that a program does not run, as the same number does while a canary is held.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Optional

from .access_log import LogError, Request, Tally, read_docker, read_file
from .health import unhealthy
from .runtime import Runtime
from .watch import Watch

RETRIES = 3
POLL_SECONDS = 0.2
HEALTH_SECONDS = 0.25
PROXY_SECONDS = 1.0
# A connection that the service closes at the wrong moment is a 502 too: one in ten is not that.
UNANSWERED_SHARE = 0.1


class _Unanswered(Tally):
    """Counts what the proxy could not get answered by one slot."""

    def __init__(self, slot: str, since: float) -> None:
        super().__init__([], since, float("inf"), [])
        self._slot = slot
        self._from = since
        self.requests = self.failed = 0

    def add(self, request: Request) -> None:
        if request.slot == self._slot and request.end > self._from:
            self.requests += 1
            self.failed += request.status == 502


def proxy_problem(log: Dict[str, str], slot: str, since: float) -> str:
    """Why the proxy's log says that ``slot`` does not answer since ``since`` (unix s); empty where it does not."""
    seen = _Unanswered(slot, since)
    try:
        if log["kind"] == "docker":
            read_docker(log["container"], since, seen, 5.0)
        else:
            read_file(log["path"], since, seen)
    except (LogError, OSError):
        # What cannot be read says nothing of the release.
        return ""
    if seen.failed < RETRIES or seen.failed < UNANSWERED_SHARE * seen.requests:
        return ""
    return f"nginx got no answer of it for {seen.failed} of {seen.requests} requests (502)"


class Settle:
    """One watch. It is made before the traffic moves, so that a release that is started again meanwhile is noticed.

    ``health``: how the release in ``slot`` is asked (see health.py); ``seconds``: how long it is watched at least.
    """

    def __init__(self, runtime: Runtime, slot: str, health: Dict[str, Any], seconds: float) -> None:
        self._runtime = runtime
        self._slot = slot
        self._seconds = seconds
        self._life = runtime.life(slot)
        self._url = f"http://{runtime.address(slot)}{health['path']}"
        self._timeout = float(health["timeout"])
        target = {"slot": slot, "url": self._url, "timeout": self._timeout, "interval": HEALTH_SECONDS}
        self._question = health
        self._health = Watch([{**target, "retries": RETRIES, "health": health}], runtime.folder)
        self._started = self._asked_proxy = 0.0
        self._since = 0.0

    def begin(self) -> None:
        """The traffic has moved."""
        self._started = self._asked_proxy = time.monotonic()
        self._since = time.time()
        self._health.start()

    def problem(self) -> str:
        """Why the release is dead; empty while it lives."""
        life = self._runtime.life(self._slot)
        if life is None or life != self._life:
            how = self._runtime.ending(self._slot)
            return f"it ended by itself{f' ({how})' if how else ''}"
        if self._health.ended.is_set():
            return next(iter(self._health.unhealthy.values()))
        if time.monotonic() - self._asked_proxy >= PROXY_SECONDS:
            self._asked_proxy = time.monotonic()
            return proxy_problem(self._runtime.proxy_log(), self._slot, self._since)
        return ""

    def watch(self, until: Optional[Callable[[], bool]] = None) -> str:
        """Look until the time is over and ``until`` is true: why it is dead, empty when it lives."""
        while True:
            problem = self.problem()
            over = self.seconds() >= self._seconds
            if problem or (over and (until is None or until())):
                return problem or self._last_word()
            time.sleep(POLL_SECONDS)

    def _last_word(self) -> str:
        """What was asked when the time was over, and where that failed, what is answered then."""
        self._health.stop()
        failures = next(iter(self._health.failures.values()))
        problem = next(iter(self._health.unhealthy.values()), "")
        while failures and not problem:
            why = unhealthy(self._url, self._question, self._timeout, self._runtime.folder)
            failures = failures + 1 if why else 0
            problem = f"{why}, {failures} times in a row" if failures >= RETRIES else ""
        return problem or self.problem()

    def seconds(self) -> float:
        """Since the traffic has moved."""
        return time.monotonic() - self._started
