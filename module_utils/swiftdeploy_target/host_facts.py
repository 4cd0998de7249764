"""The figures of a host that a deploy is decided on: disk, inodes, load, memory, time.

Units: GB is 10^9 and MB 10^6 bytes, percentages are 0..100. "Free" is what an ordinary user can have:
without the blocks and inodes reserved for root, and for memory the kernel's own estimate of what can be
taken without swapping. Figures are the whole host's, also inside a container with limits of its own.
Figures are cut (free space) or rounded to the decimals they are shown with, so that what is judged is
what a person reads. A figure that cannot be measured is None and named in the problems, never guessed.
A figure that this host does not have at all is None and named in not_applicable, with the reason.
"""

from __future__ import annotations

import math
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

MEMINFO = "/proc/meminfo"

DISK_FIGURES = ("disk_free_gb", "disk_total_gb", "disk_path", "inodes_free_percent")
ENGINE_FIGURES = ("engine_disk_free_gb", "engine_disk_total_gb", "engine_disk_path")
LOAD_FIGURES = ("cpu_load_1m", "cpu_load_5m", "cpu_load_15m", "cpus", "cpu_load_per_cpu")
MEMORY_FIGURES = ("mem_free_percent", "mem_available_mb", "mem_total_mb")

Figures = Dict[str, Any]


class Sources(NamedTuple):
    """Where the figures come from; replaced in tests."""

    statvfs: Callable[[str], os.statvfs_result]
    getloadavg: Callable[[], Tuple[float, float, float]]
    cpus: Callable[[], int]
    meminfo: Callable[[], str]
    now: Callable[[], datetime]


def usable_cpus() -> int:
    """CPUs this process may run on; all of the host's where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 0


def read_meminfo() -> str:
    """The text of /proc/meminfo. Raises OSError, for example where there is no /proc (macOS)."""
    return Path(MEMINFO).read_text(encoding="ascii", errors="replace")


def utc_now() -> datetime:
    """The present time in UTC."""
    return datetime.now(timezone.utc)


THIS_HOST = Sources(os.statvfs, os.getloadavg, usable_cpus, read_meminfo, utc_now)


def measure(path: str, engine_path: str = "", sources: Sources = THIS_HOST) -> Dict[str, Any]:
    """``{"facts": {figure: number | str | None, "not_applicable": {figure: why}}, "problems": [str]}`` of this host.

    path is the deploy path; where it does not exist yet its nearest existing parent is measured. engine_path is where
    the container engine keeps its data, empty where none runs.
    """
    facts: Figures = {}
    problems: List[str] = []
    missing: Dict[str, str] = {}
    for names, part in (
        (DISK_FIGURES, lambda: disk(path, sources.statvfs)),
        (ENGINE_FIGURES, lambda: engine_disk(engine_path, sources.statvfs)),
        (LOAD_FIGURES, lambda: load(sources.getloadavg(), sources.cpus())),
        (MEMORY_FIGURES, lambda: memory(sources.meminfo())),
    ):
        figures, problem = _attempt(names, part)
        missing.update(figures.pop("not_applicable", {}))
        facts.update(figures)
        problems.extend(problem)
    facts["not_applicable"] = missing
    facts["timestamp"] = timestamp(sources.now())
    return {"facts": facts, "problems": problems}


def _attempt(names: Tuple[str, ...], part: Callable[[], Figures]) -> Tuple[Figures, List[str]]:
    try:
        return part(), []
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        where = getattr(error, "filename", None)
        detail = f"{where}: {words}" if where else words
        return dict.fromkeys(names), ["{} not measured: {}".format(", ".join(names), detail)]


def disk(path: str, statvfs: Callable[[str], os.statvfs_result] = os.statvfs) -> Figures:
    """Space and inodes of the file system the path is or will be on. Raises OSError, ValueError.

    A file system without a fixed number of inodes (btrfs, for example) has them under not_applicable.
    """
    place, stat = _nearest(os.path.abspath(path), statvfs)  # noqa: PTH100  of a path that need not exist
    free, total = _space(place, stat)
    figures = {"disk_free_gb": free, "disk_total_gb": total, "disk_path": place, "inodes_free_percent": None}
    if stat.f_files > 0:
        return {**figures, "inodes_free_percent": cut(100.0 * stat.f_favail / stat.f_files)}
    why = f"the file system of {place} has no fixed number of inodes"
    return {**figures, "not_applicable": {"inodes_free_percent": why}}


def engine_disk(path: str, statvfs: Callable[[str], os.statvfs_result] = os.statvfs) -> Figures:
    """Space where the container engine keeps its data. Raises OSError, ValueError.

    Under not_applicable where there is no engine, or where its data is not on this host but in a machine of its own.
    """
    figures: Figures = dict.fromkeys(ENGINE_FIGURES)
    if not path:
        return {**figures, "not_applicable": {"engine_disk_free_gb": "no container engine runs the stack"}}
    try:
        stat = statvfs(path)
    except (FileNotFoundError, NotADirectoryError):
        why = f"the container engine's {path} is not on this host"
        return {**figures, "not_applicable": {"engine_disk_free_gb": why}}
    free, total = _space(path, stat)
    return {"engine_disk_free_gb": free, "engine_disk_total_gb": total, "engine_disk_path": path}


def _space(place: str, stat: os.statvfs_result) -> Tuple[float, float]:
    """Free and total GB. Raises ValueError."""
    if stat.f_blocks <= 0 or stat.f_frsize <= 0 or not 0 <= stat.f_bavail <= stat.f_blocks:
        raise ValueError(f"{place}: its file system tells no size")
    return cut(stat.f_bavail * stat.f_frsize / 1e9), cut(stat.f_blocks * stat.f_frsize / 1e9)


def _nearest(path: str, statvfs: Callable[[str], os.statvfs_result]) -> Tuple[str, os.statvfs_result]:
    """The path itself or its nearest existing parent, with its figures. Raises OSError for any other fault."""
    while True:
        try:
            return path, statvfs(path)
        except (FileNotFoundError, NotADirectoryError):
            parent = os.path.dirname(path)  # noqa: PTH120
            if parent == path:
                raise
            path = parent


def load(loads: Tuple[float, float, float], cpus: int) -> Figures:
    """Load averages of 1, 5 and 15 minutes, and the first for each usable CPU. Raises ValueError."""
    if cpus < 1 or not all(math.isfinite(value) and value >= 0 for value in loads):
        raise ValueError(f"the system tells a load of {loads} on {cpus} CPUs")
    one, five, fifteen = (round(value, 2) for value in loads)
    return {
        "cpu_load_1m": one,
        "cpu_load_5m": five,
        "cpu_load_15m": fifteen,
        "cpus": cpus,
        "cpu_load_per_cpu": round(one / cpus, 2),
    }


def memory(meminfo: str) -> Figures:
    """Available and total memory out of /proc/meminfo's text. Raises ValueError where a line is missing."""
    total = _kib(meminfo, "MemTotal")
    available = _kib(meminfo, "MemAvailable")
    if total is None or available is None or not 0 <= available <= total or total == 0:
        raise ValueError(f"{MEMINFO}: no usable MemTotal and MemAvailable")
    return {
        "mem_free_percent": cut(100.0 * available / total),
        "mem_available_mb": cut(available * 1024 / 1e6),
        "mem_total_mb": cut(total * 1024 / 1e6),
    }


def _kib(meminfo: str, name: str) -> Optional[int]:
    for line in meminfo.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == name + ":" and words[2] == "kB" and words[1].isdecimal():
            return int(words[1])
    return None


def timestamp(now: datetime) -> str:
    """A time as 2026-11-21T03:55:00.123Z."""
    utc = now.astimezone(timezone.utc).replace(tzinfo=None)
    return utc.isoformat(timespec="milliseconds") + "Z"


def cut(number: float) -> float:
    """A number cut, not rounded, to two decimals: 9.999 GB free must not be shown, or pass, as 10."""
    return math.floor(number * 100) / 100
