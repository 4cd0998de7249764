"""What an OPA program says of itself, and whether it will do. Cheap to import: every run asks it."""

from __future__ import annotations

import platform
import re
import struct
from pathlib import Path
from typing import Optional

from .command import run
from .keep import platform_of, version_tuple

OLDEST = (1, 15)


def own_platform() -> str:
    """The platform of this machine."""
    return platform_of(platform.system(), platform.machine())


def version_in(text: str) -> Optional[str]:
    """The version in what `opa version` prints, or None."""
    found = re.search(r"^Version:\s*v?(\d+\.\d+\.\d+\S*)\s*$", text, re.MULTILINE)
    return found.group(1) if found else None


def version_of(program: Path) -> Optional[str]:
    """The version that ``program`` itself tells, or None when it does not run."""
    done = run([str(program), "version"], timeout=20.0)
    return version_in(done.out) if done.ok else None


def unacceptable(version: Optional[str], pin: str) -> str:
    """Why an OPA of ``version`` will not do where ``pin`` is the tested one; empty when it will."""
    if version is None:
        return "it does not answer `opa version`"
    found = version_tuple(version)
    if found[:2] < OLDEST:
        return f"it is {version}, older than {OLDEST[0]}.{OLDEST[1]}, which first keeps its decision log in a file"
    if found[:1] != version_tuple(pin)[:1]:
        return f"it is {version}, another major version than {pin}"
    return ""


def is_static(program: Path) -> bool:
    """Whether a Linux program needs no loader of the system it runs on, so that it runs in an empty image."""
    with program.open("rb") as stream:
        head = stream.read(64)
        if head[:5] != b"\x7fELF\x02":
            return False
        order = "<" if head[5] == 1 else ">"
        (start,) = struct.unpack_from(order + "Q", head, 32)
        size, count = struct.unpack_from(order + "HH", head, 54)
        stream.seek(start)
        table = stream.read(size * count)
    kinds = [struct.unpack_from(order + "I", table, index * size)[0] for index in range(count)]
    return 3 not in kinds  # PT_INTERP
