"""One run over many hosts: order, batches, when it stops, who goes back, what is recorded and said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdeploy import fleet

Hosts = dict[str, dict[str, Any]]


def names(count: int) -> list[str]:
    return [f"web{number}" for number in range(1, count + 1)]


def run(count: int, first: tuple[str, ...] = (), **settings: Any) -> Hosts:
    """That many hosts of one inventory, none begun yet."""
    given = {"serial": "100%", "max_fail": 0, "on_failure": "stop", "unreachable": "stop", **settings}
    return {host: {"fleet_host": {"first": host in first, **given}} for host in names(count)}


def ended(known: Hosts, **outcomes: str) -> Hosts:
    """The same hosts with their outcomes; one that changed was on release old before."""
    for host, outcome in outcomes.items():
        known[host]["fleet_result"] = {
            "outcome": outcome,
            "reason": f"why {host}" if outcome not in ("changed", "unchanged") else "",
            "switched": outcome == "changed",
            "before": "old",
        }
    return known


def test_canary_hosts_come_first_in_a_batch_of_their_own() -> None:
    known = run(5, first=("web3", "web5"), serial=2)
    assert fleet.order(list(known), known) == ["web3", "web5", "web1", "web2", "web4"]
    assert fleet.batches(list(known), known) == [2, 2, 1]


@pytest.mark.parametrize(
    ("serial", "expected"),
    [
        ("100%", [10]),
        (3, [3, 3, 3, 1]),
        ("3", [3, 3, 3, 1]),
        ("30%", [3, 3, 3, 1]),
        ("1%", [1] * 10),
        ([1, 2, "50%"], [1, 2, 5, 2]),
        (50, [10]),
    ],
)
def test_serial_is_ansibles_own(serial: Any, expected: list[int]) -> None:
    known = run(10, serial=serial)
    assert fleet.batches(list(known), known) == expected


def test_where_all_are_canary_hosts_none_comes_first() -> None:
    known = run(3, first=("web1", "web2", "web3"), serial=1)
    assert fleet.batches(list(known), known) == [1, 1, 1]


@given(
    st.integers(1, 60),
    st.sets(st.integers(1, 60)),
    st.lists(st.one_of(st.integers(1, 70), st.integers(1, 200).map(lambda n: f"{n}%")), min_size=1, max_size=4),
)
def test_every_host_is_in_one_batch(count: int, first: set[int], serial: list[Any]) -> None:
    known = run(count, first=tuple(f"web{number}" for number in first), serial=serial)
    assert sum(fleet.batches(names(count), known)) == count
    assert sorted(fleet.order(names(count), known)) == sorted(names(count))


@pytest.mark.parametrize(
    ("serial", "first", "joined"),
    [
        ("100%", (), [[6]]),
        (3, (), [[3, 3]]),
        (2, (), [[2, 2, 2]]),
        (2, ("web4",), [[1, 2], [2, 1]]),
        (1, (), [[1, 1], [1, 1], [1, 1]]),
        (1, ("web4", "web5"), [[2, 1], [1, 1, 1]]),
    ],
)
def test_no_batch_is_alone_in_one_of_ansibles(serial: Any, first: tuple[str, ...], joined: list[list[int]]) -> None:
    known = run(6, first=first, serial=serial)
    assert fleet.joined(list(known), known) == joined
    assert fleet.serial(list(known), known) == [sum(group) for group in joined]
    places = fleet.places(list(known), known)
    assert list(places) == fleet.order(list(known), known)
    assert list(places.values()) == [place for group in joined for place, size in enumerate(group) for _ in range(size)]


def test_a_play_that_was_not_asked_yet_has_plain_batches() -> None:
    assert fleet.serial(["a", "b"], {}) == [2]
    assert fleet.order(["a", "b"], {}) == ["a", "b"]
    assert fleet.batches(["a", "b"], {}) == [2]
    assert fleet.batches([], {}) == [1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"serial": 0}, "swiftdeploy_serial is 0, allowed are a number of hosts, a percentage, or a list"),
        ({"serial": "many"}, "swiftdeploy_serial is 'many'"),
        ({"serial": []}, "swiftdeploy_serial is []"),
        ({"serial": True}, "swiftdeploy_serial is True"),
        ({"max_fail": "-1"}, "max_fail is '-1', allowed is a whole number of hosts, 0 or more"),
        ({"max_fail": "10%"}, "max_fail is '10%'"),
        ({"on_failure": "undo"}, "on_failure is 'undo', allowed are stop and rollback"),
        ({"unreachable": "ignore"}, "swiftdeploy_unreachable of web1 is 'ignore', allowed are stop and skip"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(settings: dict[str, Any], words: str) -> None:
    known = run(1, **settings)
    (problem,) = fleet.problems(list(known), known)
    assert problem.startswith(words)


def test_settings_of_the_run_are_the_same_for_all_hosts() -> None:
    known = run(3)
    known["web2"]["fleet_host"]["max_fail"] = 1
    (problem,) = fleet.problems(list(known), known)
    assert problem == (
        "swiftdeploy_max_fail is not the same for all hosts: 0 (web1, web3), 1 (web2); set it once, in group_vars/all"
    )


def test_what_may_differ_between_hosts_may() -> None:
    known = run(2, first=("web1",))
    known["web1"]["fleet_host"]["unreachable"] = "skip"
    assert fleet.problems(list(known), known) == []


def test_the_first_failure_stops_the_run() -> None:
    known = ended(run(4), web1="changed")
    assert fleet.stops(list(known), known) == ""
    ended(known, web2="failed")
    assert fleet.stops(list(known), known) == "the run stopped because of web2 (failed)"


@pytest.mark.parametrize("outcome", ["failed", "blocked", "unreachable", "begun"])
def test_failures_are_tolerated_up_to_max_fail_over_all_batches(outcome: str) -> None:
    known = ended(run(4, max_fail="1"), web1=outcome)
    assert fleet.stops(list(known), known) == ""
    ended(known, web3="failed")
    words = {"blocked": "denied", "begun": "lost in the middle"}.get(outcome, outcome)
    assert fleet.stops(list(known), known) == (
        f"the run stopped because of web1 ({words}), web3 (failed), and max_fail is 1"
    )


def test_an_unreachable_host_that_may_be_skipped_does_not_count() -> None:
    known = ended(run(3, unreachable="skip"), web1="unreachable")
    assert fleet.stops(list(known), known) == ""
    assert not fleet.tally(list(known), known)["ok"], "it is not done all the same"


def observed(live: str | None = "blue", release: str = "old") -> dict[str, Any]:
    return {"live": live, "state": {"slots": {"blue": {"id": release}, "green": None}}}


def test_what_an_operation_has_changed() -> None:
    assert fleet.done({"changed": True, "release": "new"}, observed()) == {
        "outcome": "changed",
        "reason": "",
        "switched": True,
        "before": "old",
    }
    again = fleet.done({"changed": True, "release": "old"}, observed())
    assert (again["outcome"], again["switched"]) == ("changed", False), "the same release was started again"
    assert fleet.done({"changed": False, "release": "old"}, observed())["outcome"] == "unchanged"
    assert fleet.done({"changed": True, "release": "new"}, observed(live=None))["before"] is None


def test_a_host_that_failed_may_have_switched_and_one_that_was_denied_has_not() -> None:
    plan = {"release": {"id": "new"}}
    assert fleet.failed("no answer", "deploy_failed", plan, observed())["switched"] is True
    assert fleet.failed("no answer", "deploy_failed", None, observed())["switched"] is False
    denied = fleet.failed("frozen", "promote_blocked", plan, observed())
    assert (denied["outcome"], denied["switched"]) == ("blocked", False)
    assert fleet.failed("manifest is wrong", "")["outcome"] == "failed"


def test_hosts_go_back_where_that_is_asked_for_and_the_run_did_not_go_through() -> None:
    known = ended(run(4), web1="changed", web2="failed", web3="skipped", web4="unchanged")
    assert fleet.backwards(list(known), known) == {}
    known = ended(run(4, on_failure="rollback"), web1="changed", web2="failed", web3="skipped", web4="unchanged")
    assert fleet.backwards(list(known), known) == {"web1": "old"}


def test_hosts_stay_where_as_many_failed_as_may() -> None:
    known = ended(run(2, on_failure="rollback", max_fail=1), web1="changed", web2="failed")
    assert fleet.backwards(list(known), known) == {}


def test_a_host_that_is_lost_is_not_asked_to_go_back() -> None:
    known = ended(run(2, on_failure="rollback"), web1="changed", web2="begun")
    known["web2"]["fleet_result"]["switched"] = True
    assert fleet.backwards(list(known), known) == {"web1": "old"}


def test_a_first_release_has_nothing_to_go_back_to_and_that_is_told() -> None:
    known = ended(run(2, on_failure="rollback"), web1="changed", web2="failed")
    known["web1"]["fleet_result"]["before"] = None
    assert fleet.backwards(list(known), known) == {}
    assert fleet.tally(list(known), known)["hosts"]["kept"] == ["web1"]


def test_a_run_that_went_through() -> None:
    known = ended(run(3), web1="changed", web2="unchanged", web3="changed")
    told = fleet.tally(list(known), known)
    assert told["ok"]
    assert told["hosts"] == {"changed": ["web1", "web3"], "unchanged": ["web2"]}
    assert fleet.summary(told, "deploy", 12.34, False) == "Deployed 3 of 3 hosts  12.3 s"
    record = fleet.fields(list(known), known, told)
    assert (record["host"], record["reason"]) == ("*", None)
    assert record["counts"] == {"changed": 2, "unchanged": 1}


def test_a_run_that_was_stopped_and_taken_back() -> None:
    known = ended(
        run(6, first=("web1",), serial=2, on_failure="rollback"),
        web1="changed",
        web2="changed",
        web3="failed",
        web4="skipped",
        web5="unreachable",
        web6="skipped",
    )
    known["web1"]["fleet_result"]["back"] = "rolled_back"
    known["web2"]["fleet_result"]["back"] = "failed"
    told = fleet.tally(list(known), known)
    assert not told["ok"]
    assert told["teller"] == "web1"
    record = fleet.fields(list(known), known, told)
    assert record["hosts"]["skipped"] == ["web4", "web6"]
    assert record["counts"]["rolled_back"] == record["counts"]["not_rolled_back"] == 1
    assert record["batches"] == [1, 2, 2, 1]
    assert record["reason"] == "the run stopped because of web3 (failed), web5 (unreachable)"
    assert fleet.summary(told, "deploy", 61.0, False).splitlines() == [
        "Deployed 1 of 6 hosts  1 min 1 s",
        "  failed: web3",
        "  unreachable: web5",
        "  not begun: web4, web6",
        "  rolled back: web1",
        "  NOT rolled back: web2",
        "  next: ansible-playbook rollback.yml --limit web2",
    ]


def test_who_is_lost_or_never_took_part_is_named() -> None:
    known = ended(run(4), web1="begun", web2="changed", web3="skipped")
    told = fleet.tally(list(known), known)
    assert told["hosts"]["lost"] == ["web1"]
    assert told["hosts"]["failed"] == ["web4"]
    assert told["teller"] == "web2", "a host that is lost cannot record anything"
    words = fleet.summary(told, "promote", 1.0, True)
    assert words.startswith("Would promote 1 of 4 hosts")
    assert "lost in the middle: web1" in words


def test_names_of_a_large_fleet_are_cut_short_for_people_but_not_in_the_record() -> None:
    known = ended(run(40), **dict.fromkeys(names(40), "failed"))
    told = fleet.tally(list(known), known)
    assert "web10 and 30 more" in fleet.summary(told, "deploy", 1.0, False)
    assert len(fleet.fields(list(known), known, told)["hosts"]["failed"]) == 40


def test_a_host_that_is_off_stops_a_run_with_the_way_out() -> None:
    known = ended(run(2), web1="unreachable", web2="skipped")
    words = fleet.summary(fleet.tally(list(known), known), "deploy", 1.0, False)
    assert "next: leave out what is off with --limit 'all,!web1', or for good: swiftdeploy_unreachable: skip" in words


def promoted(known: Hosts, before: str = "stable", path: str = "/m/manifest.yaml") -> Hosts:
    """The same hosts with what their manifest said when each was begun: the first to end notes the new mode in it."""
    said = before
    for host in fleet.order(list(known), known):
        if "fleet_result" in known[host]:
            known[host]["fleet_result"]["manifest"] = {"path": path, "mode": said}
            said = "canary" if known[host]["fleet_result"]["outcome"] == "changed" else said
    return known


def test_a_promotion_that_went_back_everywhere_gives_the_manifest_its_mode_back() -> None:
    known = run(3, first=("web3",), on_failure="rollback")
    known = promoted(ended(known, web1="changed", web2="failed", web3="changed"))
    for host in ("web1", "web3"):
        known[host]["fleet_result"]["back"] = "rolled_back"
    assert fleet.modes(list(known), known, "canary") == {"back": {"/m/manifest.yaml": "stable"}, "kept": {}}
    told = {**fleet.tally(list(known), known), "modes": fleet.modes(list(known), known, "canary")}
    assert "manifest.yaml says mode stable again, as before the run" in fleet.summary(told, "promote", 1.0, False)


def test_a_promotion_that_still_serves_somewhere_keeps_its_mode_and_says_where() -> None:
    known = promoted(ended(run(3, on_failure="rollback"), web1="changed", web2="changed", web3="failed"))
    known["web1"]["fleet_result"]["back"] = "rolled_back"
    known["web2"]["fleet_result"]["back"] = "failed"
    assert fleet.modes(list(known), known, "canary") == {"back": {}, "kept": {"/m/manifest.yaml": ["web2"]}}
    told = {**fleet.tally(list(known), known), "modes": fleet.modes(list(known), known, "canary")}
    assert "manifest.yaml keeps the new mode, it serves on web2" in fleet.summary(told, "promote", 1.0, False)


@pytest.mark.parametrize(("before", "on_failure"), [("canary", "rollback"), ("stable", "stop")])
def test_a_mode_that_was_not_changed_or_is_to_stay_is_left_alone(before: str, on_failure: str) -> None:
    known = promoted(ended(run(2, on_failure=on_failure), web1="changed", web2="failed"), before)
    known["web1"]["fleet_result"]["back"] = "rolled_back"
    assert fleet.modes(list(known), known, "canary") == {"back": {}, "kept": {}}


@pytest.mark.parametrize(
    ("live", "canary", "switched"),
    [("blue", None, False), ("green", None, True), ("blue", {"slot": "green", "weight": 10}, True), (None, None, True)],
)
def test_a_host_that_failed_goes_back_only_where_something_switched(
    live: str | None, canary: dict[str, Any] | None, switched: bool
) -> None:
    known = ended(run(1, on_failure="rollback"), web1="failed")
    state = {"slots": {"blue": {"id": "old"}, "green": {"id": "new"}}, "canary": canary}
    found = fleet.settled(known["web1"]["fleet_result"], {"live": live, "state": state})
    assert found["switched"] is switched
    known["web1"]["fleet_result"] = found
    assert fleet.backwards(["web1"], known) == ({"web1": "old"} if switched else {})
