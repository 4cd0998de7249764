"""The walk of a canary: which weights, what follows from a decision, what is said meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdeploy import canary

SETTINGS = {"steps": [5, 25, 50], "weight": 100}
AT_25 = {"slot": "green", "weight": 25}


@pytest.mark.parametrize(
    ("present", "same", "options", "steps", "final"),
    [
        (None, False, {}, [5, 25, 50], 100),
        (AT_25, True, {}, [5, 25, 50], 100),
        (AT_25, True, {"resume": True}, [25, 50], 100),
        ({"slot": "green", "weight": 0}, True, {"resume": True}, [5, 25, 50], 100),
        ({"slot": "green", "weight": 10}, True, {"resume": True}, [10, 25, 50], 100),
        (None, False, {"pause_at": "25"}, [5, 25], None),
        (AT_25, True, {"pause_at": "50", "resume": True}, [25, 50], None),
    ],
)
def test_what_is_walked(
    present: dict[str, Any] | None, same: bool, options: dict[str, Any], steps: list[int], final: int | None
) -> None:
    assert canary.walk(SETTINGS, present, same=same, **options) == {"steps": steps, "final": final}


def test_a_canary_that_ends_below_all_traffic() -> None:
    assert canary.walk({"steps": [], "weight": 10}, None, same=False) == {"steps": [], "final": 10}
    settings = {"steps": [5, 50], "weight": 50}
    at_end = {"slot": "green", "weight": 50}
    assert canary.walk(settings, at_end, same=True, resume=True) == {"steps": [50], "final": 50}


@pytest.mark.parametrize("present", [None, AT_25])
def test_there_must_be_a_canary_to_go_on_with(present: dict[str, Any] | None) -> None:
    with pytest.raises(canary.WalkError, match="no canary of this release"):
        canary.walk(SETTINGS, present, same=False, resume=True)


@pytest.mark.parametrize("pause_at", ["10", "100", "x", "-5", "25.0"])
def test_a_walk_pauses_at_one_of_its_steps_alone(pause_at: str) -> None:
    with pytest.raises(canary.WalkError, match="steps are 5, 25, 50"):
        canary.walk(SETTINGS, None, same=False, pause_at=pause_at)


@given(st.floats(1, 3600), st.integers(0, 10000))
def test_all_probes_are_sent_within_the_window(window: float, total: int) -> None:
    tick, until, sent = canary.tick_seconds(window), 0.0, 0
    assert 0 < tick <= window
    while until < window:
        until = min(window, until + tick)
        sent += canary.probes_due(total, window, until, sent)
    assert sent == total


@pytest.mark.parametrize(
    ("outcome", "whole", "elapsed", "policy", "word"),
    [
        ("allowed", True, 30, "fail", "advance"),
        ("allowed", False, 3, "fail", "hold"),
        ("denied", True, 30, "fail", "back"),
        ("denied", False, 3, "ignore", "back"),
        ("insufficient", False, 3, "fail", "hold"),
        ("insufficient", True, 30, "fail", "hold"),
        ("insufficient", True, 300, "ignore", "back"),
        ("unavailable", False, 3, "ignore", "hold"),
        ("unavailable", True, 30, "ignore", "advance"),
        ("unavailable", True, 30, "fail", "hold"),
        ("unavailable", True, 300, "fail", "back"),
        ("nonsense", True, 300, "ignore", "back"),
    ],
)
def test_what_a_decision_leads_to(outcome: str, whole: bool, elapsed: float, policy: str, word: str) -> None:
    found = canary.verdict({"outcome": outcome}, whole=whole, elapsed=elapsed, deadline=300, failure_policy=policy)
    assert found == word


def test_what_is_said_while_a_weight_is_held() -> None:
    place = {"number": 2, "of": 3, "weight": 25}
    evidence = {"error_rate": 0.0123, "p99_latency_ms": 48.4, "requests": 143}
    assert canary.progress(place, 12.3, evidence) == (
        "canary step 2/3  25 %  12 s left  errors 1.23 %  P99 48 ms  requests 143"
    )
    assert canary.progress(place, -0.2, {}) == "canary step 2/3  25 %  0 s left  errors -  P99 -  requests -"
    assert "waiting for evidence" in canary.progress(place, None, {})
