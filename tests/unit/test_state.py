"""What a host remembers: releases, the way back, and what is believed after a killed run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swiftdeploy_target import state


def release(name: str, slot: str, mode: str = "stable", spec: str | None = None) -> dict[str, Any]:
    made = {"id": name, "slot": slot, "mode": mode, "spec_hash": spec or name, "outcome": "new", "version": name}
    return {**made, "spec": {"version": name[0], "mode": mode}}


def after(*steps: tuple[dict[str, Any], str]) -> dict[str, Any]:
    current = state.empty("app")
    for entry, leaves in steps:
        current = state.commit(current, entry, "process", leaves)
    return current


def test_a_host_without_a_file_is_empty(tmp_path: Path) -> None:
    assert state.load(tmp_path, "app") == state.empty("app")


def test_what_is_saved_is_loaded_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    current = after((release("a", "blue"), "replaced"))
    state.save(tmp_path, current)
    assert state.load(tmp_path, "app") == current
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}'])
def test_a_damaged_file_is_named_and_not_believed(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(state.StateError, match=r"state\.json"):
        state.load(tmp_path, "app")


def test_the_last_good_release_is_the_one_before() -> None:
    current = after((release("a", "blue"), "replaced"), (release("b", "green"), "replaced"))
    good = state.last_good(current)
    assert good is not None
    assert good["id"] == "a"


def test_a_release_that_was_rolled_back_is_never_good_again() -> None:
    current = after(
        (release("a", "blue"), "replaced"),
        (release("b", "green"), "replaced"),
        (release("c", "blue"), "replaced"),
        (release("b2", "green", spec="b"), "rolled_back"),
    )
    good = state.last_good(current)
    assert good is not None
    assert good["id"] == "a"


def test_there_is_no_way_back_from_the_first_release() -> None:
    assert state.last_good(after((release("a", "blue"), "replaced"))) is None
    assert state.last_good(state.empty("app")) is None


def test_a_canary_does_not_become_the_last_stable_release() -> None:
    current = after((release("a", "blue"), "replaced"), (release("b", "green", "canary"), "replaced"))
    assert current["last_stable"]["id"] == "a"
    assert current["live"] == "green"


def test_only_the_last_five_releases_are_kept() -> None:
    names = "abcdefg"
    current = after(*((release(name, "blue"), "replaced") for name in names))
    assert [entry["id"] for entry in current["releases"]] == list(names[-5:])


def serving(live: str, **weights: int) -> dict[str, Any]:
    return {"live": live, "weights": weights or {live: 100}}


def test_what_nginx_serves_is_believed_over_the_file() -> None:
    current = after((release("a", "blue"), "replaced"))
    current["slots"]["green"] = release("b", "green")
    assert state.reconcile(current, serving("green"))["live"] == "green"
    assert state.reconcile(current, None) == current
    assert state.reconcile(current, serving("blue")) == current
    current["slots"]["green"] = None
    assert state.reconcile(current, serving("green")) == current


def test_a_canary_is_what_nginx_gives_traffic_beside_the_live_release() -> None:
    current = after((release("a", "blue"), "replaced"))
    current["slots"]["green"] = release("b", "green")
    found = state.reconcile(current, serving("blue", blue=75, green=25))
    assert found["canary"] == {"slot": "green", "weight": 25}
    assert found["slots"]["green"]["outcome"] == "canary"
    # Taken back by a run that died before it could write that down.
    assert state.reconcile(found, serving("blue"))["canary"] == {"slot": "green", "weight": 0}
    # Given all traffic by such a run.
    taken = state.reconcile(found, serving("green"))
    assert (taken["live"], taken["canary"]) == ("green", None)


def test_a_rollback_goes_to_the_live_release_while_a_canary_runs() -> None:
    current = after((release("a", "blue"), "replaced"), (release("b", "green"), "replaced"))
    assert state.last_good(current)["id"] == "a"
    current["slots"]["blue"] = release("c", "blue", "canary")
    assert state.last_good(state.with_canary(current, "blue", 5))["id"] == "b"
    assert state.last_good(state.without(state.with_canary(current, "blue", 5), "blue"))["id"] == "a"


def test_a_rollback_from_stable_is_not_to_the_same_code_in_canary_mode() -> None:
    history = [release("a", "blue"), release("b1", "green", "canary"), release("b2", "blue")]
    assert state.last_good(after(*((entry, "replaced") for entry in history)))["id"] == "a"
    # From canary mode the same code in stable mode is a way back.
    assert (
        state.last_good(after((release("c1", "blue"), "replaced"), (release("c2", "green", "canary"), "replaced")))[
            "id"
        ]
        == "c1"
    )


def test_a_release_that_is_gone_leaves_its_slot_empty() -> None:
    current = after((release("a", "blue"), "replaced"))
    current["slots"]["green"] = release("b", "green")
    gone = state.without(state.with_canary(current, "green", 5), "green")
    assert gone["slots"]["green"] is None
    assert gone["canary"] is None
    assert gone["live"] == "blue"


def test_committing_does_not_change_its_argument() -> None:
    current = after((release("a", "blue"), "replaced"))
    kept = json.dumps(current, sort_keys=True)
    state.commit(current, release("b", "green"), "process")
    assert json.dumps(current, sort_keys=True) == kept


def test_what_a_host_takes_away_is_remembered_until_somebody_asks_for_it() -> None:
    first, second = release("a", "blue"), release("b", "green")
    current = state.commit(
        after((first, "replaced"), (second, "replaced")), release("a2", "blue", spec="a"), "process", "rolled_back"
    )
    held = state.rejected(current, second["spec"])
    assert held is not None
    assert (held["id"], held["why"]) == ("b", "rolled_back")
    assert state.rejected(current, {**second["spec"], "mode": "canary"}) == held
    assert state.rejected(current, first["spec"]) is None
    # What was stable last is none that was rolled back.
    assert current["last_stable"]["id"] == "a2"
    again = state.commit(current, release("b2", "green", spec="b"), "process")
    assert state.rejected(again, second["spec"]) is None


def test_a_rolled_back_release_is_not_what_was_last_stable() -> None:
    """Or a promotion to it would never be asked about."""
    canary, bad = release("a", "blue", "canary"), release("b", "green")
    current = state.commit(
        after((canary, "replaced"), (bad, "replaced")), release("a2", "blue", "canary", "a"), "process", "rolled_back"
    )
    assert current["last_stable"] is None


def test_undoing_a_run_over_several_hosts_holds_nothing_against_a_release() -> None:
    current = after((release("a", "blue"), "replaced"), (release("b", "green"), "replaced"))
    undone = state.commit(current, release("a2", "blue", spec="a"), "process", "rolled_back", False)
    assert undone["rejected"] == []
    assert state.last_good(undone) is None


def test_a_canary_that_is_rolled_back_is_taken_away_and_one_that_is_replaced_is_not() -> None:
    live, canary = release("a", "blue"), release("b", "green", "canary")
    current = after((live, "replaced"))
    current = state.with_canary({**current, "slots": {**current["slots"], "green": canary}}, "green", 25)
    assert state.commit(current, live, "process", "replaced")["rejected"] == []
    (entry,) = state.commit(current, live, "process", "rolled_back")["rejected"]
    assert (entry["version"], entry["why"]) == ("b", "rolled_back")
