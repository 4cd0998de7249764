"""Where the time of one switch goes, against the bare minimum: the service's own start and end.

Run by `make bench`. For each runtime, several deploys of a new version; the parts are those that the deploy itself
records (`timings` in history.jsonl): start, healthy, introduce, reload, drain, stop, and the total from the plan to
the stopped old slot. Beside each of them the same program is started, asked until it is healthy, and ended, with
nothing of ours around it. What the total has beyond that is the tool's own.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from support.workspace import REPOSITORY, Workspace, free_port

ROUNDS = 8
PARTS = ("start_s", "healthy_s", "introduce_s", "reload_s", "drain_s", "stop_s", "total_s")


def wait_healthy(url: str) -> None:
    """Ask until the answer is 200."""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.01)


def live_spec(workspace: Workspace) -> dict[str, Any]:
    """What the live release was started from."""
    (path,) = workspace.folder.glob(".swiftdeploy/*/state.json")
    state = json.loads(path.read_text())
    spec: dict[str, Any] = state["slots"][state["live"]]["spec"]
    return spec


def bare_process(workspace: Workspace) -> tuple[float, float]:
    """Seconds from the service's start to its health, and to its end, as a plain process."""
    spec, port = live_spec(workspace), free_port()
    with tempfile.TemporaryDirectory(prefix="sdbare-") as place:
        folders = {"STATE_DIR": f"{place}/state", "LOG_DIR": f"{place}/logs"}
        for folder in folders.values():
            Path(folder).mkdir()
        started = time.perf_counter()
        process = subprocess.Popen(
            spec["artifact"]["service_command"],
            cwd=spec["artifact"]["service_dir"],
            env={**os.environ, "HOST": "127.0.0.1", "PORT": str(port), "MODE": "stable", **folders},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_healthy(f"http://127.0.0.1:{port}/healthz")
        healthy = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        process.wait()
        return healthy - started, time.perf_counter() - healthy


def bare_docker(workspace: Workspace) -> tuple[float, float]:
    """The same of the service's container, by plain docker."""
    spec, port = live_spec(workspace), free_port()
    name = f"sdbare-{port}"
    started = time.perf_counter()
    words = ["docker", "run", "--detach", "--rm", "--name", name, "--publish", f"127.0.0.1:{port}:{spec['port']}"]
    words += ["--tmpfs", "/tmp:mode=1777", "--tmpfs", "/var/log/swiftdeploy:mode=1777", "--env", "HOST=0.0.0.0"]
    words += ["--env", f"PORT={spec['port']}", "--env", "STATE_DIR=/tmp/state", spec["artifact"]["image_id"]]
    subprocess.run(words, check=True, capture_output=True)
    wait_healthy(f"http://127.0.0.1:{port}/healthz")
    healthy = time.perf_counter()
    subprocess.run(["docker", "stop", name], check=True, capture_output=True)
    return healthy - started, time.perf_counter() - healthy


def measure(workspace: Workspace) -> dict[str, list[float]]:
    """Seconds of each part over all rounds; bare_start_s and bare_stop_s are the program alone."""
    figures: dict[str, list[float]] = {}
    bare = bare_docker if workspace.runtime == "docker" else bare_process
    workspace.write_manifest("1.0.0")
    workspace.play("deploy").ok()
    for number in range(ROUNDS):
        workspace.write_manifest(f"1.0.{number + 1}")
        workspace.play("deploy").ok()
        timings = workspace.last("deploy")["timings"]
        start, stop = bare(workspace)
        found = {**timings, "bare_start_s": start, "bare_stop_s": stop}
        found["own_s"] = timings["total_s"] - start - stop
        for part, seconds in found.items():
            figures.setdefault(part, []).append(seconds)
    return figures


def main() -> None:
    """Print the table that docs/benchmarks.md holds."""
    sides = {}
    with tempfile.TemporaryDirectory(prefix="sdbench-") as place:
        for runtime in ("process", "docker"):
            workspace = Workspace(Path(place) / runtime, runtime, check_seconds=1, settle_seconds=5)
            workspace.extra["parts_dir"] = str(Path(place) / "parts")
            try:
                sides[runtime] = measure(workspace)
            finally:
                workspace.clear("-e", "break_lock=true")
    words = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()
    print(f"commit {commit}, median (highest) of {ROUNDS} switches, seconds\n")
    print("| part | process runtime | docker runtime |")
    print("|---|---|---|")
    rows = [(part, part.removesuffix("_s")) for part in PARTS]
    rows += [("bare_start_s", "the service alone: start to healthy"), ("bare_stop_s", "the service alone: end")]
    rows += [("own_s", "**the tool's own**: total less the service alone")]
    for part, label in rows:
        cells = [
            f"{statistics.median(sides[runtime][part]):.2f} ({max(sides[runtime][part]):.2f})"
            for runtime in ("process", "docker")
        ]
        print(f"| {label} | " + " | ".join(cells) + " |")
    for runtime, figures in sides.items():
        total = statistics.median(figures["total_s"])
        alone = statistics.median(figures["bare_start_s"]) + statistics.median(figures["bare_stop_s"])
        print(f"\n{runtime}: a switch takes {total / alone:.2f} times the service's own start and end")


if __name__ == "__main__":
    main()
