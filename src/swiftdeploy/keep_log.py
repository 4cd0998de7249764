"""Shipped to the hosts of the process runtime. Append what is read to a file of bounded size: keep_log.py FILE BYTES.

A file that is full becomes FILE.1, that one FILE.2, and the oldest goes: names and number as supervisord has them.
It ends with the last process that writes to it, and with no signal: launch.py has it ignore them. No last word is lost.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import BinaryIO

BACKUPS = 2
BLOCK = 1 << 16


def turned(out: BinaryIO, path: Path) -> BinaryIO:
    """A new file in place of the one that is full."""
    out.close()
    for number in range(BACKUPS, 0, -1):
        older = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
        with contextlib.suppress(FileNotFoundError):
            older.replace(path.with_name(f"{path.name}.{number}"))
    return path.open("ab", buffering=0)


def main() -> None:
    """Copy standard input to its end."""
    path, largest = Path(sys.argv[1]), int(sys.argv[2])
    # A program may print what is for nobody else.
    os.umask(0o077)
    out: BinaryIO = path.open("ab", buffering=0)
    whole = True
    while block := os.read(0, BLOCK):
        # A disk that is full costs lines of the log, never the program.
        with contextlib.suppress(OSError):
            if whole and out.tell() >= largest:
                out = turned(out, path)
            out.write(block)
        whole = block.endswith(b"\n")


if __name__ == "__main__":
    main()
