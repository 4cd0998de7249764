"""Fixtures that all tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.kill import stack
from support.workspace import REPOSITORY, Workspace

# Files of minutes, the longest first. With workers that take file by file they begin first, so that all end together.
LONG = (
    "test_bootstrap",
    "test_canary",
    "test_fleet_ssh",
    "test_killed",
    "test_fleet_hosts",
    "test_deploy",
    "test_newcomer",
    "test_restarted",
    "test_interleaved",
    "test_wrong_order",
    "test_walk",
    "test_status_live",
    "test_no_lost_request",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the files above to the front; the order within a file stays."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session")
def opa_binary() -> str:
    """The OPA that a deploy would use, fetched or built when it is not there yet."""
    script = REPOSITORY / "tests" / "support" / "opa.sh"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run([str(script)], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="session")
def parts_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of installed programs for all workspaces of a session, so that they are built once."""
    return tmp_path_factory.mktemp("parts")


@pytest.fixture
def make_workspace(tmp_path: Path, parts_dir: Path) -> Iterator[Callable[[str], Workspace]]:
    """Makes workspaces, and tears down what they started."""
    made: list[Workspace] = []

    def make(runtime: str) -> Workspace:
        workspace = Workspace(tmp_path / f"clone{len(made)}", runtime)
        workspace.extra["parts_dir"] = str(parts_dir)
        made.append(workspace)
        return workspace

    yield make
    for workspace in made:
        # Whatever a stack consists of, its folder is there first.
        if (workspace.folder / ".swiftdeploy").exists():
            stack.discard(workspace)


RUNTIMES = [pytest.param("process", id="process"), pytest.param("docker", id="docker", marks=pytest.mark.docker)]
# What is the same in both runtimes is tried in one, as a rule this one.
in_process = pytest.mark.parametrize("shared_workspace", RUNTIMES[:1], indirect=True)
# What reads an engine's logs or asks in a container is tried there.
in_docker = pytest.mark.parametrize("shared_workspace", RUNTIMES[1:], indirect=True)


@pytest.fixture(params=RUNTIMES)
def workspace(request: pytest.FixtureRequest, make_workspace: Callable[[str], Workspace]) -> Workspace:
    """A fresh workspace in each runtime."""
    return make_workspace(request.param)


@pytest.fixture(scope="session", params=RUNTIMES)
def shared_workspace(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, parts_dir: Path
) -> Iterator[Workspace]:
    """One workspace a runtime for the whole session."""
    workspace = Workspace(tmp_path_factory.mktemp("shared") / "clone", request.param)
    workspace.extra["parts_dir"] = str(parts_dir)
    yield workspace
    stack.discard(workspace)


@pytest.fixture
def deployed(shared_workspace: Workspace) -> Workspace:
    """The shared workspace with version 1.0.0 in stable mode serving.

    A deploy brings that about, unless everything is as the last one left it.
    """
    shared_workspace.write_manifest()
    if shared_workspace.identity() != shared_workspace.settled:
        shared_workspace.play("deploy").ok()
        shared_workspace.settled = shared_workspace.identity()
    return shared_workspace


@pytest.fixture
def no_return(deployed: Workspace) -> Iterator[Workspace]:
    """The same, with the rule as shipped: a release that was taken away does not come back unasked."""
    deployed.let_releases_return(False)
    yield deployed
    deployed.let_releases_return(True)
