"""What users feel of a canary that turns bad at 25 percent, against the same release without steps.

Run by `make bench`. Users send 100 requests/s. With steps [5, 25, 50] and a window of 10 s the canary answers every
request with an error from the moment it has 25 percent; SwiftDeploy takes it back by itself. Without steps the same
release takes all traffic at once, turns bad, and an operator who looks at once (`promote.yml -e mode=stable`, which is
denied, then `rollback.yml`) takes it back.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import requests

from support.workspace import REPOSITORY, Workspace

RATE = 100
CLIENTS = 4
WINDOW = "  window_seconds: 10"
STEPS = "  steps: [5, 25, 50]"


class Request(NamedTuple):
    """One request of a user; ``at`` is the monotonic clock."""

    at: float
    failed: bool
    canary: bool


class Users:
    """Clients that each ask at fixed moments until they are stopped."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self.seen: list[Request] = []
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]

    def _ask(self, number: int) -> None:
        pause = CLIENTS / RATE
        at = time.monotonic() + number / RATE
        with requests.Session() as session:
            while not self._stop.wait(max(0.0, at - time.monotonic())):
                answer = session.get(self._url, timeout=30)
                canary = answer.headers.get("X-Mode") == "canary"
                self.seen.append(Request(time.monotonic(), answer.status_code >= 500, canary))
                at += pause

    def __enter__(self) -> Users:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def manifest(workspace: Workspace, version: str, steps: str = "") -> None:
    """The manifest with the longer window."""
    workspace.write_manifest(version, canary=steps)
    path = workspace.folder / "manifest.yaml"
    path.write_text(path.read_text().replace("  window_seconds: 2", WINDOW))


def canary_weight(workspace: Workspace) -> int:
    """Percent that the release in canary mode has."""
    found = workspace.get("/_swiftdeploy/routing").json()
    return int(sum(weight for slot, weight in found["weights"].items() if slot != found["live"]))


def turn_bad(workspace: Workspace) -> float:
    """Every answer of the canary is an error from now on; the moment."""
    body = {"mode": "error", "rate": 1}
    headers = {**workspace.host_key, "X-SwiftDeploy-Slot": "canary"}
    requests.post(f"{workspace.url}/chaos", json=body, headers=headers, timeout=10).raise_for_status()
    return time.monotonic()


def with_steps(workspace: Workspace) -> tuple[list[Request], float]:
    """The walk, with the canary bad from 25 percent on."""
    manifest(workspace, "2.0.0", STEPS)
    bad: list[float] = []

    def spoil() -> None:
        while canary_weight(workspace) != 25:
            time.sleep(0.05)
        bad.append(turn_bad(workspace))

    with Users(workspace.url) as users:
        spoiler = threading.Thread(target=spoil)
        spoiler.start()
        workspace.play("promote", "-e", "mode=canary").failed()
        spoiler.join()
    return users.seen, bad[0]


def without_steps(workspace: Workspace) -> tuple[list[Request], float]:
    """All traffic at once, bad from then on, and a person who looks at once."""
    manifest(workspace, "3.0.0")
    with Users(workspace.url) as users:
        workspace.play("promote", "-e", "mode=canary").ok()
        bad = turn_bad(workspace)
        workspace.play("promote", "-e", "mode=stable").failed()
        workspace.play("rollback").ok()
    return users.seen, bad


def row(name: str, seen: list[Request], bad: float) -> str:
    """One line of the table."""
    failed = [request for request in seen if request.failed]
    last = max((request.at for request in failed), default=bad)
    during = [request for request in seen if bad <= request.at <= last]
    share = 100 * len(failed) / max(1, len(during))
    return f"| {name} | {last - bad:.1f} | {len(failed)} | {share:.1f} % | {100 * len(failed) / len(seen):.2f} % |"


def way_back(workspace: Workspace) -> str:
    """How long it was from the decision until all traffic was back, as the run recorded it."""
    return f"{workspace.last('promote_blocked')['timings']['back_s']:.2f} s"


def main() -> None:
    """Print the table that docs/benchmarks.md holds."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()
    print(f"commit {commit}, {RATE} requests/s, window 10 s\n")
    print("| | seconds from the fault to the last failed request | failed | of the requests meanwhile | of all |")
    print("|---|---|---|---|---|")
    told: list[str] = []
    with tempfile.TemporaryDirectory(prefix="sdbench-") as place:
        for runtime in ("process", "docker"):
            workspace = Workspace(Path(place) / runtime, runtime, check_seconds=1, settle_seconds=5)
            workspace.extra["parts_dir"] = str(Path(place) / "parts")
            try:
                manifest(workspace, "1.0.0")
                workspace.play("deploy").ok()
                print(row(f"{runtime}, steps", *with_steps(workspace)), flush=True)
                back = way_back(workspace)
                print(row(f"{runtime}, all at once", *without_steps(workspace)), flush=True)
                told.append(f"{runtime}: from the decision until nginx reported all traffic on stable {back}")
            finally:
                workspace.clear("-e", "break_lock=true")
    print("\n" + "\n".join(told))


if __name__ == "__main__":
    main()
