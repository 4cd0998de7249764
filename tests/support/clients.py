"""Clients that ask again and again while something is done to the service."""

from __future__ import annotations

import threading
import time

import requests


class Load:
    """Four clients for the time of a ``with`` block; two keep their connection, two do not."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[str] = []
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number < 2,)) for number in range(4)]

    def _ask(self, keeps: bool) -> None:
        session = requests.Session()
        while not self._ends.is_set():
            try:
                answer = (session if keeps else requests).get(self.url, timeout=20)
                self.answers.append(answer.json()["version"] if answer.ok else f"HTTP {answer.status_code}")
            except (requests.RequestException, ValueError) as error:
                self.answers.append(f"failed: {error}")
            time.sleep(0.02)

    @property
    def failed(self) -> list[str]:
        """What was no answer of the service."""
        return [answer for answer in self.answers if answer.startswith(("HTTP ", "failed: "))]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
