"""The host's lock: one holder, named, and broken only for the run that was meant."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from swiftdeploy import context
from swiftdeploy_target import lock


def claim(run: str) -> dict[str, Any]:
    return {"run_id": run, "actor": "alice@laptop", "since": "2026-01-02T03:04:05Z", "action": "deploy"}


def test_one_run_holds_it_and_gives_it_back(tmp_path: Path) -> None:
    assert lock.acquire(tmp_path, claim("a")) is None
    assert lock.acquire(tmp_path, claim("a")) is None
    assert lock.acquire(tmp_path, claim("b")) == claim("a")
    assert not lock.release(tmp_path, "b")
    assert lock.release(tmp_path, "a")
    assert lock.acquire(tmp_path, claim("b")) is None


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    won: list[str] = []

    def take(name: str) -> None:
        if lock.acquire(tmp_path, claim(name)) is None:
            won.append(name)

    threads = [threading.Thread(target=take, args=(f"run{number}",)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["lock.json"]


def test_a_lock_is_broken_only_for_the_run_that_was_seen(tmp_path: Path) -> None:
    lock.acquire(tmp_path, claim("dead"))
    assert lock.acquire(tmp_path, claim("b"), instead_of="other") == claim("dead")
    assert lock.acquire(tmp_path, claim("b"), instead_of="dead") is None
    assert lock.acquire(tmp_path, claim("c"), instead_of="dead") == claim("b")
    assert [path.name for path in tmp_path.iterdir()] == ["lock.json"]


def test_a_torn_lock_is_held_by_somebody_unknown(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text("{")
    present = lock.acquire(tmp_path, claim("a"))
    assert present is not None
    assert present["actor"] == "unknown"


def test_a_holder_is_gone_when_its_process_is() -> None:
    here = context.describe(os.getpid())
    assert not context.is_gone(here, here["controller"])
    assert not context.is_gone({**here, "controller": "elsewhere"}, here["controller"])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert context.is_gone({**here, "pid": ended.pid}, here["controller"])
    assert context.is_gone({**here, "process_start": "another life"}, here["controller"])


def test_all_tasks_of_a_run_have_one_id_and_two_runs_have_two() -> None:
    assert context.describe(os.getpid())["run_id"] == context.describe(os.getpid())["run_id"]
    assert context.describe(os.getpid())["run_id"] != context.describe(os.getppid())["run_id"]
