"""Watching a release that has just got its traffic: what counts as dead, and what the host remembers of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swiftdeploy_target import settle, state
from swiftdeploy_target.runtime import Runtime
from unit.test_state import release


class Pretended(Runtime):
    """A runtime whose program does as the test says."""

    def __init__(self, log: Path, life: Callable[[], str | None]) -> None:
        self.log = log
        self.folder = log.parent
        self._life = life

    def life(self, slot: str) -> str | None:
        return self._life()

    def ending(self, slot: str) -> str:
        return "status 3"

    def address(self, slot: str) -> str:
        return "127.0.0.1:9"

    def proxy_log(self) -> dict[str, str]:
        return {"kind": "file", "path": str(self.log)}


def line(status: int, slot: str = "green", ago: float = 0.0) -> str:
    told = {"msec": time.time() - ago, "status": status, "request_time": 0.01, "slot": slot, "path": "/"}
    return json.dumps({**told, "upstream": "127.0.0.1:3001"}) + "\n"


@pytest.mark.parametrize(
    ("lines", "dead"),
    [
        ([], False),
        ([(502, "green", 0)] * 2, False),
        ([(502, "green", 0)] * 3, True),
        ([(502, "green", 0)] * 3 + [(200, "green", 0)] * 40, False),
        ([(502, "green", 0)] * 20 + [(200, "green", 0)] * 100, True),
        # The service's own errors are for the gate to judge, and another slot's for nobody here.
        ([(500, "green", 0)] * 20, False),
        ([(502, "blue", 0)] * 20, False),
        ([(502, "green", 60)] * 20, False),
    ],
)
def test_what_the_proxy_could_not_get_answered(tmp_path: Path, lines: list[tuple[int, str, float]], dead: bool) -> None:
    log = tmp_path / "nginx.log"
    log.write_text("".join(["no line of the log\n", *(line(*one) for one in lines)]))
    found = settle.proxy_problem({"kind": "file", "path": str(log)}, "green", time.time() - 10)
    assert bool(found) == dead, found


def test_a_log_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    assert settle.proxy_problem({"kind": "file", "path": str(tmp_path / "none")}, "green", 0.0) == ""


def watched(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, answers: Callable[[], str]) -> settle.Settle:
    monkeypatch.setattr("swiftdeploy_target.watch.unhealthy", lambda *_question: answers())
    monkeypatch.setattr(settle, "unhealthy", lambda *_question: answers())
    watch = settle.Settle(runtime, "green", {"path": "/healthz", "timeout": 1.0}, 0.6)
    watch.begin()
    return watch


def test_one_that_lives_is_watched_for_its_time_and_as_long_as_is_drained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = watched(Pretended(tmp_path / "log", lambda: "1"), monkeypatch, lambda: "")
    looks = iter([False, False, True])
    assert watch.watch(lambda: next(looks)) == ""
    assert next(looks, None) is None
    assert watch.seconds() >= 0.6


@pytest.mark.parametrize("later", [None, "2"])
def test_one_that_ends_or_is_started_again_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str | None
) -> None:
    lives = iter(["1", "1"])
    watch = watched(Pretended(tmp_path / "log", lambda: next(lives, later)), monkeypatch, lambda: "")
    assert watch.watch(lambda: False) == "it ended by itself (status 3)"


def test_three_failed_questions_in_a_row_are_a_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watched(Pretended(tmp_path / "log", lambda: "1"), monkeypatch, lambda: "it answers 500")
    assert watch.watch(lambda: False) == "it answers 500, 3 times in a row"


def test_one_that_fails_when_the_time_is_over_is_asked_until_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    watch = watched(
        Pretended(tmp_path / "log", lambda: "1"),
        monkeypatch,
        lambda: "" if time.monotonic() - began < 0.45 else "it answers 500",
    )
    assert watch.watch() == "it answers 500, 3 times in a row"


def test_what_is_remembered_of_a_switch_that_is_taken_back() -> None:
    first, second = release("a", "blue"), release("b", "green")
    before = state.commit(state.empty("app"), first, "process")
    before = {**before, "slots": {**before["slots"], "green": {**second, "outcome": "starting"}}}
    switched = state.settling(before, state.commit(before, second, "process"), "blue")
    assert switched["settling"] == {"slot": "green", "from": "blue", "last_stable": before["last_stable"]}
    # Written down again by the call that watches: the way back stays the first one.
    again = state.settling(switched, state.commit(switched, second, "process"), "blue")
    assert again["settling"] == switched["settling"]
    back = state.taken_back(switched)
    assert (back["live"], back["settling"], back["last_stable"]["id"]) == ("blue", None, "a")
    assert [(entry["id"], entry["outcome"]) for entry in back["releases"]] == [("b", "died"), ("a", "live")]
    # nginx says so itself where the run was killed that turned it off.
    serving: dict[str, Any] = {"live": "blue", "weights": {"blue": 100}, "off": True, "fallback": "blue"}
    assert state.reconcile(switched, serving)["releases"] == back["releases"]
    assert state.last_good(state.without(back, "green")) is None
