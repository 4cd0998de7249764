"""The host reboots, or containers are killed and restarted, also in the middle of a run: the next run repairs it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable

import pytest

from support.kill import runs, stack
from support.kill.prober import Release
from support.workspace import Ran, Workspace, wait_until

SLOTS = {"blue", "green"}


def settled(workspace: Workspace, release: Release) -> None:
    """``release`` serves whole, everything says so, and a further run leaves it alone."""
    assert stack.inconsistencies(workspace, release) == []
    before = stack.programs(workspace)
    again = workspace.play("deploy", "-v").ok()
    assert "Nothing to change" in again.out
    assert stack.programs(workspace) == before
    assert "is whole" in workspace.play("audit").ok().out


def test_a_host_that_was_switched_off_serves_again_after_a_deploy(make_workspace: Callable[[str], Workspace]) -> None:
    workspace = make_workspace("process")
    workspace.play("deploy").ok()
    stack.power_off(workspace)
    workspace.play("deploy").ok()
    settled(workspace, ("1.0.0", "stable"))
    stack.power_off(workspace)
    workspace.write_manifest(version="2.0.0")
    workspace.play("deploy").ok()
    settled(workspace, ("2.0.0", "stable"))


def test_a_host_that_is_switched_off_in_the_middle_of_a_deploy(make_workspace: Callable[[str], Workspace]) -> None:
    workspace = make_workspace("process")
    workspace.play("deploy").ok()
    workspace.write_manifest(version="2.0.0")
    tasks = runs.counted(workspace, "deploy")
    for version, part in enumerate((0.6, 0.9), start=3):
        workspace.write_manifest(version=f"{version}.0.0")
        task = tasks[int(part * len(tasks))]
        assert runs.struck(workspace, runs.Point(task, "controller", 0.0), "deploy") is not None
        stack.power_off(workspace)
        workspace.play("deploy").ok()
        assert stack.inconsistencies(workspace, (f"{version}.0.0", "stable")) == [], task
    settled(workspace, ("4.0.0", "stable"))


def test_an_nginx_whose_master_was_killed_is_replaced(make_workspace: Callable[[str], Workspace]) -> None:
    """Its workers live on without it and keep the port."""
    workspace = make_workspace("process")
    workspace.play("deploy").ok()
    (master,) = stack.programs(workspace)["nginx"]
    os.kill(int(master.split()[0]), signal.SIGKILL)
    workspace.write_manifest(version="2.0.0")
    try:
        workspace.play("deploy").ok()
        settled(workspace, ("2.0.0", "stable"))
    finally:
        for pid in stack.masterless(workspace):
            os.kill(pid, signal.SIGKILL)


class Run:
    """A playbook in the background."""

    def __init__(self, workspace: Workspace, *words: str) -> None:
        self.ran: Ran | None = None
        self.error: BaseException | None = None

        def work() -> None:
            try:
                self.ran = workspace.play(*words)
            except BaseException as error:  # noqa: BLE001 - told by the thread that waits
                self.error = error

        self._thread = threading.Thread(target=work)
        self._thread.start()

    def end(self) -> Ran:
        """How it ended."""
        self._thread.join()
        if self.error is not None:
            raise self.error
        assert self.ran is not None
        return self.ran


def docker(*words: str) -> None:
    """Run docker; a container that is gone already is no failure."""
    subprocess.run(["docker", *words], capture_output=True, check=False)


def both_slots(workspace: Workspace) -> None:
    """Wait until the new release's container runs beside the old one's."""
    wait_until(lambda: set(stack.programs(workspace)) >= SLOTS, "both slots to run", 60)


@pytest.mark.docker
def test_containers_that_are_killed_in_the_middle_of_a_deploy(make_workspace: Callable[[str], Workspace]) -> None:
    workspace = make_workspace("docker")
    workspace.play("deploy").ok()
    victims = [("nginx",), ("nginx", "blue", "green")]
    for version, names in enumerate(victims, start=2):
        workspace.write_manifest(version=f"{version}.0.0")
        run = Run(workspace, "deploy")
        try:
            both_slots(workspace)
            docker("kill", *[f"swiftdeploy-{workspace.name}-{name}" for name in names])
        finally:
            run.end()
        workspace.play("deploy").ok()
        assert stack.inconsistencies(workspace, (f"{version}.0.0", "stable")) == [], names
    settled(workspace, ("3.0.0", "stable"))


@pytest.mark.docker
def test_an_engine_that_restarts_everything_in_the_middle_of_a_promotion(
    make_workspace: Callable[[str], Workspace],
) -> None:
    workspace = make_workspace("docker")
    workspace.play("deploy").ok()
    for version, mode in enumerate(("canary", "stable"), start=2):
        workspace.write_manifest(version=f"{version}.0.0", mode=workspace.get().json()["mode"])
        run = Run(workspace, "promote", "-e", f"mode={mode}")
        try:
            both_slots(workspace)
            docker("restart", "--time", "1", *stack.containers(workspace))
        finally:
            run.end()
        workspace.play("promote", "-e", f"mode={mode}").ok()
        assert stack.inconsistencies(workspace, (f"{version}.0.0", mode)) == []
    settled(workspace, ("3.0.0", "stable"))
