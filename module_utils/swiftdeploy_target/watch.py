"""Watching slots while a window runs, so that a slot that dies ends the window at once.

Each slot is asked by a thread of its own, so one that hangs holds up no other. The threads are daemons: a
module that ends early does not wait for an answer that is never to come.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from .health import unhealthy


class Watch:
    """Asks slots again and again from start() to stop().

    ``targets``: [{"slot", "url", "timeout", "interval" (seconds), "retries", "failures", "health"}]. A slot is
    unhealthy after ``retries`` failures in a row; ``failures`` of them may be left over from an earlier watch.
    ``health`` says how it is asked (see health.py). ``stack_dir``: whose secrets are masked in what is quoted.

    ``ended`` is set as soon as a slot is unhealthy. ``unhealthy`` is {slot: why}, ``failures`` is {slot: how
    many there are in a row}; both are settled once stop() has returned.
    """

    def __init__(self, targets: List[Dict[str, Any]], stack_dir: Optional[Path] = None) -> None:
        self._stack_dir = stack_dir
        self.ended = threading.Event()
        self.unhealthy: Dict[str, str] = {}
        self.failures: Dict[str, int] = {str(one["slot"]): int(one.get("failures") or 0) for one in targets}
        self._stopped = threading.Event()
        self._settled = False
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._follow, args=(one,), daemon=True) for one in targets]
        self._patience = max((float(one["timeout"]) for one in targets), default=0.0)

    def start(self) -> None:
        """Ask every slot now, and again each interval."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask no more. What was asked already is waited for, unless a slot is unhealthy anyway.

        Otherwise a slot that hangs for longer than a short window would never be seen to fail.
        """
        self._stopped.set()
        limit = time.monotonic() + self._patience + 1.0
        for thread in self._threads:
            while thread.is_alive() and not self.ended.is_set() and time.monotonic() < limit:
                thread.join(0.05)
        with self._lock:
            self._settled = True

    def _follow(self, target: Dict[str, Any]) -> None:
        due = time.monotonic()
        while True:
            problem = unhealthy(target["url"], target.get("health") or {}, target["timeout"], self._stack_dir)
            if self._note(target, problem):
                return
            due = max(due + target["interval"], time.monotonic())
            if self._stopped.wait(due - time.monotonic()):
                return

    def _note(self, target: Dict[str, Any], problem: str) -> bool:
        """Count an answer. True when nothing more is to be asked."""
        slot = target["slot"]
        with self._lock:
            if self._settled:
                return True
            self.failures[slot] = self.failures[slot] + 1 if problem else 0
            if self.failures[slot] < target["retries"]:
                return False
            times = self.failures[slot]
            self.unhealthy[slot] = problem if times == 1 else f"{problem}, {times} times in a row"
        self.ended.set()
        return True
