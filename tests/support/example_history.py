"""A week of two hosts, as a history: what the README's picture and the tests of the report are made from.

``python tests/support/example_history.py FILE`` writes it. The same arguments give the same bytes.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from swiftdeploy import history

START = datetime(2026, 11, 9, 6, 0, tzinfo=UTC)
DAYS = 7
REVISION = "3f1c0c0e3e6b0d5a4b7c2f9a9a0c8d1e5f60718293a4b5c6d7e8f90123456789"
LIMITS = {
    "error_rate": {"max": 0.01},
    "p99_latency_ms": {"max": 500},
    "requests": {"min": 20},
    "environment": "production",
    "source": "default",
}
HOST_LIMITS = {
    "disk_free_gb": {"min": 10},
    "cpu_load_1m": {"max": 2.0},
    "mem_free_percent": {"min": 10},
    "environment": "production",
    "source": "default",
}
Event = dict[str, Any]


def at(day: int, clock: str) -> datetime:
    """A moment: the day counts from 0, the clock is UTC."""
    hours, minutes = clock.split(":")
    return START.replace(hour=int(hours), minute=int(minutes)) + timedelta(days=day)


def stamp(moment: datetime) -> str:
    """As a record has it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# When a host had figures of its own.
INCIDENTS = (("web1", at(1, "13:30"), at(1, "14:10")), ("web2", at(2, "10:20"), at(2, "11:00")))


class Week:
    """Collects the events of the week; `generator` makes what varies."""

    def __init__(self, minutes: int) -> None:
        self.minutes = minutes
        self.generator = random.Random(20261109)
        self.events: list[tuple[datetime, Event]] = []
        self.running = {"web1": ("1.8.2", "stable"), "web2": ("1.8.2", "stable")}
        self.release = 40

    def identity(self) -> str:
        """An id in the form of a UUID."""
        digits = f"{self.generator.getrandbits(128):032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def add(self, moment: datetime, event: str, host: str, **fields: Any) -> None:
        """One event."""
        version, mode = self.running[host]
        known = {"service": "shop", "version": version, "mode": mode, "actor": "ada@control", "run_id": self.identity()}
        self.events.append((moment, known | {"event": event, "host": host, "timestamp": stamp(moment)} | fields))

    def answer(self, outcome: str, checked: Event, limits: Event, *reasons: str, **more: Any) -> Event:
        """What the policy engine said."""
        return {
            "outcome": outcome,
            "reasons": list(reasons),
            "checked": checked,
            "thresholds": limits,
            "decision_id": self.identity(),
            "policy_revision": REVISION,
        } | more

    def machine(self, outcome: str = "allowed", *reasons: str, **checked: float) -> Event:
        """The decision on a host."""
        facts = {"disk_free_gb": 61.4, "cpu_load_1m": 0.42, "mem_free_percent": 48.0} | checked
        return {"infrastructure": self.answer(outcome, facts, HOST_LIMITS, *reasons)}

    def service(self, outcome: str, error_rate: float, p99: float, *reasons: str) -> Event:
        """The decision on a release, and the figures it rests on."""
        checked = {
            "requests": 642,
            "error_rate": error_rate,
            "p99_latency_ms": p99,
            "window_seconds": 30.1,
            "slot": "green",
            "status": "measured",
        }
        return {
            "policy": {"canary": self.answer(outcome, checked, LIMITS, *reasons)},
            "evidence": {
                "status": "measured",
                "slot": "green",
                "requests": 642,
                "window_seconds": 30.1,
                "proxy_requests": 640,
                "proxy_probes": 20,
                "probe_share": 0.031,
            },
            "req_per_sec": 21.3,
            "error_rate": error_rate,
            "p99_latency_ms": p99,
            "chaos": "none",
        }

    def change(self, moment: datetime, event: str, host: str, version: str, mode: str, **fields: Any) -> None:
        """A deploy, a promote or a rollback that went through."""
        self.running[host] = (version, mode)
        self.release += 1
        self.add(moment, event, host, release=f"r{self.release}", changed=True, **fields)

    def readings(self, start: datetime, stop: datetime) -> None:
        """The status, recorded every few minutes by a timer; more traffic by day."""
        moment = start
        while moment < stop:
            for host in self.running:
                if any(host == one and begin <= moment <= end for one, begin, end in INCIDENTS):
                    continue
                hour = moment.hour + moment.minute / 60
                rate = 12 + 10 * math.sin((hour - 8) / 24 * 2 * math.pi) + self.generator.uniform(-1.2, 1.2)
                p99 = 150 + 5 * rate + self.generator.gauss(0, 14)
                errors = max(0.0, self.generator.gauss(0.0008, 0.0007))
                self.reading(moment, host, rate, errors, p99)
            moment += timedelta(minutes=self.minutes)

    def reading(self, moment: datetime, host: str, rate: float, errors: float, p99: float, chaos: str = "none") -> None:
        """One reading of the status."""
        reasons = []
        if errors > 0.01:
            reasons.append(f"error rate is {100 * errors:.1f} %, maximum is 1 %")
        if p99 > 500:
            reasons.append(f"P99 latency is {p99:.0f} ms, maximum is 500 ms")
        checked = {"error_rate": round(errors, 5), "p99_latency_ms": round(p99, 1), "requests": int(30 * rate)}
        answer = self.answer("denied" if reasons else "allowed", checked, LIMITS, *reasons)
        self.add(
            moment,
            "status_scrape",
            host,
            actor="timer@control",
            req_per_sec=round(rate, 2),
            error_rate=round(errors, 5),
            p99_latency_ms=round(p99, 1),
            chaos=chaos,
            policy={"canary": answer},
        )


def commit(name: str, moment: datetime, dirty: bool = False) -> Event:
    """What a deploy records of the commit it was started from."""
    return {"id": (name * 40)[:40], "time": stamp(moment), "dirty": dirty}


def events(days: int = DAYS, minutes: int = 15) -> Iterator[Event]:
    """The events in order: `days` of readings, one every `minutes`, and what people did in between."""
    week = Week(minutes)
    week.readings(START, START + timedelta(days=days))
    first = commit("4be9d1", at(0, "07:40"))
    for host, clock in (("web1", "09:12"), ("web2", "09:13")):
        week.change(
            at(0, clock), "deploy", host, "1.9.0", "stable", policy=week.machine(), duration_s=6.4, commit=first
        )
    # A release that is slow: seen as a canary on one host, and not let further.
    second = commit("a07c52", at(1, "10:05"))
    fine, slow = week.service("allowed", 0.0006, 212.0), "P99 latency is 812 ms, maximum is 500 ms"
    week.change(at(1, "13:30"), "promote", "web1", "1.10.0", "canary", duration_s=38.2, commit=second, **fine)
    for minute in range(35, 60, 5):
        week.reading(at(1, f"13:{minute}"), "web1", 21.0, 0.0031, 640.0 + 4 * minute)
    denied = week.service(
        "denied", 0.0042, 812.0, f"{slow} (policies/thresholds/data.yaml: canary.default.p99_latency_ms)"
    )
    week.add(at(1, "14:05"), "promote_blocked", "web1", mode="stable", reason=slow, duration_s=31.0, **denied)
    week.change(at(1, "14:09"), "rollback", "web1", "1.9.0", "stable", duration_s=3.1, reason="back to r41")
    # Game day: faults on purpose, in a canary.
    week.change(at(2, "10:00"), "promote", "web2", "1.10.1", "canary", duration_s=36.9, **fine)
    week.add(
        at(2, "10:20"), "chaos", "web2", chaos="error", rate=0.3, actor="lin@control", reason="30 % of requests fail"
    )
    for minute in range(25, 55, 5):
        week.reading(at(2, f"10:{minute}"), "web2", 20.4, 0.28 + minute / 1000, 260.0, "error")
    blocked = week.service("denied", 0.301, 260.4, "error rate is 30.1 %, maximum is 1 %")
    week.add(at(2, "10:50"), "promote_blocked", "web2", mode="stable", actor="lin@control", **blocked)
    week.add(at(2, "11:00"), "chaos", "web2", chaos="none", actor="lin@control", reason="recover")
    week.change(
        at(2, "11:30"), "promote", "web2", "1.10.1", "stable", commit=commit("c31f08", at(2, "08:15")),
        duration_s=35.0, actor="lin@control", **fine,
    )  # fmt: skip
    # A full disk, and a person who goes past it.
    full = "free disk is 6.1 GB, minimum is 10 GB (policies/thresholds/data.yaml: infrastructure.default.disk_free_gb)"
    third = commit("e5d0aa", at(3, "15:52"))
    week.add(
        at(3, "16:40"),
        "deploy_blocked",
        "web2",
        version="1.10.2",
        policy=week.machine("denied", full, disk_free_gb=6.1),
    )
    past = {
        "reason": "payment outage, fix is in 1.10.2",
        "actor": "ada@control",
        "overridden": {"infrastructure": [full]},
    }
    week.add(
        at(3, "16:44"), "override", "web2", version="1.10.2", action="deploy", override=past,
        reason="payment outage, fix is in 1.10.2 (went past infrastructure: disk)",
        policy=week.machine("allowed", disk_free_gb=6.1),
    )  # fmt: skip
    week.change(at(3, "16:45"), "deploy", "web2", "1.10.2", "stable", duration_s=7.0, commit=third)
    # A controller that was switched off in the middle, and what came after.
    week.add(
        at(4, "08:20"), "deploy_interrupted", "web1", version="1.10.2", release=None,
        since="2026-11-13T08:02:11.000Z", last_sign="2026-11-13T08:02:19.000Z",
        reason="interrupted after 2026-11-13T08:02:19.000Z while: Wait until the release is healthy",
    )  # fmt: skip
    week.add(at(4, "08:21"), "lock_broken", "web1", reason="held by ada@control since 08:02, whose process is gone")
    week.change(
        at(4, "08:22"), "deploy", "web1", "1.10.2", "stable", policy=week.machine(), duration_s=6.8, commit=third
    )
    week.add(
        at(5, "09:00"), "deploy_failed", "web2", version="1.11.0", duration_s=61.0,
        reason="the new release was not healthy within 60 s: HTTP 500 at /healthz",
    )  # fmt: skip
    week.change(
        at(5, "09:31"), "deploy", "web2", "1.11.1", "stable", policy=week.machine(), duration_s=6.6,
        commit=commit("0f93c7", at(5, "09:22")),
    )  # fmt: skip
    week.add(
        at(5, "12:00"),
        "policy_unavailable",
        "web1",
        policy={"canary": week.answer("unavailable", {}, {}, "OPA did not answer")},
    )
    end = START + timedelta(days=days)
    running = {"web1": ("1.8.2", "stable"), "web2": ("1.8.2", "stable")}
    for moment, event in sorted(week.events, key=lambda one: one[0]):
        if event["event"] in ("deploy", "promote", "rollback"):
            running[event["host"]] = (event["version"], event["mode"])
        elif event["event"] == "status_scrape":
            # Readings were made before it was known what would run by then.
            event["version"], event["mode"] = running[event["host"]]
        if moment < end:
            yield event


def write(path: Path, days: int = DAYS, minutes: int = 15) -> int:
    """Append the example to ``path``; returns how many records that are."""
    number = 0
    for number, event in enumerate(events(days, minutes), start=1):  # noqa: B007 - the count is the answer
        history.append(path, event)
    return number


if __name__ == "__main__":
    print(f"{sys.argv[1]}: {write(Path(sys.argv[1]))} records")
