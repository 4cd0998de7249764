"""Appends lines to a history and keeps which of them were acknowledged; goes on where a killed one stopped.

history_writer.py HISTORY ACKNOWLEDGED NAME COUNT MAX_SIZE

ACKNOWLEDGED gets one run_id a line, after `append` returned. Every start takes names of its own for its lines, as
a line that was written and not acknowledged may be in the history too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from swiftdeploy import history


def main() -> None:
    """Entry point."""
    target, acknowledged, name, count, max_size = sys.argv[1:]
    place = Path(acknowledged)
    done = place.read_bytes().count(b"\n") if place.exists() else 0
    with place.open("ab", buffering=0) as out:
        for number in range(done, int(count)):
            run_id = f"{name}-{os.getpid()}-{number}"
            history.append(target, {"event": "status_scrape", "run_id": run_id, "host": name}, int(max_size))
            out.write(f"{run_id}\n".encode())


if __name__ == "__main__":
    main()
