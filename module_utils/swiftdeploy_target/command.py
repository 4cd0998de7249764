"""Running a program with an argument list, bounded in time; never a shell."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence


class Finished(NamedTuple):
    """Exit status and decoded output. Status 127: not found; 124: out of time."""

    status: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        """True when the program ended with status 0."""
        return self.status == 0

    @property
    def text(self) -> str:
        """What the program said, errors first."""
        return (self.err.strip() + "\n" + self.out.strip()).strip()


def placed(arguments: Sequence[str], folder: Path) -> List[str]:
    """``arguments`` with ``folder`` for each %s, but as it is in the program's own path."""
    return [*arguments[:1], *(word.replace("%s", str(folder)) for word in arguments[1:])]


def run(
    arguments: List[str],
    timeout: float = 30.0,
    more: Optional[Dict[str, str]] = None,
    given: str = "",
    folder: Optional[str] = None,
) -> Finished:
    """Run ``arguments`` with ``more`` in its environment and ``given`` to read, in ``folder``.

    A program that fails raises nothing.
    """
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            env={**os.environ, **(more or {})},
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        return Finished(127, "", f"{arguments[0]}: no such program")
    except PermissionError as error:
        return Finished(126, "", str(error))
    except subprocess.TimeoutExpired:
        return Finished(124, "", f"{arguments[0]} gave no answer within {timeout:g} s")
    return Finished(done.returncode, done.stdout, done.stderr)
