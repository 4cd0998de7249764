"""How long it takes to verify a history and to make the audit report of it, and how much memory, against jq.

Run by `make bench`. Histories of SWIFTDEPLOY_LINES lines (default 100000 and 1000000) are made by the real encoder,
most of them readings of the status with evidence and decisions as a deployed stack records them. Each program reads
the same file in a process of its own: `history.verify`, `report.build`, and `jq -c .`, which parses and prints every
line and checks nothing. Memory is the most that the process held (ru_maxrss).
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from swiftdeploy import history

LINES = [int(count) for count in os.environ.get("SWIFTDEPLOY_LINES", "100000 1000000").split()]
START = datetime(2026, 1, 1, tzinfo=UTC)
REVISION = hashlib.sha256(b"policies").hexdigest()
VERIFY = "import sys; from swiftdeploy import history; assert history.verify(sys.argv[1]).ok"
REPORT = "import sys; from swiftdeploy import report; assert report.build(sys.argv[1])[1].ok"
PROGRAMS = {
    "verify": [sys.executable, "-c", VERIFY],
    "report": [sys.executable, "-c", REPORT],
    "jq -c .": ["jq", "-c", "."],
}


def evidence(chance: random.Random, mode: str) -> dict[str, Any]:
    """Figures of one slot."""
    requests = chance.randrange(20, 5000)
    return {
        "slot": chance.choice(["blue", "green"]),
        "status": "measured",
        "cause": None,
        "detail": None,
        "first_sample": "given",
        "window_seconds": 30 + chance.random(),
        "requests": requests,
        "req_per_sec": requests / 30.2,
        "error_rate": chance.random() / 100,
        "p50_latency_ms": chance.random() * 50,
        "p95_latency_ms": chance.random() * 200,
        "p99_latency_ms": chance.random() * 400,
        "proxy_requests": requests,
        "proxy_error_rate": 0.0,
        "proxy_p50_latency_ms": 1.0,
        "proxy_p95_latency_ms": 2.0,
        "proxy_p99_latency_ms": chance.random() * 400,
        "probes_sent": 14,
        "probes_failed": 0,
        "probe_share": 20 / requests,
        "mode": mode,
        "version": "1.4.0",
        "chaos": "none",
        "uptime_seconds": chance.random() * 100000,
    }


def decision(domain: str, checked: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """An answer of the policy engine as it is recorded."""
    return {
        "outcome": "allowed",
        "allow": True,
        "reasons": [],
        "checked": checked,
        "thresholds": {"environment": "production", "error_rate": {"max": 0.01}, "source": "default"},
        "decision_id": hashlib.md5(f"{domain}{checked}".encode()).hexdigest(),
        "policy_revision": REVISION,
        "input": {"environment": "production", "host": "web1", "service": "app", "version": "1.4.0", **asked},
        "duration_ms": 2.6,
    }


def event(number: int, chance: random.Random) -> dict[str, Any]:
    """Of hundred: a deploy, a promotion and two steps of it, one that is blocked; readings of the status otherwise."""
    kind = {0: "deploy", 40: "promote_step", 41: "promote_step", 42: "promote", 70: "promote_blocked"}.get(
        number % 100, "status_scrape"
    )
    mode = "canary" if kind.startswith("promote") else "stable"
    found = evidence(chance, mode)
    facts = {"disk_free_gb": chance.random() * 100, "cpu_load_1m": chance.random(), "mem_free_percent": 40.5}
    policy = {
        "infrastructure": decision("infrastructure", facts, {"facts": facts}),
        "canary": decision("canary", {"error_rate": found["error_rate"]}, {"evidence": found, "min_requests": 20}),
    }
    return {
        "event": kind,
        "timestamp": (START + timedelta(seconds=5 * number)).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "run_id": f"0b9e7c1e-7f5e-4c3a-9a51-{number // 100:012d}",
        "actor": "ada@control1",
        "host": f"web{number % 5}",
        "service": "app",
        "mode": mode,
        "version": f"1.{number // 100}.0",
        "release": f"20260101T000000Z-{number // 100:06x}",
        "req_per_sec": found["req_per_sec"],
        "error_rate": found["error_rate"],
        "p99_latency_ms": found["p99_latency_ms"],
        "chaos": "none",
        "policy": policy,
        "reason": "error rate is 5.00 %, maximum is 1.00 %" if kind == "promote_blocked" else None,
        "duration_s": 4.1,
        **({} if kind == "status_scrape" else {"evidence": found}),
    }


def fill(path: Path, lines: int) -> None:
    """A history as the lines of `append` are, without its waiting for the disk."""
    chance, prev, record = random.Random(1), history.ZERO_HASH, {}
    with path.open("wb") as out:
        for number in range(lines):
            record = history.build_record(event(number, chance), number + 1, prev)
            prev = record["hash"]
            out.write(history.encode(record))
    head = '{{"seq": {seq}, "hash": "{hash}", "timestamp": "{timestamp}"}}\n'.format(**record)
    path.with_name(f"{path.name}.head").write_text(head)


def measured(words: list[str]) -> tuple[float, float, float]:
    """Wall seconds, processor seconds, and the most memory in MiB, of a program that must end well."""
    began = time.perf_counter()
    with Path(os.devnull).open("w") as nowhere:
        process = subprocess.Popen(words, stdout=nowhere)
        _pid, status, usage = os.wait4(process.pid, 0)
    assert status == 0, words
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Entry point."""
    programs = {name: words for name, words in PROGRAMS.items() if shutil.which(words[0])}
    print("| lines | MiB | program | s | of that processor s | lines/s | memory MiB | processor against jq |")
    print("|---|---|---|---|---|---|---|---|")
    for lines in LINES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "history.jsonl"
            fill(path, lines)
            size = path.stat().st_size / 1024**2
            # In the page cache for all of them, as far as it fits.
            measured(["cat", str(path)])
            found = {name: measured([*words, str(path)]) for name, words in programs.items()}
            base = found["jq -c ."][1] if "jq -c ." in found else float("nan")
            for name, (seconds, processor, memory) in found.items():
                print(
                    f"| {lines:,} | {size:.0f} | {name} | {seconds:.1f} | {processor:.1f} | "
                    f"{lines / seconds:,.0f} | {memory:.0f} | {processor / base:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
