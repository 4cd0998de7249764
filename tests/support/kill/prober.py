"""Clients that ask nginx all the time, and remember every answer that was not whole."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType

import requests

Release = tuple[str, str]


def whole(answer: requests.Response) -> Release:
    """Version and mode of a whole answer; ValueError says what is wrong with it."""
    if answer.status_code != 200:
        raise ValueError(f"HTTP {answer.status_code}: {answer.text[:200]}")
    body = answer.json()
    missing = {"message", "mode", "version", "timestamp"} - set(body)
    if missing or answer.headers.get("X-Deployed-By") != "swiftdeploy":
        raise ValueError(f"not whole: {answer.text[:200]} {dict(answer.headers)}")
    if (answer.headers.get("X-Mode") == "canary") != (body["mode"] == "canary"):
        raise ValueError(f"X-Mode {answer.headers.get('X-Mode')} with mode {body['mode']}")
    return str(body["version"]), str(body["mode"])


class Prober:
    """One client on a kept connection and one on new connections, each with one request in flight."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.failures: list[str] = []
        self.seen: Counter[Release] = Counter()
        self._stop = threading.Event()
        session = requests.Session()
        self._threads = [
            threading.Thread(target=self._ask, args=("kept", session.get), daemon=True),
            threading.Thread(target=self._ask, args=("new", requests.get), daemon=True),
        ]

    def _ask(self, kind: str, get: object) -> None:
        assert callable(get)
        while not self._stop.is_set():
            try:
                self.seen[whole(get(self.url, timeout=30))] += 1
            except (OSError, ValueError) as error:
                self.failures.append(f"{kind} connection: {error!r}")
            # Leaves the machine's cores to the run that is watched.
            self._stop.wait(0.02)

    def __enter__(self) -> Prober:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def problems(self, allowed: set[Release]) -> list[str]:
        """What was seen that should not have been."""
        strangers = [
            f"{release} answered {self.seen[release]} times" for release in self.seen if release not in allowed
        ]
        told = [*dict.fromkeys(self.failures)][:5]
        failed = [f"{len(self.failures)} of {self.seen.total()} requests failed: {told}"] if self.failures else []
        return failed + strangers + ([] if self.seen else ["nothing answered"])
