"""The hosts of the scenario: ``hosts.py up FOLDER NAME...`` starts them, ``hosts.py down FOLDER`` removes them.

They live as long as a process in the background that holds them; FOLDER/hosts.yml is their inventory.
Needs tests/ on PYTHONPATH.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

from support.hosts import Hosts
from support.workspace import wait_until

# The first time the image of the hosts has to be built.
UP_SECONDS = 1800.0
DOWN_SECONDS = 120.0


def hold(folder: Path, names: list[str]) -> None:
    """Have the hosts until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_words: ended.set())
    (folder / "pid").write_text(str(os.getpid()))
    with Hosts(folder, names) as hosts:
        written = hosts.inventory(path=folder / "hosts.new")
        written.rename(folder / "hosts.yml")
        ended.wait()
    shutil.rmtree(folder)


def up(folder: Path, names: list[str]) -> None:
    """Start the hosts, and return once all of them answer."""
    down(folder)
    folder.mkdir(parents=True)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, "hold", str(folder), *names],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    inventory = folder / "hosts.yml"
    wait_until(lambda: inventory.is_file() or process.poll() is not None, "the hosts", UP_SECONDS)
    if not inventory.is_file():
        sys.exit(f"the hosts could not be started:\n{(folder / 'log').read_text()}")


def down(folder: Path) -> None:
    """Remove the hosts, where there are any."""
    if (folder / "pid").is_file():
        pid = int((folder / "pid").read_text())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the hosts to be gone", DOWN_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["hold", place, *given]:
            hold(Path(place), given)
        case ["up", place, *given]:
            up(Path(place), given)
        case ["down", place]:
            down(Path(place))
        case _:
            sys.exit(__doc__)
