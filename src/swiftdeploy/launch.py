"""Shipped to the hosts of the process runtime. Start the program that a JSON file describes: ``launch.py FILE``.

FILE holds {"argv": [...], "env": {...}, "cwd": ..., "mark": ...}. Names, values and secrets of a manifest stay
data this way; they never pass through supervisord's own configuration language or a shell.
"""

import json
import os
import sys


def main() -> None:
    """Replace this process by the program."""
    with open(sys.argv[1], encoding="utf-8") as stream:
        wanted = json.load(stream)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER") if name in os.environ}
    environment = {**kept, **wanted.get("env", {}), "SWIFTDEPLOY_STACK": wanted["mark"]}
    os.chdir(wanted.get("cwd") or wanted["mark"])
    os.execvpe(wanted["argv"][0], wanted["argv"], environment)


if __name__ == "__main__":
    main()
