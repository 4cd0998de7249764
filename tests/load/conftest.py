"""The traffic service's stack in each runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import RUNTIMES
from load.stack import Stack
from support.kill.stack import discard
from support.workspace import Workspace


@pytest.fixture(params=RUNTIMES)
def stack(request: pytest.FixtureRequest, tmp_path: Path, parts_dir: Path) -> Iterator[Stack]:
    """A stack that is not started yet."""
    workspace = Workspace(tmp_path / "clone", request.param, settle_seconds=5)
    workspace.extra["parts_dir"] = str(parts_dir)
    made = Stack(workspace)
    yield made
    discard(workspace)
    made.remove()
