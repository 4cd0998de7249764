"""Waiting until a program of the stack answers."""

from __future__ import annotations

import time
from typing import Any, Dict, Optional

from .http import try_get
from .runtime import Runtime

FIRST_INTERVAL = 0.05
GONE_SECONDS = 3.0
# A program that is ready in the last moment still gets its chance.
SHORTEST_QUESTION = 0.1


def question(runtime: Runtime, program: str, url: Optional[str], health_path: str) -> Optional[str]:
    """What to ask now, None while the program has no address yet."""
    if url is not None:
        return url
    address = runtime.address(program)
    return f"http://{address}{health_path}" if address else None


def await_program(
    runtime: Runtime,
    program: str,
    health: Dict[str, Any],
    *,
    timeout: float,
    interval: float,
    url: Optional[str] = None,
) -> Dict[str, Any]:
    """Ask until the answer is 2xx: {"ok", "seconds", "why"}. Gives up early when the program keeps ending.

    ``health``: {"path", "timeout"}; ``url`` is asked instead of a slot's health path. Times in seconds.
    """
    started = time.monotonic()
    pause, why, last_seen = FIRST_INTERVAL, "it has no address", started
    while True:
        asked = question(runtime, program, url, health["path"])
        answer = None
        if asked is not None:
            left = max(timeout - (time.monotonic() - started), SHORTEST_QUESTION)
            answer, why = try_get(asked, min(float(health["timeout"]), left))
        now = time.monotonic()
        if answer is not None and 200 <= answer.status < 300:
            return {"ok": True, "seconds": round(now - started, 3), "why": ""}
        if answer is not None:
            why = f"it answers {answer.status}"
        if runtime.running().get(program):
            last_seen = now
        if now - last_seen > GONE_SECONDS:
            return {"ok": False, "seconds": round(now - started, 3), "why": "it keeps ending by itself"}
        if now - started > timeout:
            return {"ok": False, "seconds": round(now - started, 3), "why": why}
        # Quick at first, so that a fast start is seen at once; then at the pace that was asked for.
        time.sleep(min(pause, interval))
        pause *= 1.3


def complaint(runtime: Runtime, program: str, result: Dict[str, Any], lines: int) -> str:
    """Why ``program`` is not healthy, with the last lines that it printed."""
    log = runtime.logs(program, lines)
    shown = "\n".join(f"    {line}" for line in log) or "    (it printed nothing)"
    return f"{program} was not healthy after {result['seconds']:.1f} s: {result['why']}. Its last lines:\n{shown}"
