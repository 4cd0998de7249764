"""Cold deploy, no-op deploy and promote on 1, 3 and 10 hosts over SSH, against ssh and docker compose in a shell loop.

Run by `make bench`. The hosts are containers on this machine with systemd, sshd and an engine of their own (see
tests/support/hosts.py), so that all of them and the controller share its cores; images are there before the clock
starts, for both sides. The loop sends what SwiftDeploy rendered for a host with tar, and brings it up with
``docker compose up -d --wait``, all hosts at once as SwiftDeploy does. Both sides are measured in one run.

CPU is that of the controller's processes alone: what runs on the hosts is not in it. Memory is the highest sum of
their proportional set sizes. SWIFTDEPLOY_HOSTS ("1,3,10") and SWIFTDEPLOY_ROUNDS (2) say how much is measured.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from load.stack import BUNDLED
from support.hosts import Host, Hosts, docker
from support.workspace import REPOSITORY, Workspace

COUNTS = [int(word) for word in os.environ.get("SWIFTDEPLOY_HOSTS", "1,3,10").split(",")]
ROUNDS = int(os.environ.get("SWIFTDEPLOY_ROUNDS", "2"))
STEPS = ("cold deploy", "no-op deploy", "promote")
# The evidence window is a wait that was asked for, not work.
WINDOW_SECONDS = 2.0
# No step takes that long, however many hosts.
LIMIT = 1800


class Cost(NamedTuple):
    """Of one step: wall seconds, CPU seconds of the controller, MiB of the controller at most."""

    wall: float
    cpu: float
    memory: float


Figures = dict[str, list[Cost]]


def descendants(parent: int) -> list[int]:
    """The processes below ``parent``."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                above = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(above, []).append(int(entry.name))
        except OSError:
            continue
    found, waiting = [], [parent]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def memory() -> float:
    """MiB of this process's descendants, shared pages by their share."""
    total = 0
    for pid in descendants(os.getpid()):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def measured(work: Callable[[], object], waited: float = 0.0) -> Cost:
    """What ``work`` costs; ``waited`` seconds of it are no work."""
    peak, over = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.5):
            peak = max(peak, memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    try:
        work()
    finally:
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        over.set()
        watcher.join()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall - waited, cpu, peak)


def tool(workspace: Workspace, inventory: Path) -> Figures:
    """What each step costs by SwiftDeploy."""
    found: Figures = {step: [] for step in STEPS}
    words = ("-i", str(inventory), "-e", "mode=canary")
    for _round in range(ROUNDS):
        workspace.write_manifest()
        found["cold deploy"].append(measured(lambda: workspace.play("deploy", *words[:2], seconds=LIMIT).ok()))
        found["no-op deploy"].append(measured(lambda: workspace.play("deploy", *words[:2], seconds=LIMIT).ok()))
        found["promote"].append(measured(lambda: workspace.play("promote", *words, seconds=LIMIT).ok(), WINDOW_SECONDS))
        workspace.play("teardown", *words[:2], seconds=LIMIT).ok()
    return found


def loop(hosts: Hosts, workspace: Workspace, command: str, *, send: bool = True) -> None:
    """A shell loop over all hosts at once: send what was rendered for each, and run a command there."""
    ssh = f"ssh -i {hosts.key} {hosts.ssh_args()} -o ControlPath=/tmp/{hosts.network}-loop-%C"
    each = f'{ssh} deploy@$1 "mkdir -p app && tar -C app -x && cd app && {command}"'
    folder, name = workspace.folder, workspace.name
    script = f"tar -C {folder}/generated/$0/{name} -c . | {each}" if send else f'{ssh} deploy@$1 "cd app && {command}"'
    words = "".join(f"{host.name} {host.address}\n" for host in hosts)
    subprocess.run(
        ["xargs", "-P", "50", "-n", "2", "sh", "-c", script], input=words, text=True, check=True, capture_output=True
    )


def bare(workspace: Workspace, hosts: Hosts, inventory: Path) -> Figures:
    """What each step costs by ssh and docker compose: up from nothing, up again, up in the other mode."""
    found: Figures = {step: [] for step in STEPS}
    up = "docker compose up -d --wait"
    for _round in range(ROUNDS):
        for step, mode in zip(STEPS, ("stable", "stable", "canary"), strict=True):
            workspace.write_manifest(mode=mode)
            workspace.play("init", "-i", str(inventory), seconds=LIMIT).ok()
            found[step].append(measured(lambda: loop(hosts, workspace, up)))
        loop(hosts, workspace, "docker compose down -v", send=False)
    return found


def load_images(hosts: Hosts, workspace: Workspace, folder: Path) -> None:
    """Give all hosts the three images."""
    if not docker("image", "ls", "--quiet", BUNDLED):
        workspace.play("deploy").ok()
        workspace.clear().ok()
    archive = folder / "images.tar"
    if not archive.exists():
        docker("save", "--output", str(archive), BUNDLED, "nginx:1.31.3", "openpolicyagent/opa:1.22.0-static")

    def load(host: Host) -> None:
        host.put(archive, "/root/images.tar")
        host.shell("docker load --quiet --input /root/images.tar && rm /root/images.tar", seconds=300)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(load, hosts))


def median(costs: list[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


def table(sides: dict[int, tuple[Figures, Figures]]) -> str:
    """The table that docs/benchmarks.md holds."""
    lines = [
        "| run | hosts | ssh and compose | SwiftDeploy (ratio) | controller CPU a host | memory, of it a host |",
        "|---|---|---|---|---|---|",
    ]
    first, last = min(sides), max(sides)
    for step in STEPS:
        for count, (plain, ours) in sides.items():
            base, cost = median(plain[step]), median(ours[step])
            grown = (cost.memory - median(sides[first][1][step]).memory) / max(count - first, 1)
            each = f"{cost.memory:.0f} MiB" + (f", {grown:.0f}" if count > first else "")
            lines.append(
                f"| {step} | {count} | {base.wall:.1f} s | {cost.wall:.1f} s ({cost.wall / base.wall:.1f}) "
                f"| {cost.cpu / count:.1f} s (loop {base.cpu / count:.1f}) | {each} |"
            )
        growth = [median(side[last][step]).wall / median(side[first][step]).wall for side in _by_side(sides)]
        lines.append(
            f"| {step}, growth {first} to {last} | | {growth[0]:.1f} times | {growth[1]:.1f} times | | |"
            if last > first
            else ""
        )
    return "\n".join(line for line in lines if line)


def _by_side(sides: dict[int, tuple[Figures, Figures]]) -> list[dict[int, Figures]]:
    return [{count: both[side] for count, both in sides.items()} for side in (0, 1)]


def main() -> None:
    """Print the table."""
    sides: dict[int, tuple[Figures, Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="sdbench-") as place:
        workspace = Workspace(Path(place) / "clone", "docker", check_seconds=1, settle_seconds=5)
        for count in COUNTS:
            with Hosts(Path(place) / f"hosts{count}", [f"web{number}" for number in range(1, count + 1)]) as hosts:
                load_images(hosts, workspace, Path(place))
                inventory = hosts.inventory({"swiftdeploy_environment": "local"})
                ours = tool(workspace, inventory)
                sides[count] = (bare(workspace, hosts, inventory), ours)
            print(json.dumps({count: sides[count]}), flush=True)
    words = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()
    load = os.getloadavg()[0]
    print(f"\ncommit {commit}, median of {ROUNDS} rounds, {os.cpu_count()} cores, load at the end {load:.1f}\n")
    print(table(sides))


if __name__ == "__main__":
    main()
