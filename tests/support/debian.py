"""Programs of Debian's packages that tests need."""

from __future__ import annotations

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).with_suffix(".sh")


def programs(package: str, *names: str) -> Path:
    """The folder with these programs of a package. Fails where they cannot be had."""
    done = subprocess.run([str(SCRIPT), package, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())
