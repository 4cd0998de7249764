"""A release that dies when it has got the traffic: the one before it is still warm and has it back at once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import in_docker
from support.clients import Load
from support.kill import watcher
from support.workspace import REPOSITORY, Workspace, wait_until

SERVICE = REPOSITORY / "tests" / "support" / "services" / "named.py"


def manifest(workspace: Workspace, version: str, mode: str = "stable", settle: str = "4s", **env: str) -> None:
    """A release of the service that is told when to die."""
    words = json.dumps(env)
    services = f"  command: [{sys.executable}, {SERVICE}]\n  env: {words}\n"
    services += f"  healthcheck: {{interval: 5s, settle: {settle}}}"
    workspace.write_manifest(version, mode=mode, services=services)


def state(workspace: Workspace) -> dict[str, Any]:
    """What the host remembers."""
    found: dict[str, Any] = json.loads((workspace.folder / ".swiftdeploy" / workspace.name / "state.json").read_text())
    return found


def kill_while_watching(workspace: Workspace, alone: bool = False) -> None:
    """Start a deploy and kill it as soon as it watches; unless ``alone`` with what it runs on the host."""
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "deploy.yml"]
    extra = json.dumps({"swiftdeploy_runtime": workspace.runtime, **workspace.extra})
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    run = subprocess.Popen([*words, "-e", extra], cwd=workspace.folder, **quiet)  # type: ignore[call-overload]
    wait_until(lambda: (state(workspace)["settling"] or {}).get("slot") == state(workspace)["live"], "the watch", 60)
    modules = watcher.modules(run.pid, watcher.parents())
    assert modules
    watcher.kill_run(run.pid)
    for pid in [] if alone else modules:
        os.kill(pid, signal.SIGKILL)
    run.wait()


def pid_of(workspace: Workspace, version: str) -> int | None:
    """The process of a release."""
    found = [pid for pid, env in workspace.processes().items() if env.get("APP_VERSION") == version]
    return found[0] if found else None


def test_a_release_that_dies_after_the_switch_gives_the_traffic_back(
    make_workspace: Callable[[str], Workspace],
) -> None:
    workspace = make_workspace("process")
    # The first one has nothing to go back to: it is said, and the run is not done.
    manifest(workspace, "0.1.0", DIES_AFTER="2")
    first = workspace.play("deploy").failed()
    assert "(v0.1.0) died: it ended by itself" in first.text
    assert "There is nothing to go back to: blue keeps the traffic." in first.text
    assert "named 0.1.0 ran out of luck" in first.text
    manifest(workspace, "1.0.0", settle="0s")
    workspace.play("deploy").ok()
    with Load(workspace.url) as load:
        manifest(workspace, "2.0.0", DIES_AFTER="2")
        died = workspace.play("deploy").failed()
        assert re.search(
            r"\(v2\.0\.0\) died: it ended by itself \(.+\), \d\.\d s after it had got the traffic", died.text
        )
        assert "(v1.0.0) has all traffic again." in died.text
        assert "named 2.0.0 ran out of luck" in died.text
    # What was asked while it was dead and nobody knew: not for a second.
    assert len(load.failed) < 100, load.failed
    assert workspace.get().json()["version"] == "1.0.0"
    record = workspace.last("deploy_failed")
    assert "died" in record["reason"]
    assert record["release"].endswith(state(workspace)["releases"][-2]["spec_hash"][:6])
    assert state(workspace)["settling"] is None
    assert [(entry["version"], entry["outcome"]) for entry in state(workspace)["releases"]][-2:] == [
        ("2.0.0", "died"),
        ("1.0.0", "live"),
    ]
    assert pid_of(workspace, "2.0.0") is None
    # A canary that lives and a stable one that does not; then a run that is killed with all that it started.
    manifest(workspace, "3.0.0", DIES_AFTER="2", DIES_IN_STABLE="1")
    workspace.play("promote", "-e", "mode=canary").ok()
    workspace.play("promote", "-e", "mode=stable").failed()
    assert workspace.last("promote_failed")["mode"] == "stable"
    assert workspace.get().json() == {"version": "3.0.0", "mode": "canary"}
    assert state(workspace)["last_stable"]["version"] == "1.0.0"
    # Killed while it watches, with its task on the host; the next run finds that nobody watched when it died.
    manifest(workspace, "4.0.0", settle="60s", DIES_AFTER="6")
    kill_while_watching(workspace)
    wait_until(lambda: workspace.get().status_code == 502, "the release to die")
    manifest(workspace, "5.0.0")
    workspace.play("rollback").ok()
    assert workspace.get().json() == {"version": "3.0.0", "mode": "canary"}
    assert not (workspace.folder / ".swiftdeploy" / workspace.name / "config" / "canary.off").exists()
    # Killed alone, the task on the host sees to it.
    manifest(workspace, "6.0.0", settle="60s", DIES_AFTER="5")
    kill_while_watching(workspace, alone=True)
    wait_until(lambda: state(workspace)["settling"] is None, "its task to take the traffic back")
    assert workspace.get().json() == {"version": "3.0.0", "mode": "canary"}
    wait_until(lambda: pid_of(workspace, "6.0.0") is None, "the dead release to be stopped")
    manifest(workspace, "7.0.0")
    workspace.play("deploy").ok()
    # Later nothing acts by itself, but it is told.
    alive = pid_of(workspace, "7.0.0")
    assert alive is not None
    os.kill(alive, signal.SIGKILL)
    wait_until(lambda: pid_of(workspace, "7.0.0") not in (None, alive), "its restart")
    status = workspace.play("status", "-e", "once=true").ok()
    assert "(live) ended by itself and was started again" in status.out
    assert "ansible-playbook rollback.yml" in status.out


@in_docker
def test_a_container_that_ends_after_the_switch(no_return: Workspace) -> None:
    # Its restart policy starts it again at once.
    command = ["sh", "-c", "(sleep 8; kill -TERM 1) & exec python3 -m swift_service"]
    services = f"  command: {json.dumps(command)}\n  healthcheck: {{interval: 5s, settle: 20s}}"
    no_return.write_manifest("2.0.0", services=services)
    died = no_return.play("deploy").failed()
    assert re.search(r"\(v2\.0\.0\) died: it ended by itself \(.+\), \d+\.\d s after it had got the traffic", died.text)
    assert "(v1.0.0) has all traffic again." in died.text
    assert no_return.get().json()["version"] == "1.0.0"
    assert no_return.last("deploy_failed")["version"] == "2.0.0"
    # It died by its own command, so that it does not come back unasked.
    assert "v2.0.0 died with the traffic on this host" in no_return.play("deploy").failed().out
