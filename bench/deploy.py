"""Wall time of cold deploy, no-op deploy and promote in each runtime, against bare compose on the same file.

Run by `make bench`. Everything is measured in one run and side by side, and told as a ratio to
``docker compose up -d --wait`` on the very file that SwiftDeploy rendered. Images and programs are there before the
clock starts, for both sides. Needs a Docker engine.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from support.workspace import REPOSITORY, Workspace

ROUNDS = 3


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compose(folder: Path, *words: str) -> None:
    """Bare compose on the rendered file in ``folder``."""
    subprocess.run(["docker", "compose", *words], cwd=folder, check=True, capture_output=True)


def tool(workspace: Workspace, rounds: int) -> dict[str, list[float]]:
    """Seconds of each kind of run, by SwiftDeploy."""
    figures: dict[str, list[float]] = {"cold deploy": [], "no-op deploy": [], "promote": []}
    for _round in range(rounds):
        workspace.write_manifest()
        figures["cold deploy"].append(timed(lambda: workspace.play("deploy").ok()))
        figures["no-op deploy"].append(timed(lambda: workspace.play("deploy").ok()))
        window = timed(lambda: workspace.play("promote", "-e", "mode=canary").ok())
        # The evidence window is a wait that was asked for, not work.
        figures["promote"].append(window - 2.0)
        workspace.play("teardown").ok()
    return figures


def bare(workspace: Workspace, rounds: int) -> dict[str, list[float]]:
    """Seconds of compose alone: up from nothing, up again, and up with the other mode (which recreates)."""
    folder = workspace.folder / "generated" / "localhost" / workspace.name
    figures: dict[str, list[float]] = {"cold deploy": [], "no-op deploy": [], "promote": []}
    for _round in range(rounds):
        workspace.write_manifest()
        workspace.play("init").ok()
        figures["cold deploy"].append(timed(lambda: compose(folder, "up", "-d", "--wait")))
        figures["no-op deploy"].append(timed(lambda: compose(folder, "up", "-d", "--wait")))
        workspace.write_manifest(mode="canary")
        workspace.play("init").ok()
        figures["promote"].append(timed(lambda: compose(folder, "up", "-d", "--wait")))
        compose(folder, "down", "-v")
    return figures


def main() -> None:
    """Print the table that docs/benchmarks.md holds."""
    with tempfile.TemporaryDirectory(prefix="sdbench-") as place:
        parts = Path(place) / "parts"
        sides: dict[str, dict[str, list[float]]] = {}
        for runtime in ("docker", "process"):
            workspace = Workspace(Path(place) / runtime, runtime, check_seconds=1, settle_seconds=5)
            workspace.extra["parts_dir"] = str(parts)
            # Fetches images and programs before the clock starts.
            workspace.play("deploy").ok()
            workspace.play("teardown").ok()
            sides[runtime] = tool(workspace, ROUNDS)
            if runtime == "docker":
                sides["bare compose"] = bare(workspace, ROUNDS)
            workspace.clear().ok()
    words = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()
    print(f"commit {commit}, median of {ROUNDS} rounds, seconds (ratio to bare compose)\n")
    print("| run | bare compose | docker runtime | process runtime |")
    print("|---|---|---|---|")
    for kind, seconds in sides["bare compose"].items():
        base = statistics.median(seconds)
        cells = [f"{base:.1f}"]
        for runtime in ("docker", "process"):
            value = statistics.median(sides[runtime][kind])
            cells.append(f"{value:.1f} ({value / base:.1f})")
        print(f"| {kind} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
