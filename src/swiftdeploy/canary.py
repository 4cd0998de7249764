"""How a canary takes its traffic: which weights it walks, how long each is held, what follows from a decision.

A *walk* is a list of weights. Each is held for a window of evidence, looked at in ticks, and ends with a decision on
the whole window. What happens then is OPA's word alone; here is only what a word leads to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Looks at a window. More would only cost the host; fewer would let a broken canary serve longer.
TICKS = 10
SHORTEST_TICK = 2.0


class WalkError(Exception):
    """What was asked for cannot be walked; the message says what and what can."""


def walk(
    settings: Mapping[str, Any],
    canary: Mapping[str, Any] | None,
    *,
    same: bool,
    pause_at: str = "",
    resume: bool = False,
) -> dict[str, Any]:
    """What a promotion to canary does: {"steps": weights to hold and decide, "final": weight afterwards or None}.

    ``settings`` is the manifest's ``canary``; ``canary`` the host's present one, {"slot", "weight"}, or None; ``same``
    whether that is the release that is asked for. ``final`` is None where the walk pauses. ``resume`` goes on with the
    weight that the canary has, which is held and decided once more. Raises WalkError.
    """
    steps, final = list(settings["steps"]), int(settings["weight"])
    if resume:
        if canary is None or not same:
            raise WalkError("there is no canary of this release to go on with: leave resume=true out to begin")
        at = int(canary["weight"])
        steps = sorted({*(step for step in steps if step > at), *({at} if 0 < at < 100 else set())})
    if not pause_at:
        return {"steps": steps, "final": final}
    if not pause_at.isdecimal() or int(pause_at) not in steps:
        known = ", ".join(map(str, steps)) or "none"
        raise WalkError(f"pause_at is {pause_at!r}, which is no step to come; steps are {known}")
    return {"steps": [step for step in steps if step <= int(pause_at)], "final": None}


def tick_seconds(window: float) -> float:
    """How long one look of a window takes: a tenth of it, at least SHORTEST_TICK, at most the window."""
    return min(window, max(SHORTEST_TICK, window / TICKS))


def probes_due(total: int, window: float, until: float, sent: int) -> int:
    """How many of ``total`` probes are to be sent in the look that ends ``until`` seconds into the window.

    Once the window is over and more evidence is waited for, a tenth of them in each look.
    """
    if until > window:
        return max(1, total // TICKS) if total else 0
    return max(0, round(total * min(1.0, until / window)) - sent)


def verdict(decision: Mapping[str, Any], *, whole: bool, elapsed: float, deadline: float, failure_policy: str) -> str:
    """What one decision leads to: "advance", "back", or "hold" (look again).

    ``whole``: the window is complete; before that only a denial counts, since too little was seen for anything else.
    ``elapsed`` and ``deadline`` are seconds since the weight was set. ``failure_policy`` (ignore or fail) is the
    manifest's word for a policy engine that gives no decision.
    """
    outcome = decision["outcome"]
    if outcome == "denied":
        return "back"
    if not whole:
        return "hold"
    if outcome == "allowed" or (outcome == "unavailable" and failure_policy == "ignore"):
        return "advance"
    return "hold" if elapsed < deadline else "back"


def _percent(value: Any) -> str:
    return f"{100 * value:.2f} %" if isinstance(value, int | float) else "-"


def _milliseconds(value: Any) -> str:
    return f"{value:.0f} ms" if isinstance(value, int | float) else "-"


def progress(place: Mapping[str, Any], left: float | None, evidence: Mapping[str, Any]) -> str:
    """One line on a weight that is being held: step, weight, seconds left, and the canary's figures so far.

    ``left`` is None once the window is over and more evidence is waited for. ``place``: {"number", "of", "weight"};
    ``evidence`` is the canary's record.
    """
    time_left = "waiting for evidence" if left is None else f"{max(0.0, left):.0f} s left"
    requests = evidence.get("requests")
    return (
        f"canary step {place['number']}/{place['of']}  {place['weight']} %  {time_left}  "
        f"errors {_percent(evidence.get('error_rate'))}  P99 {_milliseconds(evidence.get('p99_latency_ms'))}  "
        f"requests {'-' if requests is None else requests}"
    )
