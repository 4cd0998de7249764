"""The host's lock: one holder, named, and broken only for the run that was meant."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from support import plugin
from swiftdeploy import context
from swiftdeploy_target import lock

ORPHAN = """
import pathlib, sys
from swiftdeploy_target import lock
with lock.working(pathlib.Path(sys.argv[1])):
    print("at work", flush=True)
    sys.stdin.readline()
"""


def claim(run: str) -> dict[str, Any]:
    return {"run_id": run, "actor": "alice@laptop", "since": "2026-01-02T03:04:05Z", "action": "deploy"}


def test_one_run_holds_it_and_gives_it_back(tmp_path: Path) -> None:
    assert lock.acquire(tmp_path, claim("a")) is None
    assert lock.acquire(tmp_path, claim("a")) is None
    assert lock.acquire(tmp_path, claim("b")) == claim("a")
    assert not lock.release(tmp_path, "b")
    assert lock.release(tmp_path, "a")
    assert lock.acquire(tmp_path, claim("b")) is None


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_shell_alone_gives_it_back(tmp_path: Path, shell: str) -> None:
    folder = tmp_path / "it's here"
    folder.mkdir()

    freeing = plugin.load("action_plugins", "swiftdeploy_stack").freeing

    def free(run: str) -> int:
        return subprocess.run([shell, "-c", freeing(str(folder), run)], check=False).returncode

    assert free("a") == 0
    lock.acquire(folder, claim("a"))
    assert free("b") == 0
    assert lock.holder(folder) == claim("a")
    assert free("a") == 0
    assert lock.holder(folder) is None


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


def test_a_claim_that_is_swept_away_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the run that has the lock, between any two steps of the writing."""
    steps = {"fsync": os.fsync, "fchmod": os.fchmod, "link": os.link}
    for name, real in steps.items():
        swept: list[bool] = []

        def step(*words: Any, swept: list[bool] = swept, real: Any = real) -> Any:
            if not swept:
                swept.append(True)
                lock.sweep(tmp_path)
            return real(*words)

        monkeypatch.setattr(os, name, step)
        assert lock.acquire(tmp_path, claim(name)) is None
        monkeypatch.setattr(os, name, real)
        assert swept
        assert lock.release(tmp_path, name)
        assert [path.name for path in tmp_path.iterdir()] == [lock.WORK_NAME]


def test_a_lock_is_broken_only_for_the_run_that_was_seen(tmp_path: Path) -> None:
    lock.acquire(tmp_path, claim("dead"))
    assert lock.acquire(tmp_path, claim("b"), instead_of="other") == claim("dead")
    assert lock.acquire(tmp_path, claim("b"), instead_of="dead") is None
    assert lock.acquire(tmp_path, claim("c"), instead_of="dead") == claim("b")
    assert {path.name for path in tmp_path.iterdir()} == {"lock.json", lock.WORK_NAME}


def test_a_lock_is_not_taken_over_while_a_task_of_the_dead_run_is_at_work(tmp_path: Path) -> None:
    lock.acquire(tmp_path, claim("dead"))
    orphan = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert orphan.stdout is not None
    assert orphan.stdout.readline() == "at work\n"
    waiting = threading.Thread(target=lock.acquire, args=(tmp_path, claim("next"), "dead"))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    assert lock.holder(tmp_path) == claim("dead")
    orphan.communicate("end\n")
    waiting.join(10)
    assert lock.holder(tmp_path) == claim("next")


def test_a_task_that_does_not_end_is_told_of(tmp_path: Path) -> None:
    with (
        lock.working(tmp_path),
        pytest.raises(lock.LockError, match=r"still at work in .* after 0.1 s"),
        lock.working(tmp_path, seconds=0.1),
    ):
        pass


def test_a_run_whose_lock_was_broken_changes_nothing_more(tmp_path: Path) -> None:
    lock.acquire(tmp_path, claim("first"))
    with lock.working(tmp_path, "first"):
        pass
    lock.acquire(tmp_path, claim("second"), instead_of="first")
    with pytest.raises(lock.LockError, match="no longer holds the lock"), lock.working(tmp_path, "first"):
        pass
    lock.release(tmp_path, "second")
    with pytest.raises(lock.LockError, match="it was removed"), lock.working(tmp_path, "first"):
        pass


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


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("x")


def _locked(path: Path) -> None:
    path.write_text("{}")
    path.chmod(0)


def _link(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "make",
    [
        _fifo,
        _folder,
        _locked,
        _link,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text("null"),
        lambda path: path.write_text('{"run_id": 7}'),
        lambda path: path.write_text('{"actor": "ada"'),
    ],
)
def test_a_lock_that_cannot_be_read_is_explained_and_can_be_broken(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "lock.json")
    present = lock.acquire(tmp_path, claim("a"))
    assert present is not None
    assert present["run_id"] == lock.UNREADABLE
    assert "lock.json is no lock of a run" in present["action"]
    assert not context.is_gone(present, "laptop")
    assert not lock.release(tmp_path, "a")
    # Only what was meant: not another run's.
    assert lock.acquire(tmp_path, claim("a"), "b") == present
    assert lock.acquire(tmp_path, claim("a"), lock.UNREADABLE) is None
    assert lock.holder(tmp_path) == claim("a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".working", "lock.json"]


def test_the_kernel_lock_is_a_file_of_our_own(tmp_path: Path) -> None:
    (tmp_path / ".working").write_bytes(b"")
    (tmp_path / ".working").chmod(0o666)
    with lock.working(tmp_path):
        assert (tmp_path / ".working").stat().st_mode & 0o777 == 0o600
    (tmp_path / ".working").unlink()
    os.mkfifo(tmp_path / ".working")
    with lock.working(tmp_path):
        pass
    (tmp_path / ".working").unlink()
    (tmp_path / ".working").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"symbolic links|\.working"), lock.working(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()
