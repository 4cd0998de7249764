"""How long a decision takes, against the bare minimum: the same server's answer that it is there (GET /health).

Run by `make bench`. A real OPA is started as a deploy starts it: shipped policies, authorisation, decision log in a
file, its Go limits. Each question goes through `swiftdeploy_target.opa.ask`, as the modules ask it: a new connection,
a deadline for the whole exchange, the judgement of the answer. The bare question is a plain GET on a new
connection, with no work behind it. Both take turns, so that what else the machine does meets both.

The first decision of a new server is told apart: OPA compiles the query then. Its P99 is the highest of a few. Warm is
what comes after 100 decisions.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from support.opa_server import GOOD_FACTS, POLICIES, RENDER, running_opa
from support.workspace import REPOSITORY
from swiftdeploy_target.http import fetch
from swiftdeploy_target.images import whole_name
from swiftdeploy_target.opa import ask

COLD_ROUNDS = int(os.environ.get("SWIFTDEPLOY_COLD", "11"))
WARM_UP = 100
WARM = int(os.environ.get("SWIFTDEPLOY_DECISIONS", "2000"))
TIMEOUT = 10.0

EVIDENCE = {
    "slot": "green",
    "status": "measured",
    "window_seconds": 30.0,
    "requests": 4120,
    "error_rate": 0.002,
    "p99_latency_ms": 120.5,
    "proxy_requests": 4120,
    "proxy_error_rate": 0.002,
    "proxy_p99_latency_ms": 131.0,
}
COMMON = {"environment": "production", "host": "web1", "service": "app", "version": "1.0.0", "actor": "ann@laptop"}
DOMAINS = sorted(path.parent.name for path in POLICIES.glob("*/*.rego") if "\ndecision := " in path.read_text())
IMAGES = [
    {"role": role, "name": name, **whole_name(name)}
    for role, name in (("service", "registry.example.com:5000/app:1.0.0"), ("nginx", "nginx:1.31.3"))
]
# A domain without one here is asked with what all questions have.
QUESTIONS: dict[str, dict[str, Any]] = {
    "infrastructure": {**COMMON, "facts": GOOD_FACTS},
    "change": {**COMMON, "timestamp": "2026-11-21T12:00:00.000Z"},
    "image": {**COMMON, "images": IMAGES},
    "canary": {**COMMON, "evidence": EVIDENCE, "baseline": EVIDENCE, "min_requests": 20},
}


def opa_program() -> str:
    """The OPA that a deploy would use."""
    script = REPOSITORY / "tests" / "support" / "opa.sh"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run([script], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def decide(url: str, domain: str) -> float:
    """Milliseconds of one decision, which must be one."""
    started = time.perf_counter()
    decision = ask(url, domain, QUESTIONS.get(domain, COMMON), TIMEOUT)
    taken = (time.perf_counter() - started) * 1000
    if decision["outcome"] == "unavailable":
        raise SystemExit(f"{domain}: {decision['reasons'][0]}")
    return taken


def bare(url: str) -> float:
    """Milliseconds of the answer that the server is there."""
    started = time.perf_counter()
    if fetch(f"{url}/health", TIMEOUT).status != 200:
        raise SystemExit("OPA is not healthy")
    return (time.perf_counter() - started) * 1000


def percentile(figures: list[float], percent: int) -> float:
    """The percentile of the figures; the highest where there are too few for it."""
    if len(figures) < percent:
        return max(figures) if percent > 50 else statistics.median(figures)
    return statistics.quantiles(figures, n=100, method="inclusive")[percent - 1]


def row(name: str, figures: list[float], floor: list[float]) -> str:
    """One line of the table: P50 and P99, and how many times the bare answer's of the same run they are."""
    pairs = [(percentile(figures, percent), percentile(floor, percent)) for percent in (50, 99)]
    cells = " | ".join(f"{taken:.2f} | {least:.2f} | {taken / least:.1f}" for taken, least in pairs)
    return f"| {name} | {len(figures)} | {cells} |"


def main() -> None:
    """Print the table."""
    opa = opa_program()
    limits = {"GOMEMLIMIT": f"{RENDER['render_opa_limits']['memory_mb'] * 3 // 4}MiB", "GOMAXPROCS": "1"}
    os.environ.update(limits)
    print("| question | times | P50 ms | bare | ratio | P99 ms | bare | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for domain in DOMAINS:
        cold, floor = [], []
        for _ in range(COLD_ROUNDS):
            with running_opa(opa, POLICIES) as server:
                floor.append(bare(server.url))
                cold.append(decide(server.url, domain))
        print(row(f"{domain}, first", cold, floor), flush=True)
        warm, floor = [], []
        with running_opa(opa, POLICIES) as server:
            for _ in range(WARM_UP):
                decide(server.url, domain)
                bare(server.url)
            for _ in range(WARM):
                floor.append(bare(server.url))
                warm.append(decide(server.url, domain))
        print(row(f"{domain}, warm", warm, floor), flush=True)


if __name__ == "__main__":
    main()
