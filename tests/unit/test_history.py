"""The history: what is written can be read, checked and is never half there."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftdeploy import history, history_file, history_line
from swiftdeploy.history import HistoryError, Recorder

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def event(number: int = 0, **more: Any) -> dict[str, Any]:
    return {"event": "deploy", "run_id": f"run-{number}", "host": "web1", "version": "1.0.0", **more}


def filled(folder: str | Path, count: int) -> Path:
    path = Path(folder) / "history.jsonl"
    for number in range(count):
        history.append(path, event(number))
    return path


# ---------------------------------------------------------------------------------------------- the line


def test_a_line_has_every_field_in_order_then_extras_then_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    record = history.append(path, event(rate=0.5))
    assert list(record) == [*history.FIELDS, "schema", "rate", "prev", "hash"]
    assert path.read_bytes().endswith(b"\n")
    assert json.loads(path.read_text()) == record
    assert record["seq"] == 1
    assert record["prev"] == "0" * 64
    assert record["mode"] is None
    assert record["schema"] == 1


def test_the_hash_can_be_computed_by_anyone_from_the_line(tmp_path: Path) -> None:
    path = filled(tmp_path, 1)
    history.append(path, event(2, reason="größer als erlaubt"))
    script = (
        "import sys, json, hashlib\n"
        "prev = '0' * 64\n"
        "for line in open(sys.argv[1], encoding='utf-8'):\n"
        "    record = json.loads(line); stated = record.pop('hash')\n"
        "    text = json.dumps(record, sort_keys=True, separators=(',', ':'), ensure_ascii=False)\n"
        "    assert record['prev'] == prev and hashlib.sha256(text.encode()).hexdigest() == stated\n"
        "    prev = stated\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)


def test_time_is_utc_with_milliseconds(tmp_path: Path) -> None:
    record = history.append(tmp_path / "h", event())
    assert len(record["timestamp"]) == len("2026-11-21T03:55:00.123Z")
    assert record["timestamp"].endswith("Z")
    kept = history.append(tmp_path / "h", event(timestamp="2026-11-21T03:55:00.123Z"))
    assert kept["timestamp"] == "2026-11-21T03:55:00.123Z"


def test_an_event_cannot_set_the_chain_nor_leave_control_keys_behind(tmp_path: Path) -> None:
    forged = event(seq=99, prev="x", hash="y", schema=7, torn="z", check=False, summary="S", history_path="p")
    record = history.append(tmp_path / "h", forged)
    assert (record["seq"], record["prev"], record["schema"]) == (1, "0" * 64, 1)
    assert not {"check", "summary", "history_path", "torn"} & set(record)


@given(st.dictionaries(st.text(min_size=1), JSON_VALUES, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_values_make_a_line_that_verifies(fields: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = filled(folder, 1)
        history.append(path, {**fields, "event": "deploy"})
        assert history.verify(path) == history.VerifyResult(ok=True, records=2)


def test_values_json_does_not_know_are_written_as_null_or_text(tmp_path: Path) -> None:
    values = {"a": math.nan, "b": [math.inf], "c": Path("/x"), "d": {1: b"raw"}, "e": "bad \udcff", "f": {"z", "y"}}
    record = history.append(tmp_path / "h", event(extra=values))
    assert record["extra"] == {"a": None, "b": [None], "c": "/x", "d": {"1": "b'raw'"}, "e": "bad ?", "f": ["y", "z"]}


@pytest.mark.parametrize("name", [None, "", "Deploy", "a b", "x" * 65, 3])
def test_an_event_without_a_proper_name_is_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(HistoryError, match="small letters"):
        history.append(tmp_path / "h", {"event": name})


def test_an_event_nested_without_end_or_too_large_is_refused(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    deep["again"] = deep
    with pytest.raises(HistoryError, match="levels deep"):
        history.append(tmp_path / "h", event(extra=deep))
    with pytest.raises(HistoryError, match="bytes, the most is"):
        history.append(tmp_path / "h", event(extra=["x" * 30_000] * 200))
    assert (tmp_path / "h").read_bytes() == b""


# -------------------------------------------------------------------------------------------- verifying


def test_a_whole_chain_is_whole_and_reads_back(tmp_path: Path) -> None:
    path = filled(tmp_path, 5)
    assert history.verify(path) == history.VerifyResult(ok=True, records=5)
    assert [record["run_id"] for record in history.read(path)] == [f"run-{number}" for number in range(5)]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_bit_flipped_anywhere_is_found_in_its_line(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = filled(folder, 3)
        history.append(path, event(9, p99_latency_ms=1e-07, reason="tab\x1f", error_rate=0.5))
        raw = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(raw)
        line = 1 + path.read_bytes()[:place].count(b"\n")
        outcome = history.verify(path)
        assert not outcome.ok
        assert outcome.first_bad_line == line
        assert outcome.problem


def test_every_single_bit_of_a_line_counts(tmp_path: Path) -> None:
    path = filled(tmp_path, 1)
    raw = path.read_bytes()
    for place in range(len(raw)):
        for bit in range(8):
            path.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :])
            assert not history.verify(path).ok, (place, bit)


def rewrite(path: Path, order: list[int]) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[index] for index in order))


@pytest.mark.parametrize(
    ("order", "line"),
    [([0, 2, 3], 2), ([0, 2, 1, 3], 2), ([0, 1, 1, 2, 3], 3), ([1, 2, 3], 1)],
    ids=["removed", "swapped", "doubled", "first removed"],
)
def test_lines_removed_swapped_or_doubled_are_named(tmp_path: Path, order: list[int], line: int) -> None:
    path = filled(tmp_path, 4)
    rewrite(path, order)
    outcome = history.verify(path)
    assert (outcome.ok, outcome.first_bad_line) == (False, line)
    assert "seq is" in str(outcome.problem)


def test_a_line_forged_with_a_right_hash_of_its_own_breaks_the_next(tmp_path: Path) -> None:
    path = filled(tmp_path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    record = json.loads(lines[1])
    record["version"] = "6.6.6"
    record["hash"] = history.digest(record)
    path.write_bytes(lines[0] + history.encode(record) + lines[2])
    outcome = history.verify(path)
    assert (outcome.ok, outcome.first_bad_line, outcome.records) == (False, 3, 3)
    assert "prev" in str(outcome.problem)


def test_one_fault_is_told_once_and_all_faults_are_counted(tmp_path: Path) -> None:
    path = filled(tmp_path, 6)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = b"rubbish\n"
    lines[4] = lines[4].replace(b"1.0.0", b"1.0.1")
    path.write_bytes(b"".join(lines))
    outcome = history.verify(path)
    assert (outcome.first_bad_line, outcome.bad_lines, outcome.records) == (2, 2, 5)
    assert outcome.problem == "not a history record in JSON"


@pytest.mark.parametrize("line", [b"[1]\n", b'{"seq":1}\n', b"\xff\n", b"[" * 100_000 + b"\n", b"\n", b"null\n"])
def test_a_line_that_is_no_record_is_a_finding_not_a_crash(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "h"
    path.write_bytes(line)
    assert history.verify(path).first_bad_line == 1


def test_a_line_longer_than_any_of_ours_is_passed_over_without_being_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path, 1)
    monkeypatch.setattr(history_line, "MAX_LINE", 2000)
    with path.open("ab") as out:
        out.write(b"x" * 300_000 + b"\n")
    history_lines = list(history.scan(path))
    assert [line.problem for line in history_lines] == [None, "longer than 2000 bytes"]


def test_no_history_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        history.verify(tmp_path / "none")
    (tmp_path / "empty").touch()
    assert history.verify(tmp_path / "empty") == history.VerifyResult(ok=True, records=0)


# --------------------------------------------------------------------------------------------- torn tail


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_a_line_cut_short_by_a_power_cut_is_set_aside_and_nothing_whole_is_lost(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = filled(folder, 2)
        head, before = history_file.head_path(path).read_bytes(), path.stat().st_size
        history.append(path, event(2))
        raw = path.read_bytes()
        cut = raw[: data.draw(st.integers(before, len(raw)))]
        path.write_bytes(cut)
        # The head is written after the line is on the disk.
        history_file.head_path(path).write_bytes(head)
        whole = cut[: cut.rfind(b"\n") + 1]
        torn = cut[len(whole) :]
        assert history.verify(path).ok == (not torn)

        record = history.append(path, event(9))

        assert path.read_bytes() == whole + history.encode(record)
        assert history.verify(path).ok
        aside = sorted(Path(folder).glob("history.jsonl.torn-*"))
        assert [item.read_bytes() for item in aside] == ([torn] if torn else [])
        assert record.get("torn") == (aside[0].name if torn else None)


@pytest.mark.parametrize("tail", [b"\0" * 4096, b'{"seq":4,"half\n', b"\0" * 70_000 + b"\n"])
def test_rubbish_at_the_end_is_set_aside(tmp_path: Path, tail: bytes) -> None:
    path = filled(tmp_path, 3)
    with path.open("ab") as out:
        out.write(tail)
    record = history.append(path, event(4))
    assert record["seq"] == 4
    assert (tmp_path / record["torn"]).read_bytes() == tail
    assert history.verify(path) == history.VerifyResult(ok=True, records=4)


def test_zeros_where_the_first_line_should_be_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "h"
    path.write_bytes(b"\0" * 512)
    assert history.append(path, event())["seq"] == 1
    assert history.verify(path).ok


def test_torn_lines_of_one_second_get_files_of_their_own(tmp_path: Path) -> None:
    path = filled(tmp_path, 1)
    for _ in range(3):
        with path.open("ab") as out:
            out.write(b'{"seq":')
        history.append(path, event())
    assert len(list(tmp_path.glob("*.torn-*"))) == 3
    assert history.verify(path) == history.VerifyResult(ok=True, records=4)


# ------------------------------------------------------------------------------------------ failed writes


def test_a_disk_that_takes_half_a_line_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """A real short write: the process may not grow a file beyond a limit in the middle of the line."""
    path = filled(tmp_path, 2)
    before = path.read_bytes()
    script = (
        "import resource, signal, sys\n"
        "from swiftdeploy import history\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try:\n"
        "    history.append(sys.argv[1], {'event': 'deploy'})\n"
        "except history.HistoryError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(path), str(len(before) + 50)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "only 50 of" in said
    assert path.read_bytes() == before


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_is_told_and_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = filled(tmp_path, 2)
    before = path.read_bytes()

    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(HistoryError, match=r"No space left on device\. Free disk space"):
            history.append(path, event())
    assert path.read_bytes() == before
    assert history.append(path, event())["seq"] == 3


def test_a_wrong_path_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="its folder does not exist"):
        history.append(tmp_path / "none" / "h", event())
    with pytest.raises(HistoryError, match="it is a folder"):
        history.append(tmp_path, event())
    (tmp_path / "file").touch()
    with pytest.raises(HistoryError, match="a part of the path is a file"):
        history.append(tmp_path / "file" / "h", event())
    with pytest.raises(HistoryError, match="not a regular file"):
        history.append("/dev/full", event())


@pytest.mark.parametrize("content", ["services: {}\n", '{\n  "a": 1\n}\n', "{}", "\0\0\nx", "text without newline"])
def test_another_file_is_neither_cut_nor_grown(tmp_path: Path, content: str) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(content)
    with pytest.raises(HistoryError, match="is not a SwiftDeploy history"):
        history.append(path, event())
    assert path.read_text() == content
    assert list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------------- concurrency


def write_many(path: Path, writer: int, count: int) -> None:
    for number in range(count):
        history.append(path, {"event": "status_scrape", "run_id": f"{writer}-{number}"})


def test_writers_at_once_lose_nothing_and_keep_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(path, writer, 40)) for writer in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0] * 4
    assert history.verify(path) == history.VerifyResult(ok=True, records=160)
    expected = sorted(f"{writer}-{number}" for writer in range(4) for number in range(40))
    assert sorted(record["run_id"] for record in history.read(path)) == expected


def test_a_lock_that_is_never_released_ends_in_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = filled(tmp_path, 1)
    monkeypatch.setattr(history_file, "LOCK_SECONDS", 0.02)
    with path.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(HistoryError, match="another process has held its lock"):
            history.append(path, event())
    assert history.append(path, event())["seq"] == 2


def test_a_file_moved_away_while_waiting_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = filled(tmp_path, 2)
    old = tmp_path / "old.jsonl"
    lock = history_file._lock

    def lock_after_move(handle: int, target: Path, deadline: float) -> None:
        if not old.exists():
            target.rename(old)
        lock(handle, target, deadline)

    monkeypatch.setattr(history_file, "_lock", lock_after_move)
    # The head still knows of them.
    assert history.append(path, event())["seq"] == 3
    assert history.verify(old) == history.VerifyResult(ok=True, records=2)
    assert "lines 1 to 2 are missing" in str(history.verify(path).problem)


# --------------------------------------------------------------------------------------------- finding


def test_find_gives_the_record_of_this_run_event_and_host_alone(tmp_path: Path) -> None:
    path = filled(tmp_path, 30)
    wanted = history.find(path, "run-3", "deploy", "web1")
    assert wanted is not None
    assert wanted["seq"] == 4
    assert history.find(path, "run-3", "promote", "web1") is None
    assert history.find(path, "run-3", "deploy", "web2") is None
    assert history.find(path, "run-77", "deploy", "web1") is None


def test_find_does_not_believe_a_changed_or_torn_record(tmp_path: Path) -> None:
    path = filled(tmp_path, 2)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"1.0.0", b"1.0.1"))
    assert history.find(path, "run-1", "deploy", "web1") is None
    path.write_bytes(raw[:-1])
    assert history.find(path, "run-1", "deploy", "web1") is None
    assert history.find(path, "run-0", "deploy", "web1") is not None


# -------------------------------------------------------------------------------------------- recording


class Writes:
    """Takes the place of `append`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.done: list[tuple[Path, dict[str, Any]]] = []
        self.error = error

    def __call__(self, path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        self.done.append((path, dict(given)))
        return {}

    def events(self) -> list[tuple[str, str]]:
        return [(str(given["event"]), str(given["host"])) for _path, given in self.done]


def recorder(writes: Writes) -> Recorder:
    return Recorder(Path("/h/history.jsonl"), "this-run", "ada@control", write=writes)


def test_an_event_in_a_result_is_written_with_who_where_and_which_run() -> None:
    writes = Writes()
    assert recorder(writes).observe("web1", {"swiftdeploy_event": {"event": "chaos", "chaos": "slow"}}) is None
    ((path, given),) = writes.done
    assert path == Path("/h/history.jsonl")
    assert given == {"event": "chaos", "chaos": "slow", "host": "web1", "run_id": "this-run", "actor": "ada@control"}


@pytest.mark.parametrize("result", [None, [], {}, {"changed": True}, {"swiftdeploy_event": "deploy"}])
def test_other_results_write_nothing(result: object) -> None:
    writes = Writes()
    assert recorder(writes).observe("web1", result) is None
    assert writes.done == []


def test_an_event_speaks_of_the_host_of_its_task_or_of_the_whole_run() -> None:
    writes = Writes()
    for host in ("other", "*", "../../x", None):
        recorder(writes).observe("web1", {"swiftdeploy_event": {"event": "deploy", "host": host}})
    assert writes.events() == [("deploy", host) for host in ("web1", "*", "web1", "web1")]


@pytest.mark.parametrize(("said", "mode", "written"), [(True, False, 0), (None, True, 0), (False, True, 1)])
def test_check_mode_writes_nothing(said: bool | None, mode: bool, written: int) -> None:
    writes = Writes()
    given = {"event": "deploy"} | ({} if said is None else {"check": said})
    recorder(writes).observe("web1", {"swiftdeploy_event": given}, check=mode)
    assert len(writes.done) == written


@pytest.mark.parametrize("error", [HistoryError("the disk is full"), RuntimeError("odd")])
def test_a_failed_write_is_a_line_and_is_remembered(error: Exception) -> None:
    watch = recorder(Writes(error))
    line = watch.observe("web1", {"swiftdeploy_event": {"event": "deploy", "run_id": "r-failed"}})
    assert line is not None
    assert str(error) in line
    assert line.startswith("web1: deploy is not recorded")
    assert watch.problems == [line]
    assert str(error) in history.failures["r-failed", "deploy", "web1"]


CONTEXT = {"swiftdeploy_context": {"event": "promote", "run_id": "r1", "version": "2", "mode": "canary"}}


def test_a_host_lost_in_the_middle_of_a_run_gets_a_failed_record_once() -> None:
    writes = Writes()
    watch = recorder(writes)
    watch.observe("web1", CONTEXT)
    watch.unreachable("web2", "no route")
    watch.unreachable("web1", "no route")
    watch.unreachable("web1", "no route")
    ((_path, given),) = writes.done
    assert (given["event"], given["host"], given["run_id"]) == ("promote_failed", "web1", "r1")
    assert given["reason"] == "unreachable: no route"
    assert (given["version"], given["mode"]) == ("2", "canary")


@pytest.mark.parametrize("ended", ["promote", "promote_blocked", "promote_failed"])
def test_a_host_lost_after_its_event_is_recorded_is_not_said_to_have_failed(ended: str) -> None:
    writes = Writes()
    watch = recorder(writes)
    watch.observe("web1", CONTEXT)
    watch.observe("web1", {"swiftdeploy_event": {"event": ended, "run_id": "r1"}})
    watch.unreachable("web1", "no route")
    assert writes.events() == [(ended, "web1")]


def test_a_host_lost_in_check_mode_writes_nothing() -> None:
    writes = Writes()
    watch = recorder(writes)
    watch.observe("web1", CONTEXT)
    watch.unreachable("web1", "no route", check=True)
    assert writes.done == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deploy", "the deploy itself went through"),
        ("deploy_blocked", "the deploy was blocked"),
        ("promote_failed", "the promote failed"),
    ],
)
def test_a_missing_record_is_told_apart_from_the_work(name: str, words: str) -> None:
    assert history.outcome_words(name) == words


def test_the_default_history_is_where_the_playbook_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert history.default_path(None) == tmp_path / "history.jsonl"
    assert history.default_path("") == tmp_path / "history.jsonl"
    assert history.default_path("logs/h") == tmp_path / "logs/h"
    assert history.default_path("/var/h") == Path("/var/h")


def test_the_actor_is_the_person_behind_sudo_for_root_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ada")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert history.default_actor().startswith("ada@")
    monkeypatch.setattr(os, "getuid", lambda: 12345678)
    assert history.default_actor().startswith("uid 12345678@")
