"""The files of a history: a cut end, closed files, files moved away, and what a kill leaves at any point."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swiftdeploy import explain, history, history_file, report
from swiftdeploy.history import HistoryError

# Each line of `event` is longer than this, so every line gets a file of its own but for the last.
TINY = 10


def event(number: int = 0, **more: Any) -> dict[str, Any]:
    return {"event": "deploy", "run_id": f"run-{number}", "host": "web1", "version": "1.0.0", **more}


def filled(folder: Path, count: int, max_size: int = 0) -> Path:
    path = folder / "history.jsonl"
    for number in range(count):
        history.append(path, event(number), max_size)
    return path


def in_files(folder: Path) -> Path:
    """Nine lines in three files of two, four and three lines."""
    path = folder / "history.jsonl"
    for number in range(9):
        history.append(path, event(number), TINY if number in (2, 6) else 0)
    assert names(folder) == [
        "history.jsonl",
        "history.jsonl.000000000001-000000000002",
        "history.jsonl.000000000003-000000000006",
        "history.jsonl.head",
    ]
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def segment(path: Path, number: int) -> Path:
    return history_file.segments(path)[number].path


# -------------------------------------------------------------------------------------- what is found


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"run-1") + 4] ^= 1
    path.write_bytes(raw)


def remove(path: Path) -> None:
    kept = lines(path)
    path.write_bytes(b"".join(kept[:1] + kept[2:]))


def swap(path: Path) -> None:
    kept = lines(path)
    path.write_bytes(b"".join([kept[0], kept[2], kept[1], *kept[3:]]))


def cut(path: Path) -> None:
    path.write_bytes(b"".join(lines(path)[:2]))


@pytest.mark.parametrize(
    ("harm", "line", "words"),
    [
        (flip, 2, "hash does not fit the line: it was changed after it was written"),
        (remove, 2, "seq is 3, expected 2: line 2 is missing or out of place"),
        (swap, 2, "seq is 3, expected 2: line 2 is missing or out of place"),
        (cut, 3, "lines 3 to 5 are missing at the end: the file ends at line 2, the last one written was line 5 of 20"),
    ],
)
def test_each_kind_of_harm_is_named_with_its_line(
    tmp_path: Path, harm: Callable[[Path], None], line: int, words: str
) -> None:
    path = filled(tmp_path, 5)
    harm(path)
    outcome = history.verify(path)
    assert (outcome.ok, outcome.first_bad_line, outcome.file) == (False, line, "history.jsonl")
    assert str(outcome.problem).startswith(words)
    text, reported = report.build(path)
    assert reported == outcome
    assert f"broken at line {line}" in text


@pytest.mark.parametrize("harm", [flip, remove, swap])
def test_harm_in_an_older_file_is_named_with_that_file(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    path = tmp_path / "history.jsonl"
    for number in range(8):
        history.append(path, event(number), TINY if number == 5 else 0)
    harm(segment(path, 0))
    outcome = history.verify(path)
    assert outcome.first_bad_line == 2
    assert outcome.file == "history.jsonl.000000000001-000000000005"
    assert f"in {outcome.file}: " in report.verdict(outcome, path)


@pytest.mark.parametrize(
    ("number", "file", "words"),
    [
        (0, "history.jsonl.000000000003-000000000006", "lines 1 to 2 are missing or out of place (history.jsonl.0"),
        (1, "history.jsonl", "(history.jsonl.000000000003-000000000006, if they had a file of their own)"),
    ],
)
def test_a_file_that_was_removed_is_named(tmp_path: Path, number: int, file: str, words: str) -> None:
    path = in_files(tmp_path)
    segment(path, number).unlink()
    outcome = history.verify(path)
    assert (outcome.ok, outcome.first_bad_line, outcome.file, outcome.bad_lines) == (False, 1, file, 1)
    assert words in str(outcome.problem)


def test_an_older_file_with_a_cut_end_is_named_and_told_once(tmp_path: Path) -> None:
    path = in_files(tmp_path)
    older = segment(path, 1)
    older.write_bytes(b"".join(lines(older)[:2]))
    outcome = history.verify(path)
    assert (outcome.first_bad_line, outcome.file, outcome.bad_lines) == (3, older.name, 1)
    assert "lines 5 to 6 are missing at the end: the file ends at line 4, its name says 6" in str(outcome.problem)


def test_the_newest_file_that_was_removed_or_emptied_is_a_cut_end(tmp_path: Path) -> None:
    path = in_files(tmp_path)
    for harm in (lambda: path.write_bytes(b""), path.unlink):
        harm()
        outcome = history.verify(path)
        assert (outcome.ok, outcome.records) == (False, 6)
        assert "lines 7 to 9 are missing at the end: the file ends at line 6" in str(outcome.problem)


def test_a_whole_history_that_was_removed_is_not_taken_for_none(tmp_path: Path) -> None:
    path = filled(tmp_path, 3)
    path.unlink()
    outcome = history.verify(path)
    assert (outcome.ok, outcome.first_bad_line) == (False, 1)
    assert "lines 1 to 3 are missing at the end: the file holds none" in str(outcome.problem)
    assert str(outcome.problem).endswith("To begin anew on purpose, move history.jsonl.* away too")


def test_a_last_line_that_was_exchanged_with_a_right_hash_is_found(tmp_path: Path) -> None:
    path = filled(tmp_path, 3)
    record = json.loads(lines(path)[2])
    record["version"] = "6.6.6"
    record["hash"] = history.digest(record)
    path.write_bytes(b"".join(lines(path)[:2]) + history.encode(record))
    outcome = history.verify(path)
    assert (outcome.first_bad_line, outcome.bad_lines) == (3, 1)
    assert "not the line 3 that history.jsonl.head says was written" in str(outcome.problem)
    # Nor does the next line follow it.
    history.append(path, event())
    assert history.verify(path).first_bad_line == 4


# -------------------------------------------------------------------------------------------- the head


def test_the_next_line_does_not_paper_over_a_cut_end(tmp_path: Path) -> None:
    path = filled(tmp_path, 5)
    path.write_bytes(b"".join(lines(path)[:2]))
    for number in range(3):
        assert history.append(path, event(number))["seq"] == 6 + number
    outcome = history.verify(path)
    assert (outcome.ok, outcome.first_bad_line, outcome.bad_lines) == (False, 3, 1)
    assert outcome.problem == "seq is 6, expected 3: lines 3 to 5 are missing or out of place"


def test_a_last_line_that_was_made_unreadable_is_not_written_over(tmp_path: Path) -> None:
    path = filled(tmp_path, 3)
    path.write_bytes(path.read_bytes().rstrip(b"}\n") + b"x\n")
    record = history.append(path, event())
    assert record["seq"] == 4
    assert record["torn"]
    assert "line 3 is missing" in str(history.verify(path).problem)


@pytest.mark.parametrize("content", [None, b"", b"\0" * 80, b"[]", b'{"seq": "4"}', b"[" * 3000])
def test_without_a_head_the_end_cannot_be_checked_and_that_is_said(tmp_path: Path, content: bytes | None) -> None:
    path = filled(tmp_path, 3)
    head = history_file.head_path(path)
    head.unlink()
    if content is not None:
        head.write_bytes(content)
    outcome = history.verify(path)
    assert outcome.ok
    assert "the end cannot be checked: history.jsonl.head is " in history.notes_words(outcome)
    assert history.append(path, event())["seq"] == 4
    assert history.verify(path).notes == ()


def test_a_copy_of_the_file_alone_is_whole(tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(filled(tmp_path, 3).read_bytes())
    outcome = history.verify(copy)
    assert (outcome.ok, outcome.records) == (True, 3)
    assert outcome.notes == ("the end cannot be checked: copy.jsonl.head is missing",)


def test_a_verdict_holds_the_last_line_to_be_kept_elsewhere(tmp_path: Path) -> None:
    path = filled(tmp_path, 3)
    last = json.loads(lines(path)[-1])
    outcome = history.verify(path)
    assert (outcome.last_seq, outcome.last_hash) == (3, last["hash"])
    assert history.notes_words(outcome) == f"the last line is 3 with hash {last['hash']}"


def test_a_head_that_cannot_be_written_stays_behind_and_that_is_said(tmp_path: Path) -> None:
    path = filled(tmp_path, 2)
    blocked = tmp_path / "history.jsonl.head.new"
    blocked.mkdir()
    assert history.append(path, event())["seq"] == 3
    outcome = history.verify(path)
    assert outcome.ok
    assert outcome.notes == ("the end can be checked up to line 2: history.jsonl.head knows no later one",)
    blocked.rmdir()
    history.append(path, event())
    assert history.verify(path).notes == ()


# -------------------------------------------------------------------------------------- closing a file


def test_a_full_file_is_closed_and_all_readers_go_through_all_files(tmp_path: Path) -> None:
    path = in_files(tmp_path)
    whole = history.verify(path)
    assert whole == history.VerifyResult(ok=True, records=9)
    assert whole.notes == ()
    assert [record["seq"] for record in history.read(path)] == list(range(1, 10))
    assert [(line.file[-3:], line.number) for line in history.scan(path)][1:4] == [("002", 2), ("006", 1), ("006", 2)]
    text, outcome = report.build(path)
    assert outcome == whole
    assert "| Records | 9 |" in text
    for number in range(9):
        found = history.find(path, f"run-{number}", "deploy", "web1")
        assert found is not None
        assert found["seq"] == number + 1


def test_a_decision_in_a_closed_file_is_explained(tmp_path: Path) -> None:
    policy = {"infrastructure": {"outcome": "allowed", "decision_id": "4ca636c1-55e4-417a-b1d8-4aceb67960d1"}}
    history.append(tmp_path / "h", event(policy=policy))
    history.append(tmp_path / "h", event(), TINY)
    assert explain.find(tmp_path / "h", "4ca636c1").record["seq"] == 1


def test_no_file_grows_beyond_the_limit_by_more_than_a_line(tmp_path: Path) -> None:
    path = filled(tmp_path, 40, max_size=2000)
    sizes = [part.path.stat().st_size for part in history_file.segments(path)]
    longest = max(len(line) for part in history_file.segments(path) for line in lines(part.path))
    assert len(sizes) > 3
    assert all(2000 <= size < 2000 + longest for size in sizes)
    assert history.verify(path) == history.VerifyResult(ok=True, records=40)


def test_a_name_that_is_taken_is_not_written_over(tmp_path: Path) -> None:
    path = filled(tmp_path, 2)
    taken = tmp_path / "history.jsonl.000000000001-000000000002"
    taken.write_text("of somebody\n")
    assert history.append(path, event(), TINY)["seq"] == 3
    assert taken.read_text() == "of somebody\n"


def test_the_names_stay_out_of_git() -> None:
    ignored = (Path(__file__).resolve().parents[2] / ".gitignore").read_text().splitlines()
    assert {"history.jsonl", "history.jsonl.*"} <= set(ignored)


DIE = """
import os, pathlib, signal, sys
from swiftdeploy import history
def die(*_words, **_more):
    os.kill(os.getpid(), signal.SIGKILL)
def after(function):
    def done(*words, **more):
        function(*words, **more)
        die()
    return done
{harm}
history.append(sys.argv[1], {{"event": "deploy", "run_id": "killed"}}, {limit})
"""
POINTS = {
    "before the line": ("os.write = die", 0, 3),
    "after the line, before it is on the disk": ("os.write = after(os.write)", 0, 4),
    "after it is on the disk, before the head": ("os.fsync = after(os.fsync)", 0, 4),
    "before the head's name": ("pathlib.Path.replace = die", 0, 4),
    "after the head's name": ("pathlib.Path.replace = after(pathlib.Path.replace)", 0, 4),
    "before the file is closed": ("pathlib.Path.rename = die", TINY, 3),
    "after the file is closed": ("pathlib.Path.rename = after(pathlib.Path.rename)", TINY, 3),
    "before the first line of the new file": ("os.write = die", TINY, 3),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_point_of_an_append_loses_nothing_and_alarms_nobody(tmp_path: Path, point: str) -> None:
    harm, limit, left = POINTS[point]
    path = filled(tmp_path, 3)
    script = DIE.format(harm=harm, limit=limit)
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert history.verify(path) == history.VerifyResult(ok=True, records=left)
    assert history.append(path, event(), limit)["seq"] == left + 1
    assert history.verify(path) == history.VerifyResult(ok=True, records=left + 1)
    assert history.verify(path).notes == ()
    assert "history.jsonl.head.new" not in names(tmp_path)


def test_the_head_is_never_ahead_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the calls, as a power cut cannot be had: line, its fsync, then the head."""
    path, calls = filled(tmp_path, 1), []
    real = {"write": os.write, "fsync": os.fsync}

    def watched(name: str) -> Callable[..., Any]:
        def call(handle: int, *words: Any) -> Any:
            calls.append((name, Path(f"/proc/self/fd/{handle}").readlink().name))
            return real[name](handle, *words)

        return call

    replace = Path.replace
    with monkeypatch.context() as patch:
        for name in real:
            patch.setattr(os, name, watched(name))
        patch.setattr(Path, "replace", lambda a, b: (calls.append(("rename", a.name)), replace(a, b))[1])
        history.append(path, event())
    new = "history.jsonl.head.new"
    assert calls == [
        ("write", "history.jsonl"),
        ("fsync", "history.jsonl"),
        ("write", new),
        ("fsync", new),
        ("rename", new),
    ]


# ------------------------------------------------------------------------------------------ moving away


def test_archived_files_are_no_break_and_the_start_is_said(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "old").mkdir()
    path = in_files(tmp_path / "book")
    assert history.archive(path, tmp_path / "old") == [
        "history.jsonl.000000000001-000000000002",
        "history.jsonl.000000000003-000000000006",
    ]
    assert names(tmp_path / "book") == ["history.jsonl", "history.jsonl.head"]
    outcome = history.verify(path)
    assert outcome == history.VerifyResult(ok=True, records=4)
    assert outcome.notes == ("it starts at line 7, the earlier ones were archived",)
    said = list(history.read(path))[-1]
    assert (said["event"], said["reason"]) == ("history_archived", f"lines 1 to 6 were moved to {tmp_path / 'old'}")
    # Once more, to the same folder, and what is there is a whole history of its own.
    history.append(path, event(), TINY)
    history.archive(path, tmp_path / "old")
    assert history.verify(path).ok
    assert history.verify(tmp_path / "old" / "history.jsonl") == history.VerifyResult(ok=True, records=10)
    assert history.archive(path, tmp_path / "old") == []


def test_a_start_that_was_not_archived_is_a_break(tmp_path: Path) -> None:
    path = in_files(tmp_path)
    (tmp_path / "old").mkdir()
    history.archive(path, tmp_path / "old")
    path.write_bytes(b"".join(lines(path)[1:]))
    outcome = history.verify(path)
    assert (outcome.ok, outcome.first_bad_line) == (False, 1)
    assert "lines 1 to 7 are missing" in str(outcome.problem)


class Failing:
    """A function that works so many times, then has no space."""

    def __init__(self, function: Callable[..., Any], times: int) -> None:
        self.function, self.left = function, times

    def __call__(self, *words: Any, **more: Any) -> Any:
        if self.left == 0:
            raise OSError(28, "No space left on device")
        self.left -= 1
        return self.function(*words, **more)

    def method(self) -> Callable[..., Any]:
        # A plain function, so that it becomes a method.
        def call(*words: Any, **more: Any) -> Any:
            return self(*words, **more)

        return call


def test_an_archive_that_was_killed_is_whole_at_each_point_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "book").mkdir()
    old = tmp_path / "old"
    old.mkdir()
    path = in_files(tmp_path / "book")

    for removed in (None, 0, 1):
        with monkeypatch.context() as patch:
            if removed is None:
                patch.setattr("shutil.copyfile", Failing(shutil.copyfile, 0))
            else:
                patch.setattr(Path, "unlink", Failing(Path.unlink, removed).method())
            with pytest.raises(HistoryError, match="What was not moved yet is where it was; run again"):
                history.archive(path, old)
        assert history.verify(path).ok
    history.archive(path, old)
    assert history.verify(path).ok
    assert names(tmp_path / "book") == ["history.jsonl", "history.jsonl.head"]
    assert [name for name in names(old) if name.endswith(".part")] == []


def test_an_archive_is_refused_where_it_would_lose_something(tmp_path: Path) -> None:
    path = in_files(tmp_path)
    (tmp_path / "old").mkdir()
    with pytest.raises(HistoryError, match="is not a folder"):
        history.archive(path, tmp_path / "none")
    other = tmp_path / "old" / segment(path, 0).name
    other.write_text("of another history\n")
    with pytest.raises(HistoryError, match="other files of these names are there"):
        history.archive(path, tmp_path / "old")
    assert other.read_text() == "of another history\n"
    other.unlink()
    flip(segment(path, 0))
    with pytest.raises(HistoryError, match=r"is broken at line 2 of history\.jsonl\.0"):
        history.archive(path, tmp_path / "old")
    assert len(history_file.segments(path)) == 2


# ----------------------------------------------------------------------------------- before it is begun


def test_a_history_that_could_not_be_written_is_told_beforehand(tmp_path: Path) -> None:
    history.check_writable(tmp_path / "history.jsonl")
    history.check_writable(filled(tmp_path, 1))
    with pytest.raises(HistoryError, match="its folder does not exist"):
        history.check_writable(tmp_path / "none" / "h")
    with pytest.raises(HistoryError, match="it is a folder"):
        history.check_writable(tmp_path)
    (tmp_path / "other").write_text("services: {}\n")
    with pytest.raises(HistoryError, match="a part of the path is a file"):
        history.check_writable(tmp_path / "other" / "h")
    with pytest.raises(HistoryError, match="is not a SwiftDeploy history"):
        history.check_writable(tmp_path / "other")
    assert names(tmp_path) == ["history.jsonl", "history.jsonl.head", "other"]
