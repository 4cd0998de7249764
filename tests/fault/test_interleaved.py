"""Two runs at once against one host: one works, the other says who does; a foreign lock is never ignored."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from support.kill import stack
from support.kill.prober import Prober
from support.workspace import Ran, Workspace

# Seconds by which the second run of a pair starts later.
OFFSETS = (0.0, 0.0, 0.05, 0.3, 0.8, 2.0) if os.environ.get("SWIFTDEPLOY_KILLS") == "all" else (0.0, 0.0, 0.3, 2.0)
REFUSAL = re.compile(r"(\S+@\S+) holds localhost since (\d{4}-\d\d-\d\dT[\d:.]+Z) for deploy")


def write_lock(workspace: Workspace, **changes: object) -> dict[str, object]:
    """A lock as a run of somebody else left it."""
    lock: dict[str, object] = {
        "run_id": "4c1f0000-0000-5000-8000-000000000000",
        "actor": "alice@elsewhere",
        "controller": "elsewhere",
        "pid": 4242,
        "process_start": "1",
        "since": "2026-01-02T03:04:05.678Z",
        "action": "deploy",
        **changes,
    }
    (stack.folder(workspace) / "lock.json").write_text(json.dumps(lock))
    return lock


def dead_process() -> int:
    """The id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def manifest_of(workspace: Workspace, version: str) -> Path:
    """A manifest file of its own for ``version``; the workspace's stays."""
    kept = (workspace.folder / "manifest.yaml").read_text()
    workspace.write_manifest(version=version)
    path = workspace.folder / f"manifest-{version}.yaml"
    (workspace.folder / "manifest.yaml").rename(path)
    (workspace.folder / "manifest.yaml").write_text(kept)
    return path


def together(workspace: Workspace, versions: list[str], offset: float) -> dict[str, Ran]:
    """Deploy each of two versions, the second ``offset`` seconds after the first; how each ended."""
    paths = {version: manifest_of(workspace, version) for version in versions}
    ended: dict[str, Ran] = {}
    ready = threading.Barrier(len(versions))

    def work(number: int, version: str) -> None:
        ready.wait()
        time.sleep(number * offset)
        ended[version] = workspace.play("deploy", "-e", f"manifest={paths[version]}")

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(versions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for path in paths.values():
        path.unlink()
    assert set(ended) == set(versions), "a run did not end as it should"
    return ended


def test_of_two_runs_one_works_and_the_other_says_who_does(make_workspace: Callable[[str], Workspace]) -> None:
    workspace = make_workspace("process")
    workspace.play("deploy").ok()
    before = ("1.0.0", "stable")
    for number, offset in enumerate(OFFSETS, start=1):
        if number == 2:
            # Both find the same dead holder; one of them takes its place.
            write_lock(workspace, controller=socket.gethostname(), pid=dead_process())
        versions = [f"{number}.1.0", f"{number}.2.0"]
        recorded = len(workspace.history())
        with Prober(workspace.url) as prober:
            ended = together(workspace, versions, offset)
        won = [version for version in versions if ended[version].status == 0]
        assert won, {version: ran.text for version, ran in ended.items()}
        for version in set(versions) - set(won):
            refused = REFUSAL.search(ended[version].out)
            assert refused is not None or "was quicker" in ended[version].out, ended[version].text
        # A release of a run that was refused is never seen, not for one request.
        assert prober.problems({before, *((version, "stable") for version in won)}) == [], (offset, won)
        serves = stack.serving(workspace)
        assert serves[0] in won
        assert stack.inconsistencies(workspace, serves) == [], (offset, won)
        events = [record["event"] for record in workspace.history()[recorded:]]
        assert events.count("deploy") == len(won)
        assert events.count("deploy_failed") == len(versions) - len(won)
        assert events.count("lock_broken") == int(number == 2), events
        before = serves
    assert "is whole" in workspace.play("audit").ok().out


def test_a_lock_of_another_controller_is_refused_with_words_and_broken_on_demand(
    make_workspace: Callable[[str], Workspace],
) -> None:
    # The lock is the same in both runtimes.
    workspace = make_workspace("process")
    workspace.play("deploy").ok()
    lock = write_lock(workspace)
    workspace.write_manifest(version="2.0.0")
    running, routing = stack.programs(workspace), workspace.get("/_swiftdeploy/routing").json()
    for words in (["deploy"], ["promote", "-e", "mode=canary"], ["rollback"]):
        refused = workspace.play(*words).failed()
        assert "alice@elsewhere holds localhost since 2026-01-02T03:04:05.678Z for deploy" in refused.out
        assert "break_lock=true" in refused.out
        assert stack.read(workspace, "lock.json") == lock
    assert stack.programs(workspace) == running
    assert workspace.get("/_swiftdeploy/routing").json() == routing

    workspace.play("deploy", "-e", "break_lock=true").ok()
    assert stack.inconsistencies(workspace, ("2.0.0", "stable")) == []
    reason = workspace.last("lock_broken")["reason"]
    for word in ("break_lock was given", "alice@elsewhere", "2026-01-02T03:04:05.678Z", "deploy"):
        assert word in reason
    assert "is whole" in workspace.play("audit").ok().out
