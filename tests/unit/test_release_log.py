"""What a host remembers of its releases, and what a controller makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swiftdeploy import history, others
from swiftdeploy_target import release_log, state

HOLDER = {"run_id": "run-1", "actor": "ada@control1", "controller": "control1", "action": "deploy", "pid": 7}


def release(name: str, slot: str, mode: str = "stable") -> dict[str, Any]:
    return {"id": name, "version": name, "mode": mode, "slot": slot, "spec_hash": name, "outcome": "new", "spec": {}}


def deployed(*names: str) -> dict[str, Any]:
    """The state after these releases, each in the other slot."""
    found = state.empty("app")
    for number, name in enumerate(names):
        found = state.commit(found, release(name, state.SLOTS[number % 2]), "process")
    return found


def with_canary(weight: int) -> dict[str, Any]:
    found = deployed("one")
    found["slots"] = {**found["slots"], "green": release("two", "green", "canary")}
    return state.with_canary(found, "green", weight)


def switched(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    found = release_log.switched(before, after, HOLDER, "replaced")
    assert found is not None
    return found


def test_a_switch_is_told_with_who_did_it() -> None:
    found = switched(deployed("one"), deployed("one", "two"))
    assert found.pop("at").endswith("Z")
    assert found == {
        "event": "live",
        "run_id": "run-1",
        "actor": "ada@control1",
        "controller": "control1",
        "action": "deploy",
        "release": "two",
        "version": "two",
        "mode": "stable",
        "slot": "green",
        "weight": 100,
        "leaves": "replaced",
    }


def test_a_first_release_replaces_none() -> None:
    assert switched(state.empty("app"), deployed("one"))["leaves"] is None


def test_a_canary_comes_gets_more_and_goes() -> None:
    came = switched(deployed("one"), with_canary(10))
    assert (came["event"], came["release"], came["weight"]) == ("canary", "two", 10)
    assert switched(with_canary(10), with_canary(50))["weight"] == 50
    gone = switched(with_canary(10), {**with_canary(10), "canary": None})
    assert (gone["event"], gone["release"], gone["weight"]) == ("back", "two", 0)


def test_what_moves_no_traffic_is_not_told() -> None:
    before = deployed("one")
    assert release_log.switched(before, {**before, "programs": {"nginx": "/x"}}, HOLDER, "replaced") is None


def test_who_did_it_may_not_be_known() -> None:
    found = release_log.switched(state.empty("app"), deployed("one"), None, "replaced")
    assert found is not None
    assert (found["actor"], found["release"]) == (None, "one")


def line(number: int = 1, **more: Any) -> dict[str, Any]:
    return release_log.entry("live", {**HOLDER, "run_id": f"run-{number}"}, release(f"r{number}", "blue"), **more)


def test_lines_are_read_as_they_were_written_and_outlive_the_stack(tmp_path: Path) -> None:
    stack_dir = tmp_path / "home" / "app"
    assert release_log.read(stack_dir) == []
    written = [line(number) for number in (1, 2, 3)]
    for one in written:
        release_log.append(stack_dir, one)
    assert release_log.read(stack_dir) == written
    assert not stack_dir.exists(), "it does not stand in the folder that a teardown removes"


def test_a_line_that_was_cut_off_costs_that_line_alone(tmp_path: Path) -> None:
    stack_dir = tmp_path / "app"
    release_log.append(stack_dir, line(1))
    path = release_log.path_of(stack_dir)
    path.write_bytes(path.read_bytes() + path.read_bytes()[:40] + b"")
    release_log.append(stack_dir, line(2))
    assert [entry["run_id"] for entry in release_log.read(stack_dir)] == ["run-1", "run-2"]


def test_the_log_is_bounded_and_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_log, "MAX_BYTES", 4000)
    for number in range(100):
        release_log.append(tmp_path / "app", line(number))
        assert release_log.path_of(tmp_path / "app").stat().st_size <= 4000
    kept = [entry["run_id"] for entry in release_log.read(tmp_path / "app")]
    assert kept == [f"run-{number}" for number in range(100 - len(kept), 100)]
    assert len(kept) >= 5


def recorded(path: Path, *runs: str) -> Path:
    for run in runs:
        history.append(path, {"event": "deploy", "run_id": run, "host": "web1"})
    return path


def test_what_was_done_from_elsewhere_is_told(tmp_path: Path) -> None:
    told = {"web1": [line(1), line(3)], "web2": [line(2)]}
    path = recorded(tmp_path / "history.jsonl", "run-1", "run-9")
    found = others.unseen(told, path)
    assert sorted((entry["host"], entry["run_id"]) for entry in found) == [("web1", "run-3"), ("web2", "run-2")]
    words = others.text(found, told, path).splitlines()
    assert words[0] == "2 hosts asked: 2 of 3 switches were made by runs that history.jsonl does not know"
    assert len(words) == 3
    assert "vr3 (stable) r3 got all traffic, by ada@control1 (deploy)" in "\n".join(words)


def test_a_history_that_knows_them_all_and_one_that_is_not_there_yet(tmp_path: Path) -> None:
    told = {"web1": [line(1)]}
    path = recorded(tmp_path / "history.jsonl", "run-1")
    assert others.unseen(told, path) == []
    assert (
        others.text([], told, path) == "1 host asked: history.jsonl knows the runs of all 1 switches that they remember"
    )
    assert len(others.unseen(told, tmp_path / "none.jsonl")) == 1
    assert others.text([], {}, path).startswith("no host has answered")


def test_only_hosts_that_answered_are_held_against_it() -> None:
    known: dict[str, dict[str, Any]] = {"web1": {"audit_log": [line(1)]}, "web2": {"audit_log": None}, "web3": {}}
    assert list(others.logs(known, known)) == ["web1"]


def test_a_long_list_is_cut_to_its_end_for_people(tmp_path: Path) -> None:
    told = {"web1": [line(number, at=f"2026-01-01T00:00:{number:02}Z") for number in range(60)]}
    found = others.unseen(told, tmp_path / "none.jsonl")
    words = others.text(found, told, tmp_path / "none.jsonl").splitlines()
    assert words[1] == "  the last 50 of them:"
    assert len(words) == 52
    assert json.dumps(found[-1]["run_id"]) == '"run-59"'


def test_a_canary_and_a_teardown_have_words_of_their_own() -> None:
    entries = [
        {"host": "web1", **release_log.entry("canary", HOLDER, release("two", "green"), weight=10)},
        {"host": "web1", **release_log.entry("teardown", {**HOLDER, "action": "teardown"}, None)},
    ]
    words = others.text(entries, {"web1": entries}, Path("history.jsonl")).splitlines()
    assert "got 10 %, by ada@control1 (deploy)" in words[1]
    assert words[2].endswith("web1  teardown, by ada@control1 (teardown)")
