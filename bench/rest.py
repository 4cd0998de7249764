"""What a deployed stack costs while nobody uses it: processor time of the whole machine.

Run by `make bench`. The machine with nothing deployed, then a stack in each runtime, with a health check each second
and with one each five, one after the other. Needs a Docker engine and a machine that does nothing else.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from support.kill.stack import discard
from support.workspace import Workspace

SECONDS = 30.0
SETTLE_SECONDS = 5.0
# Columns of /proc/stat (proc(5)): user, nice, system, irq, softirq. At 100 ticks a second, ticks a second are percent.
BUSY = (1, 2, 3, 6, 7)


def ticks() -> int:
    """Processor time of the machine since it was started."""
    columns = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(int(columns[column]) for column in BUSY)


def percent() -> float:
    """Percent of one core that the machine uses."""
    time.sleep(SETTLE_SECONDS)
    before = ticks()
    time.sleep(SECONDS)
    return (ticks() - before) / SECONDS


def main() -> None:
    """Print the table."""
    print(f"nothing deployed: {percent():.1f} % of a core")
    print("| runtime | health check | percent of a core |\n|---|---|---|")
    for runtime in ("process", "docker"):
        with tempfile.TemporaryDirectory() as folder:
            workspace = Workspace(Path(folder) / "clone", runtime)
            try:
                for seconds in (1, 5):
                    workspace.check_seconds = seconds
                    workspace.write_manifest()
                    workspace.play("deploy").ok()
                    print(f"| {runtime} | {seconds} s | {percent():.1f} |")
            finally:
                discard(workspace)


if __name__ == "__main__":
    main()
