"""Two services from two checkouts on one host, whose manifests share every name that they can.

What is done to one leaves the other alone: its requests, its files, its programs and its history.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import RUNTIMES, in_docker
from load.stack import Generator, Stack
from support.fleet import service_image
from support.kill.stack import discard
from support.workspace import Ran, Workspace, environments

# What a stack writes by itself while nothing is done to it.
LIVELY = ("logs/", "opa/decisions/", "run/", "tmp/", "slots/", "samples.json")


def docker(*words: str) -> str:
    """What docker prints."""
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout


class Service(Stack):
    """One of the two. ``home`` is that of both."""

    def __init__(self, workspace: Workspace, home: Path) -> None:
        super().__init__(workspace)
        self.home, self.name = home, workspace.name
        if workspace.runtime == "docker":
            self.image = service_image(workspace)
        workspace.extra["swiftdeploy_home"] = str(home)

    def manifest(self, version: str, mode: str = "stable") -> None:
        super().manifest(version, mode)
        path = self.workspace.folder / "manifest.yaml"
        text = path.read_text().replace(f"{self.name}-net", "sdtest-shared-net")
        path.write_text(text.replace(f"{self.name}-logs", "sdtest-shared-logs"))

    def play(self, name: str, *arguments: str) -> Ran:
        """A playbook, having ended well."""
        return self.workspace.play(name, *arguments).ok()

    def programs(self) -> list[str]:
        """What identifies each program: a restart changes it."""
        if self.workspace.runtime == "docker":
            found = docker("ps", "--quiet", "--filter", f"label=org.swiftdeploy.service={self.name}").split()
            words = ("inspect", "--format", "{{.Name}} {{.Id}} {{.State.StartedAt}}", *found)
            return sorted(docker(*words).splitlines()) if found else []
        started = {
            pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
            for pid in environments(f"SWIFTDEPLOY_STACK={self.home / self.name}\0")
        }
        return sorted(f"{pid} {start}" for pid, start in started.items())

    def own(self) -> dict[str, Any]:
        """All of it that nothing but an operation on it may change."""
        files = {}
        for folder in (self.home / self.name, self.workspace.folder / "generated" / "localhost" / self.name):
            for path in folder.rglob("*"):
                name = str(path.relative_to(folder))
                if path.is_file() and not name.startswith(LIVELY):
                    files[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
        return {
            "files": files,
            "switches": (self.home / ".log" / f"{self.name}.jsonl").read_text(),
            "history": [record for record in self.workspace.history() if record["service"] == self.name],
            "programs": self.programs(),
            "containers": self.engine("container", "ls", "--all"),
            "networks": self.engine("network", "ls"),
            "volumes": self.engine("volume", "ls"),
        }

    def engine(self, *words: str) -> list[str]:
        """Names of what carries the mark of this service."""
        if self.workspace.runtime != "docker":
            return []
        filters = ("--filter", f"label=org.swiftdeploy.service={self.name}", "--format", "{{json .}}")
        return sorted(line.split('"Name', 1)[1].split('"')[2] for line in docker(*words, *filters).splitlines())

    def is_gone(self, *, data: bool) -> None:
        """Nothing is left, or nothing but its data."""
        assert self.programs() == []
        assert self.engine("container", "ls", "--all") == self.engine("network", "ls") == []
        assert len(self.engine("volume", "ls")) == (1 if data and self.workspace.runtime == "docker" else 0)
        assert (self.home / self.name).exists() == data
        assert (self.home / ".log" / f"{self.name}.jsonl").exists() == data


@pytest.fixture(params=RUNTIMES)
def services(request: pytest.FixtureRequest, tmp_path: Path, parts_dir: Path) -> Iterator[tuple[Service, Service]]:
    """None of them is deployed yet. The parts of the first one's checkout are the home's of both."""
    one, two = (Workspace(tmp_path / name, request.param) for name in ("one", "two"))
    # Each other's names are the beginnings, or the ends, of its own.
    two.name = f"{one.name}-opa"
    two.service_port = one.service_port + (1 if request.param == "process" else 0)
    for workspace in (one, two):
        workspace.extra["parts_dir"] = str(parts_dir)
    home = one.folder / ".swiftdeploy"
    yield Service(one, home), Service(two, home)
    discard(one)


def leaves_alone(other: Service, folder: Path, *operations: Any) -> None:
    """Do ``operations`` while ``other`` has load; each has to leave all of it as it is."""
    before, serving = other.own(), other.serving()
    assert before["programs"]
    key = str(other.home / other.name / "host-key")
    with Generator(other.workspace.url, folder, 600, "--rate", "20", "--watch-header", key) as load:
        for operation in operations:
            operation()
            assert other.own() == before
        result = load.finish()
    assert result["sent"] > 0
    assert (result["failed"], result["websockets"]["cut"]) == (0, 0), result["failures"]
    answered = {version for second in result["seconds"] for version in second["versions"]}
    assert answered == {serving}


def test_what_is_done_to_one_leaves_the_other_alone(services: tuple[Service, Service], tmp_path: Path) -> None:
    one, two = services
    one.manifest("1.0.0")
    one.play("deploy")

    def gone(service: Service, *arguments: str, data: bool) -> None:
        service.play("teardown", *arguments)
        service.is_gone(data=data)

    def again() -> None:
        two.play("deploy")
        assert two.serving() == "7.2.0 stable"

    leaves_alone(
        one,
        tmp_path,
        lambda: two.deploy("7.1.0"),
        lambda: two.promote("7.2.0", "canary"),
        two.rollback,
        lambda: gone(two, data=True),
        lambda: gone(two, "-e", "clean=data", "-e", f"service={two.name}", data=False),
        lambda: two.deploy("7.2.0"),
    )
    assert two.serving() == "7.2.0 stable"
    assert [record["service"] for record in two.workspace.history()] == [two.name] * 6

    # The first one's stack, from the second one's checkout: colleagues with clones of their own do so.
    manifest = ("-e", f"manifest={one.workspace.folder}/manifest.yaml")

    def elsewhere() -> None:
        one.manifest("1.2.0")
        two.play("deploy", *manifest)
        assert one.serving() == "1.2.0 stable"

    def back() -> None:
        one.rollback()
        assert one.serving() == "1.1.0 stable"

    leaves_alone(
        two,
        tmp_path,
        lambda: one.promote("1.1.0", "stable"),
        elsewhere,
        back,
        lambda: gone(one, "-e", "clean=true", data=True),
        lambda: gone(one, "-e", "clean=data", "-e", f"service={one.name}", data=False),
    )
    assert (one.home / two.name).exists()
    assert not (one.workspace.folder / "generated").exists()
    two.workspace.clear().ok()
    two.is_gone(data=False)


def refusals(workspace: Workspace, said: str) -> None:
    """The commands say ``said`` and change nothing."""
    for name, *arguments in (
        ("init",),
        ("validate",),
        ("status", "-e", "once=true"),
        ("deploy",),
        ("chaos", "-e", "chaos=slow"),
        ("teardown", "-e", "clean=data", "-e", f"service={workspace.name}"),
    ):
        refused = workspace.play(name, *arguments).failed()
        assert said in " ".join(refused.out.split()), refused.text
    assert not (workspace.folder / "generated").exists()


@in_docker
def test_a_stack_of_the_same_name_in_another_home_is_refused_and_never_touched(
    deployed: Workspace, tmp_path: Path
) -> None:
    stranger = Workspace(tmp_path / "clone", "docker")
    stranger.name = deployed.name
    stranger.write_manifest(version="6.6.6")
    before, here = deployed.identity(), docker("ps", "--all", "--filter", f"name={deployed.name}")
    home = deployed.folder / ".swiftdeploy"
    refusals(stranger, f"this is the stack of service {deployed.name} in {home} (last changed from ")
    assert deployed.identity() == before
    assert deployed.get().json()["version"] == "1.0.0"
    assert {line.split()[0] for line in docker("ps", "--all", "--filter", f"name={deployed.name}").splitlines()} == {
        line.split()[0] for line in here.splitlines()
    }
    # With all that it remembers it is the same stack no more than without.
    copy = stranger.folder / ".swiftdeploy" / deployed.name
    shutil.copytree(home / deployed.name, copy, ignore=shutil.ignore_patterns("*.sock"), dirs_exist_ok=True)
    assert "the folder is a copy of that one" in stranger.play("deploy").failed().out
    # What nobody marked is somebody's too.
    mine = Workspace(tmp_path / "mine", "docker")
    name = f"swiftdeploy-{mine.name}-blue"
    docker("create", "--name", name, "nginx:1.31.3")
    try:
        said = f"what is not SwiftDeploy's and was left alone: container {name}."
        for operation in ("deploy", "teardown"):
            assert said in " ".join(mine.play(operation).failed().out.split())
        assert docker("ps", "--all", "--format", "{{.Names}}", "--filter", f"name={mine.name}").split() == [name]
    finally:
        docker("rm", name)
