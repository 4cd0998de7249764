"""The traffic service's stack in each runtime."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import RUNTIMES
from load.stack import Stack
from support.workspace import Workspace


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """An empty folder that every user may enter.

    Root's nginx serves as nobody, who cannot keep a larger body in a file below pytest's own folders.
    """
    folder = Path(tempfile.mkdtemp(prefix="sdload-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=RUNTIMES)
def stack(request: pytest.FixtureRequest, open_folder: Path, parts_dir: Path) -> Iterator[Stack]:
    """A stack that is not started yet."""
    workspace = Workspace(open_folder / "clone", request.param)
    workspace.extra["parts_dir"] = str(parts_dir)
    made = Stack(workspace)
    yield made
    workspace.write_manifest()
    workspace.play("teardown", "-e", "clean=true", "-e", "break_lock=true")
    made.remove()
