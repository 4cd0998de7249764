"""Shipped to the hosts of the process runtime. Start the program that a JSON file describes: ``launch.py FILE``.

FILE holds {"argv": [...], "env": {...}, "cwd": ..., "mark": ...}. Names, values and secrets of a manifest stay
data this way; they never pass through supervisord's own configuration language or a shell.
"""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Replace this process by the program."""
    wanted = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER") if name in os.environ}
    environment = {**kept, **wanted.get("env", {}), "SWIFTDEPLOY_STACK": wanted["mark"]}
    os.chdir(wanted.get("cwd") or wanted["mark"])
    os.execvpe(wanted["argv"][0], wanted["argv"], environment)  # noqa: S606


if __name__ == "__main__":
    main()
