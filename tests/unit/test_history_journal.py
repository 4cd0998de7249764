"""Operations that are open: a run that is killed is told of by the next one, exactly once."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.history_schema import violations
from swiftdeploy import context, history, history_file, history_journal
from swiftdeploy.history import Holder, Recorder

HERE = socket.gethostname()
CONTEXT = {
    "event": "deploy",
    "run_id": "r1",
    "actor": "ada@control",
    "service": "app",
    "version": "2.0.0",
    "mode": "stable",
    "password": "hunter2",
}


def alive() -> Holder:
    return Holder(HERE, os.getpid(), context.process_start(os.getpid()))


def gone() -> Holder:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return Holder(HERE, ended.pid, "1")


def recorder(folder: Path, holder: Holder | None = None) -> Recorder:
    return Recorder(folder / "history.jsonl", "this-run", "eve@control", holder=holder or alive())


def announce(watch: Recorder, host: str = "web1", **more: Any) -> str | None:
    return watch.observe(host, {"swiftdeploy_context": {**CONTEXT, **more}, "swiftdeploy_step": "manifest read"})


def entries(folder: Path) -> list[Path]:
    return sorted((folder / "history.jsonl.open").glob("*"))


def records(folder: Path) -> list[dict[str, Any]]:
    path = folder / "history.jsonl"
    return list(history.read(path)) if path.exists() else []


def events(folder: Path) -> list[tuple[str, str, str]]:
    return [(one["event"], one["host"], one["run_id"]) for one in records(folder)]


def killed(folder: Path, host: str = "web1") -> None:
    """What a run leaves that was killed while it started the release."""
    entry = history_journal.begin(folder / "history.jsonl", {**CONTEXT, "host": host}, gone())
    history_journal.note(entry, "Start the release in green", "manifest read")


# ----------------------------------------------------------------------------------------- while it runs


@pytest.mark.parametrize("event", ["deploy", "deploy_failed", "deploy_blocked"])
def test_an_operation_is_open_until_its_end_is_recorded(tmp_path: Path, event: str) -> None:
    watch = recorder(tmp_path)
    announce(watch)
    assert len(entries(tmp_path)) == 1
    watch.observe("web1", {"swiftdeploy_event": {"event": "lock_broken", "run_id": "r1"}})
    watch.observe("web1", {"swiftdeploy_event": {"event": event, "run_id": "another"}})
    assert len(entries(tmp_path)) == 1
    watch.observe("web1", {"swiftdeploy_event": {"event": event, "run_id": "r1"}})
    assert entries(tmp_path) == []
    assert watch.close("interrupted") == []
    assert [one[0] for one in events(tmp_path)] == ["lock_broken", event, event]


def test_a_host_that_is_lost_has_ended(tmp_path: Path) -> None:
    watch = recorder(tmp_path)
    announce(watch)
    watch.unreachable("web1", "no route")
    assert entries(tmp_path) == []
    assert events(tmp_path) == [("deploy_failed", "web1", "r1")]


def test_what_is_kept_is_small_and_holds_no_arguments(tmp_path: Path) -> None:
    watch = recorder(tmp_path)
    announce(watch)
    watch.task("web1", 'Say "größer" \\ \n\x1b[2J ' + "ü" * 600)
    text = entries(tmp_path)[0].read_text()
    assert "hunter2" not in text
    assert "\x1b" not in text
    begun, last = (json.loads(line) for line in text.splitlines())
    assert begun["controller"] == HERE
    assert last["task"].startswith("Say größer [2J üü")
    assert last["step"] == "manifest read"
    assert len(text.encode()) < 1500
    watch.task("web1", "Next")
    assert entries(tmp_path)[0].stat().st_size == len(text.encode())


def test_check_mode_opens_nothing(tmp_path: Path) -> None:
    watch = recorder(tmp_path)
    watch.observe("web1", {"swiftdeploy_context": CONTEXT}, True)
    watch.task("web1", "Go on")
    assert list(tmp_path.iterdir()) == []


def test_a_check_run_records_nothing_of_others(tmp_path: Path) -> None:
    killed(tmp_path)
    watch = recorder(tmp_path)
    watch.observe("web1", {"swiftdeploy_context": CONTEXT}, True)
    watch.observe("web1", {"swiftdeploy_event": {"event": "deploy"}}, True)
    assert records(tmp_path) == []


def test_a_folder_that_is_not_there_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    watch = recorder(tmp_path / "none")
    told = announce(watch)
    assert told is not None
    assert "its folder does not exist" in told
    watch.task("web1", "Go on")


def test_the_operation_is_beside_the_history_that_the_host_has(tmp_path: Path) -> None:
    watch = recorder(tmp_path)
    other, own = tmp_path / "other", tmp_path / "own"
    other.mkdir()
    own.mkdir()
    watch.observe("web1", {"swiftdeploy_context": CONTEXT}, path=other / "h")
    watch.observe("web2", {"swiftdeploy_context": {**CONTEXT, "history_path": str(own / "h")}}, path=other / "h")
    assert [len(list((folder / "h.open").iterdir())) for folder in (other, own)] == [1, 1]
    watch.observe("web1", {"swiftdeploy_event": {"event": "deploy", "run_id": "r1"}}, path=other / "h")
    assert history.find(other / "h", "r1", "deploy", "web1") is not None
    watch.unreachable("web2", "no route")
    assert history.find(own / "h", "r1", "deploy_failed", "web2") is not None
    assert list((own / "h.open").iterdir()) == []


# ------------------------------------------------------------------------------------- when it is killed


def test_the_next_run_records_where_and_when_it_was_interrupted_once(tmp_path: Path) -> None:
    killed(tmp_path)
    for number in (2, 3):
        watch = recorder(tmp_path)
        announce(watch, run_id=f"r{number}")
        watch.observe("web1", {"swiftdeploy_event": {"event": "deploy", "run_id": f"r{number}"}})
        assert len(watch.notices) == (number == 2)
    assert events(tmp_path) == [
        ("deploy_interrupted", "web1", "r1"),
        ("deploy", "web1", "r2"),
        ("deploy", "web1", "r3"),
    ]
    told = records(tmp_path)[0]
    assert told["reason"] == f"interrupted after {told['last_sign']} while: Start the release in green"
    expected = {"actor": "ada@control", "version": "2.0.0", "mode": "stable", "step": "manifest read"}
    assert {key: told[key] for key in expected} == expected
    assert told["since"] <= told["last_sign"] <= told["timestamp"]
    assert violations(tmp_path / "history.jsonl") == []
    assert entries(tmp_path) == []


def test_several_that_were_killed_are_told_in_their_order(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        killed(tmp_path, f"web{number}")
    assert [record["host"] for record in history.sweep(tmp_path / "history.jsonl", HERE)] == ["web1", "web2", "web3"]


def test_a_run_that_lives_is_left_alone(tmp_path: Path) -> None:
    announce(recorder(tmp_path))
    assert history.sweep(tmp_path / "history.jsonl", HERE) == []
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize(("days", "told"), [(6, 0), (8, 1)])
def test_a_run_of_another_controller_is_gone_after_a_week_without_a_sign(tmp_path: Path, days: int, told: int) -> None:
    announce(recorder(tmp_path, Holder("elsewhere", 1, "1")))
    (entry,) = entries(tmp_path)
    before = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    begun = {**json.loads(entry.read_text().splitlines()[0]), "since": before}
    entry.write_text(json.dumps(begun) + "\n")
    found = history.sweep(tmp_path / "history.jsonl", HERE)
    assert [record["reason"] for record in found] == [
        f"no sign from controller elsewhere since {before}, taken for interrupted while: nothing had begun yet"
    ] * told
    assert len(entries(tmp_path)) == 1 - told


def test_a_run_that_was_killed_after_its_record_was_not_interrupted(tmp_path: Path) -> None:
    killed(tmp_path)
    history.append(tmp_path / "history.jsonl", {"event": "deploy_failed", "run_id": "r1", "host": "web1"})
    for number in range(4):
        # In a file that was closed meanwhile, too.
        history.append(tmp_path / "history.jsonl", {"event": "chaos", "run_id": f"x{number}"}, max_size=10)
    assert history.sweep(tmp_path / "history.jsonl", HERE) == []
    assert entries(tmp_path) == []


def test_only_an_end_from_the_begin_on_counts(tmp_path: Path) -> None:
    """The whole past of a long history is not read for each, and a run id may have been given by hand before."""
    old = {"event": "deploy", "run_id": "r1", "host": "web1", "timestamp": "2020-01-01T00:00:00.000Z"}
    history.append(tmp_path / "history.jsonl", old)
    history.append(tmp_path / "history.jsonl", {**old, "run_id": "r0"})
    killed(tmp_path)
    for number in range(3):
        history.append(tmp_path / "history.jsonl", {"event": "chaos", "run_id": f"x{number}"}, max_size=10)
    assert [record["event"] for record in history.sweep(tmp_path / "history.jsonl", HERE)] == ["deploy_interrupted"]


def sweeps(folder: Path) -> None:
    history.sweep(folder / "history.jsonl", HERE)


def test_of_many_who_find_it_at_once_one_records_it(tmp_path: Path) -> None:
    for number in range(10):
        killed(tmp_path, f"web{number}")
    spawn = multiprocessing.get_context("spawn")
    sweepers = [spawn.Process(target=sweeps, args=(tmp_path,)) for _ in range(4)]
    for process in sweepers:
        process.start()
    for process in sweepers:
        process.join()
    assert [process.exitcode for process in sweepers] == [0] * 4
    assert sorted(one[1] for one in events(tmp_path)) == [f"web{number}" for number in range(10)]
    assert history.verify(tmp_path / "history.jsonl").ok
    assert entries(tmp_path) == []


def test_a_sweep_that_is_killed_after_the_record_is_made_good(tmp_path: Path) -> None:
    killed(tmp_path)
    script = (
        "import os, pathlib, signal, sys\n"
        "from swiftdeploy import history\n"
        "pathlib.Path.unlink = lambda *_w, **_m: os.kill(os.getpid(), signal.SIGKILL)\n"
        "history.sweep(pathlib.Path(sys.argv[1]), sys.argv[2])\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "history.jsonl"), HERE], check=False)
    assert done.returncode == -9
    assert len(entries(tmp_path)) == 1
    assert history.sweep(tmp_path / "history.jsonl", HERE) == []
    assert events(tmp_path) == [("deploy_interrupted", "web1", "r1")]
    assert entries(tmp_path) == []


def test_ctrl_c_and_a_run_that_ends_in_the_middle_are_recorded_at_once(tmp_path: Path) -> None:
    watch = recorder(tmp_path)
    announce(watch)
    announce(watch, "web2")
    watch.task("web1", "Drain")
    assert watch.close("interrupted") == []
    assert watch.close("interrupted") == []
    one, two = records(tmp_path)
    assert one["reason"].startswith("interrupted at 20")
    assert one["reason"].endswith("Z while: Drain")
    assert two["reason"].endswith("while: nothing had begun yet")
    assert entries(tmp_path) == []


def test_an_end_that_could_not_be_recorded_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_words: object) -> dict[str, Any]:
        raise history.HistoryError("the disk is full")

    watch = Recorder(tmp_path / "history.jsonl", "this-run", "eve@control", full, holder=alive())
    announce(watch)
    assert "the disk is full" in str(watch.observe("web1", {"swiftdeploy_event": {"event": "deploy", "run_id": "r1"}}))
    monkeypatch.setattr(context, "is_gone", lambda *_words: True)
    (record,) = history.sweep(tmp_path / "history.jsonl", HERE)
    assert record["reason"] == "its end could not be recorded: deploy: the disk is full"


@pytest.mark.parametrize("content", [b"", b"{", b"[]\n", b'{"event": "A B"}\n', b"\0" * 600])
def test_an_entry_that_is_not_whole_is_let_be_and_forgotten_later(tmp_path: Path, content: bytes) -> None:
    killed(tmp_path)
    (entry,) = entries(tmp_path)
    entry.write_bytes(content)
    assert history.sweep(tmp_path / "history.jsonl", HERE) == []
    assert entries(tmp_path) == [entry]
    old = entry.stat().st_mtime - history_journal.UNREADABLE_SECONDS - 10
    os.utime(entry, (old, old))
    assert history.sweep(tmp_path / "history.jsonl", HERE) == []
    assert entries(tmp_path) == []


def test_a_last_task_that_was_cut_short_is_not_needed(tmp_path: Path) -> None:
    killed(tmp_path)
    (entry,) = entries(tmp_path)
    entry.write_bytes(entry.read_bytes().splitlines(keepends=True)[0] + b'{"at": "20')
    (record,) = history.sweep(tmp_path / "history.jsonl", HERE)
    assert record["reason"] == f"interrupted after {record['since']} while: nothing had begun yet"


RUN = {"event": "deploy_run", "run_id": "r1", "actor": "ada@control1", "host": "*"}


def test_a_run_over_many_hosts_is_open_until_its_own_end(tmp_path: Path) -> None:
    watch = recorder(tmp_path, alive())
    watch.observe("web1", {"swiftdeploy_context": RUN})
    announce(watch)
    watch.observe("web1", {"swiftdeploy_event": {"event": "deploy", "run_id": "r1", "host": "web1"}})
    assert len(entries(tmp_path)) == 1, "a host's end is not the run's"
    watch.observe("web1", {"swiftdeploy_event": {"event": "deploy_run_failed", "run_id": "r1", "host": "*"}})
    assert entries(tmp_path) == []
    assert watch.close("the run ended") == []
    assert [record["event"] for record in records(tmp_path)] == ["deploy", "deploy_run_failed"]


def test_a_run_that_ends_with_a_lost_batch_is_told_with_where_it_was(tmp_path: Path) -> None:
    watch = recorder(tmp_path, alive())
    watch.observe("web1", {"swiftdeploy_context": RUN})
    watch.task("web2", "Move the traffic")
    assert watch.close("the run ended") == []
    (record,) = records(tmp_path)
    assert (record["event"], record["host"], record["run_id"]) == ("deploy_run_interrupted", "*", "r1")
    assert "while: web2: Move the traffic" in record["reason"]
    assert watch.notices[0].startswith("*: recorded deploy_run_interrupted of ada@control1")
    assert "hosts" not in record, "nothing had changed"


def test_a_run_that_ends_with_a_lost_batch_names_what_it_has_changed(tmp_path: Path) -> None:
    watch = recorder(tmp_path, alive())
    watch.observe("web1", {"swiftdeploy_context": RUN})

    def ended(host: str, event: str, changed: bool) -> None:
        told = {"event": event, "run_id": "r1", "host": host, "changed": changed}
        watch.observe(host, {"swiftdeploy_event": told})

    for host in ("web1", "web2", "web3"):
        ended(host, "deploy", host != "web2")
    ended("web4", "deploy_failed", True)
    watch.close("the run ended")
    assert records(tmp_path)[-1]["hosts"] == {"changed": ["web1", "web3"]}
    assert watch.notices[0].endswith("  next: ansible-playbook rollback.yml --limit web1,web3  takes them back")


def test_a_host_that_is_back_does_not_count_as_changed(tmp_path: Path) -> None:
    watch = recorder(tmp_path, alive())
    watch.observe("web1", {"swiftdeploy_context": RUN})
    for event in ("promote", "rollback"):
        told = {"event": event, "run_id": "r1", "host": "web1", "changed": True}
        watch.observe("web1", {"swiftdeploy_event": told})
    watch.close("the run ended")
    assert "hosts" not in records(tmp_path)[-1]


# ----------------------------------------------------------------------------------------- who is told of it


# The history, and the event.
Heard = list[tuple[Path, dict[str, Any]]]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What a listener is told."""
    told: Heard = []

    def listen(path: Path, event: Mapping[str, Any]) -> None:
        told.append((path, dict(event)))

    history.listeners.append(listen)
    yield told
    history.listeners.remove(listen)


def test_every_record_is_handed_on_once_as_it_is_in_its_history(tmp_path: Path, heard: Heard) -> None:
    killed(tmp_path, "web3")
    watch, other = recorder(tmp_path), tmp_path / "other.jsonl"
    announce(watch)
    announce(watch, "web2")
    watch.observe("web1", {"swiftdeploy_event": {"event": "deploy", "run_id": "r1"}})
    watch.observe("web1", {"swiftdeploy_event": {"event": "chaos"}}, path=other)
    watch.unreachable("web2", "no route")
    announce(watch, "web4")
    watch.close("interrupted")
    watch.close("interrupted")
    assert [record for path, record in heard if path == tmp_path / "history.jsonl"] == records(tmp_path)
    assert [one[0] for one in events(tmp_path)] == [
        "deploy_interrupted",
        "deploy",
        "deploy_failed",
        "deploy_interrupted",
    ]
    assert [record for path, record in heard if path == other] == list(history.read(other))


def test_check_mode_hands_nothing_on(tmp_path: Path, heard: Heard) -> None:
    killed(tmp_path)
    watch = recorder(tmp_path)
    watch.observe("web1", {"swiftdeploy_context": CONTEXT}, True)
    watch.observe("web1", {"swiftdeploy_event": {"event": "deploy"}}, True)
    watch.unreachable("web1", "no route", check=True)
    assert heard == []


def test_what_a_worker_has_swept_is_handed_on(tmp_path: Path, heard: Heard) -> None:
    killed(tmp_path)
    path = tmp_path / "history.jsonl"
    swept: list[dict[str, Any]] = []
    assert history.sweep(path, HERE, None, swept.append) == swept
    result = {"swiftdeploy_appended": {"path": str(path), "records": swept}}
    watch = recorder(tmp_path)
    watch.observe("web1", result)
    assert heard == [(path, swept[0])]
    assert len(watch.notices) == 1


def test_what_was_swept_before_one_that_fails_is_handed_on(
    tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(tmp_path, "web1")
    killed(tmp_path, "web2")
    real = history_file.append_unless

    def full(path: Path, event: Mapping[str, Any], *more: Any) -> Any:
        if event["host"] == "web2":
            raise history.HistoryError("the disk is full")
        return real(path, event, *more)

    monkeypatch.setattr(history_file, "append_unless", full)
    watch = recorder(tmp_path)
    assert "the disk is full" in str(watch.sweep(tmp_path / "history.jsonl"))
    assert [record["host"] for _path, record in heard] == ["web1"]


def test_an_event_that_could_not_be_recorded_is_handed_on_and_says_so(tmp_path: Path, heard: Heard) -> None:
    watch = recorder(tmp_path)
    path = tmp_path / "none" / "h"
    watch.observe("web1", {"swiftdeploy_event": {"event": "deploy_failed", "reason": "no health"}}, path=path)
    ((place, told),) = heard
    assert (place, told["event"], told["host"], told["run_id"]) == (path, "deploy_failed", "web1", "this-run")
    assert told["reason"].startswith(f"no health\nnot in the history: cannot write the history {path}: its folder")


def test_a_listener_that_fails_is_said_so_and_the_record_stays(tmp_path: Path) -> None:
    def listen(_path: Path, _event: Mapping[str, Any]) -> None:
        raise ValueError("odd")

    history.listeners.append(listen)
    try:
        watch = recorder(tmp_path)
        assert watch.observe("web1", {"swiftdeploy_event": {"event": "deploy", "run_id": "r1"}}) is None
    finally:
        history.listeners.remove(listen)
    assert watch.notices == ["web1: nobody is told of deploy: odd"]
    assert events(tmp_path) == [("deploy", "web1", "r1")]
