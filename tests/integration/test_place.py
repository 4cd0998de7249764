"""Where a checkout lies, the umask and the environment under which it is used: a deploy works wherever it can."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kill import stack
from support.workspace import Workspace


@pytest.fixture
def strict() -> Iterator[None]:
    """A umask that keeps everything from everybody else."""
    before = os.umask(0o077)
    yield
    os.umask(before)


# What supervisord, a shell, a format of Python's or an inventory could take for their own.
ODD = "my app %s'q\"d ;#é(x)&"
# What would have docker, compose, pip, Python or a shell read something else than what the stack is made of.
FOREIGN = {
    "COMPOSE_FILE": "/nowhere/compose.yml",
    "COMPOSE_PROJECT_NAME": "other",
    "COMPOSE_PROFILES": "idle",
    "COMPOSE_ENV_FILES": "/nowhere/.env",
    "COMPOSE_REMOVE_ORPHANS": "true",
    "DOCKER_DEFAULT_PLATFORM": "linux/s390x",
    "PIP_USER": "1",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_TARGET": "/nowhere",
    "PYTHONUSERBASE": "/nowhere",
    "PYTHONSTARTUP": "/nowhere/start.py",
    "BASH_ENV": "/nowhere/bash",
    "CDPATH": "/tmp",
    "GREP_OPTIONS": "--color=always",
    "TMPDIR": "/nowhere",
    "TZ": "Pacific/Chatham",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
}


@pytest.mark.parametrize(("runtime", "name"), [("process", ODD), ("docker", "plain")])
def test_a_deploy_works_under_a_strict_umask_in_a_folder_of_any_name(
    strict: None, tmp_path: Path, runtime: str, name: str
) -> None:
    workspace = Workspace(tmp_path / name, runtime)
    try:
        workspace.play("deploy", environment=FOREIGN).ok()
        assert {one["outcome"] for one in workspace.last("deploy")["policy"].values()} == {"allowed"}
        assert workspace.get().status_code == 200
        # As an earlier version left them under such a umask.
        home = workspace.folder / ".swiftdeploy" / workspace.name
        for folder in (home / "opa" / "policies", home / "config") if runtime == "docker" else ():
            folder.chmod(0o700)
        workspace.write_manifest(version="1.0.1")
        workspace.play("deploy", environment=FOREIGN).ok()
        assert {one["outcome"] for one in workspace.last("deploy")["policy"].values()} == {"allowed"}
    finally:
        stack.discard(workspace)
