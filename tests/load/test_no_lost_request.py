"""Every kind of switch, again and again, under a constant load: no request is lost.

One cycle is promote to canary, promote to stable, deploy, rollback, and a changed setting of nginx. How many cycles
comes from SWIFTDEPLOY_SWITCHES. The figures are printed, and written as JSON to a file in the folder that
SWIFTDEPLOY_RESULTS names.
"""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from load.stack import DRAIN_SECONDS, Generator, Stack, Timeline, served

SWITCHES = int(os.environ.get("SWIFTDEPLOY_SWITCHES", "1"))
FIRST = "1.0.0"
# More than any machine needs for one switch; the generator ends by itself after so much for each.
SWITCH_SECONDS = 120


def cycle(stack: Stack, timeline: Timeline, number: int) -> None:
    """One switch of each kind, each looked at when it is done."""
    kept, left = f"1.{number}.0", f"1.{number}.1"
    timeline.run("promote canary", f"{kept} canary", stack.promote, kept, "canary")
    assert stack.serving() == f"{kept} canary"
    timeline.run("promote stable", f"{kept} stable", stack.promote, kept, "stable")
    assert stack.serving() == f"{kept} stable"
    timeline.run("deploy", f"{left} stable", stack.deploy, left)
    assert stack.serving() == f"{left} stable"
    timeline.run("rollback", f"{kept} stable", stack.rollback)
    assert stack.serving() == f"{kept} stable"
    timeline.run("nginx setting", f"{kept} stable", stack.change_setting, kept)
    assert stack.serving() == f"{kept} stable"
    assert stack.accepts() == stack.max_body


def figures(result: dict[str, Any], timeline: Timeline) -> dict[str, Any]:
    """What is worth telling of a run."""
    took: dict[str, list[float]] = {}
    for switch in timeline.switches:
        took.setdefault(switch["kind"], []).append(switch["ended"] - switch["started"])
    return {
        "switches": dict(Counter(switch["kind"] for switch in timeline.switches)),
        "median_switch_s": {kind: round(statistics.median(values), 1) for kind, values in took.items()},
        "seconds": result["elapsed_s"],
        "requests": result["sent"],
        "failed": result["failed"],
        **result["latency"],
        "kinds": {
            kind: {"sent": counts["sent"], "failed": counts["failed"], "p99_ms": counts["latency"]["p99_ms"]}
            for kind, counts in result["kinds"].items()
        },
        "idle_races": result["idle_races"],
        "websockets": {word: result["websockets"][word] for word in ("completed", "closed", "cut")},
        "schedule": result["schedule"],
        "failed_by_switch": {place: len(texts) for place, texts in timeline.blame(result).items()},
    }


def publish(runtime: str, told: dict[str, Any]) -> None:
    """Print the figures of a run, and keep them where they were asked for."""
    print(json.dumps({runtime: told}, indent=1))
    if place := os.environ.get("SWIFTDEPLOY_RESULTS"):
        Path(place).mkdir(parents=True, exist_ok=True)
        (Path(place) / f"load-{runtime}.json").write_text(json.dumps(told, indent=1) + "\n")


@pytest.mark.slow
def test_no_request_is_lost(stack: Stack, tmp_path: Path) -> None:
    build = tmp_path / "image"
    build.mkdir()
    stack.start(FIRST, build)
    timeline = Timeline()
    bound = SWITCHES * 5 * SWITCH_SECONDS
    with Generator(stack.workspace.url, tmp_path, bound, *stack.key_words, "--drain", str(DRAIN_SECONDS)) as generator:
        for number in range(1, SWITCHES + 1):
            cycle(stack, timeline, number)
        assert generator.process.poll() is None, "the load ended before the last switch"
        result = generator.finish()
    publish(stack.workspace.runtime, figures(result, timeline))

    assert result["schedule"]["kept"], result["schedule"]
    expected = [f"{FIRST} stable", *(switch["to"] for switch in timeline.switches if switch["kind"] != "nginx setting")]
    assert served(result) == expected
    assert result["failed"] == 0, json.dumps(timeline.blame(result), indent=1)
    assert result["websockets"]["cut"] == 0, json.dumps(timeline.blame(result), indent=1)
