"""The figures of a host: units, what cannot be measured, where the deploy path does not exist yet."""

from __future__ import annotations

import os
import re
import shutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdeploy_target.host_facts import (
    DISK_FIGURES,
    ENGINE_FIGURES,
    LOAD_FIGURES,
    MEMORY_FIGURES,
    Sources,
    cut,
    disk,
    load,
    measure,
    memory,
    timestamp,
)

MEMINFO = """MemTotal:        8000000 kB
MemFree:          100000 kB
MemAvailable:    2000000 kB
HugePages_Total:       0
"""
NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)


def file_system(**changes: int) -> Any:
    """What statvfs tells of a file system of 100 GB, half of it free, 5 GB of that for root only."""
    told = {
        "f_frsize": 1000,
        "f_blocks": 100_000_000,
        "f_bfree": 50_000_000,
        "f_bavail": 45_000_000,
        "f_files": 1000,
        "f_ffree": 400,
        "f_favail": 300,
    }
    return SimpleNamespace(**(told | changes))


def sources(**changes: Any) -> Sources:
    told = Sources(
        statvfs=lambda _: file_system(),
        getloadavg=lambda: (0.5, 0.4, 0.3),
        cpus=lambda: 2,
        meminfo=lambda: MEMINFO,
        now=lambda: NOON,
    )
    return told._replace(**changes)


def fails(error: Exception) -> Any:
    def source(*_: object) -> None:
        raise error

    return source


def test_every_figure_with_its_unit() -> None:
    assert measure("/srv", "/var/lib/docker", sources()) == {
        "facts": {
            "disk_free_gb": 45.0,  # without what is kept for root
            "disk_total_gb": 100.0,
            "disk_path": "/srv",
            "inodes_free_percent": 30.0,
            "engine_disk_free_gb": 45.0,
            "engine_disk_total_gb": 100.0,
            "engine_disk_path": "/var/lib/docker",
            "cpu_load_1m": 0.5,
            "cpu_load_5m": 0.4,
            "cpu_load_15m": 0.3,
            "cpus": 2,
            "cpu_load_per_cpu": 0.25,
            "mem_free_percent": 25.0,
            "mem_available_mb": 2048.0,
            "mem_total_mb": 8192.0,
            "not_applicable": {},
            "timestamp": "2026-11-21T12:00:00.123Z",
        },
        "problems": [],
    }


def test_this_host_agrees_with_the_standard_library(tmp_path: Path) -> None:
    found = measure(str(tmp_path))
    assert found["problems"] == []
    facts = found["facts"]
    assert facts["disk_total_gb"] == pytest.approx(shutil.disk_usage(tmp_path).total / 1e9, abs=0.01)
    assert facts["cpus"] == len(os.sched_getaffinity(0))
    assert 0 < facts["mem_available_mb"] <= facts["mem_total_mb"]
    assert 0 <= facts["mem_free_percent"] <= 100
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", facts["timestamp"])


def test_a_path_to_come_is_measured_at_its_nearest_parent(tmp_path: Path) -> None:
    assert disk(str(tmp_path / "a" / "b" / "c"))["disk_path"] == str(tmp_path)


def test_a_path_below_a_file_is_measured_at_the_file(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    assert disk(str(blocker / "a"))["disk_path"] == str(blocker)


def test_a_relative_path_is_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert disk("to/come")["disk_path"] == str(tmp_path)


@pytest.mark.parametrize(
    ("broken", "names", "words"),
    [
        ({"statvfs": fails(PermissionError(13, "Permission denied", "/srv"))}, DISK_FIGURES, "/srv: Permission denied"),
        ({"statvfs": fails(FileNotFoundError(2, "No such file", "/"))}, DISK_FIGURES, "/: No such file"),
        ({"statvfs": lambda _: file_system(f_blocks=0)}, DISK_FIGURES, "/srv: its file system tells no size"),
        ({"statvfs": lambda _: file_system(f_bavail=2**64 - 5)}, DISK_FIGURES, "tells no size"),
        ({"getloadavg": fails(OSError("Load averages are unobtainable"))}, LOAD_FIGURES, "unobtainable"),
        ({"getloadavg": lambda: (float("nan"), 0.0, 0.0)}, LOAD_FIGURES, "a load of (nan, 0.0, 0.0)"),
        ({"cpus": lambda: 0}, LOAD_FIGURES, "on 0 CPUs"),
        (
            {"meminfo": fails(FileNotFoundError(2, "No such file or directory", "/proc/meminfo"))},
            MEMORY_FIGURES,
            "/proc/meminfo: No such file or directory",
        ),
        ({"meminfo": lambda: "MemTotal: 8000000 kB\n"}, MEMORY_FIGURES, "no usable MemTotal and MemAvailable"),
        ({"meminfo": lambda: MEMINFO.replace("8000000", "0")}, MEMORY_FIGURES, "no usable"),
        ({"meminfo": lambda: ""}, MEMORY_FIGURES, "no usable"),
    ],
)
def test_what_cannot_be_measured_is_null_and_named(broken: dict[str, Any], names: tuple[str, ...], words: str) -> None:
    found = measure("/srv", sources=sources(**broken))
    assert {name for name, value in found["facts"].items() if value is None} == {*names, *ENGINE_FIGURES}
    assert set(found["facts"]["not_applicable"]) == {"engine_disk_free_gb"}
    (problem,) = found["problems"]
    assert problem.startswith(", ".join(names) + " not measured: ")
    assert words in problem


def test_a_file_system_without_a_number_of_inodes_says_so() -> None:
    found = measure("/srv", "/data", sources(statvfs=lambda _: file_system(f_files=0, f_favail=0)))
    assert found["facts"]["inodes_free_percent"] is None
    assert found["facts"]["not_applicable"] == {
        "inodes_free_percent": "the file system of /srv has no fixed number of inodes"
    }
    assert found["problems"] == []


def test_a_host_without_an_engine_says_so() -> None:
    found = measure("/srv", sources=sources())
    assert found["facts"]["engine_disk_free_gb"] is None
    assert found["facts"]["not_applicable"] == {"engine_disk_free_gb": "no container engine runs the stack"}
    assert found["problems"] == []


def test_an_engine_in_a_machine_of_its_own_says_so(tmp_path: Path) -> None:
    found = measure(str(tmp_path), str(tmp_path / "docker"))
    assert found["facts"]["not_applicable"]["engine_disk_free_gb"].endswith("docker is not on this host")
    assert found["problems"] == []


def test_an_engine_whose_disk_cannot_be_measured_is_a_problem() -> None:
    def statvfs(path: str) -> Any:
        if path == "/data":
            raise PermissionError(13, "Permission denied", path)
        return file_system()

    found = measure("/srv", "/data", sources(statvfs=statvfs))
    assert found["facts"]["engine_disk_free_gb"] is None
    assert found["facts"]["not_applicable"] == {}
    assert found["problems"] == [", ".join(ENGINE_FIGURES) + " not measured: /data: Permission denied"]


def test_free_space_is_cut_so_that_it_never_looks_like_more() -> None:
    assert disk("/", lambda _: file_system(f_bavail=9_999_999))["disk_free_gb"] == 9.99
    assert memory("MemTotal: 1000000 kB\nMemAvailable: 99999 kB")["mem_free_percent"] == 9.99


@given(st.floats(min_value=0, max_value=1e9))
def test_cutting_never_adds(number: float) -> None:
    assert cut(number) <= number + 1e-6
    assert number - cut(number) < 0.0101


@given(st.text())
def test_no_meminfo_breaks_the_reading(text: str) -> None:
    found = measure("/srv", sources=sources(meminfo=lambda: text))
    assert found["facts"]["mem_free_percent"] is None


def test_load_has_the_decimals_it_is_shown_with() -> None:
    assert load((2.0048828125, 1.0, 0.0), 3) == {
        "cpu_load_1m": 2.0,
        "cpu_load_5m": 1.0,
        "cpu_load_15m": 0.0,
        "cpus": 3,
        "cpu_load_per_cpu": 0.67,
    }


def test_time_is_told_in_utc() -> None:
    assert timestamp(NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))) == "2026-11-21T12:00:00.123Z"
