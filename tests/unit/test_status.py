"""The view of a host: what is wrong with it and what to do, and what is recorded of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from swiftdeploy import display, status

AT = "2026-11-21T05:12:33.000Z"
BLUE = {"id": "r1", "version": "1.0.0", "mode": "stable"}
GREEN = {"id": "r2", "version": "2.0.0", "mode": "canary"}
FIGURES = {"req_per_sec": 12.5, "error_rate": 0.0, "p99_latency_ms": 40.0, "chaos": "none", "uptime_seconds": 9.0}


def runs(**changes: Any) -> dict[str, Any]:
    return {"running": True, "healthy": True, "problem": None, **changes}


def seen(**changes: Any) -> dict[str, Any]:
    observed = {
        "live": "blue",
        "serving": {"weights": {"blue": 100, "green": 0}},
        "state": {"service": "app", "slots": {"blue": BLUE, "green": None}, "canary": None},
        "slots": {"blue": runs(), "green": runs(running=False, healthy=False, problem="not running")},
        **changes,
    }
    return {"observed": observed, "options": {"base_url": "http://127.0.0.1:8080"}, "problems": []}


def with_canary(weight: int = 10, **changes: Any) -> dict[str, Any]:
    return seen(
        serving={"weights": {"blue": 100 - weight, "green": weight}},
        state={
            "service": "app",
            "slots": {"blue": BLUE, "green": GREEN},
            "canary": {"slot": "green", "weight": weight, "steps": []},
        },
        slots={"blue": runs(), "green": runs()},
        **changes,
    )


def wants(version: str = "1.0.0", mode: str = "stable") -> dict[str, Any]:
    return {"services": {"name": "app", "version": version, "mode": mode}}


def view(found: dict[str, Any] | None = None, limit: str = "", **given: Any) -> status.View:
    evidence = given.pop("evidence", {"blue": FIGURES, "green": FIGURES})
    policy = given.pop("policy", {})
    return status.view("web1", AT, found or seen(), evidence, policy, manifest=wants(**given), limit=limit)


def problems(shown: status.View) -> list[tuple[str, str, str | None]]:
    return [(one["level"], one["what"], one["next"]) for one in shown["problems"]]


def test_a_host_that_is_well() -> None:
    shown = view(policy={"canary": {"outcome": "allowed", "reasons": [], "checked": {}}})
    assert (shown["state"], shown["problems"], shown["drift"]) == ("ok", [], None)
    (slot,) = shown["slots"]
    assert (slot["slot"], slot["state"], slot["weight"], slot["req_per_sec"]) == ("blue", "live", 100, 12.5)
    assert shown["policy"] == {"canary": {"outcome": "allowed", "reasons": []}}
    json.dumps(shown, allow_nan=False)


@pytest.mark.parametrize(
    ("version", "mode", "words", "command"),
    [
        ("2.0.0", "stable", "manifest 2.0.0, runs 1.0.0", "ansible-playbook deploy.yml"),
        ("1.0.0", "canary", "manifest canary, runs stable", "ansible-playbook promote.yml -e mode=canary"),
        # A deploy would give it all traffic, unjudged.
        (
            "2.0.0",
            "canary",
            "manifest 2.0.0 (canary), runs 1.0.0 (stable)",
            "ansible-playbook promote.yml -e mode=canary",
        ),
    ],
)
def test_drift_is_told_in_words_with_the_way_to_the_manifest(version: str, mode: str, words: str, command: str) -> None:
    shown = view(version=version, mode=mode)
    assert shown["drift"] == words
    assert (shown["state"], problems(shown)) == ("attention", [("attention", f"drift: {words}", command)])


def test_a_canary_of_what_the_manifest_says_is_no_drift() -> None:
    shown = view(with_canary(), version="2.0.0", mode="canary")
    assert (shown["drift"], shown["state"]) == (None, "ok")
    assert shown["canary"] == {"slot": "green", "weight": 10}
    assert [(slot["slot"], slot["state"], slot["weight"]) for slot in shown["slots"]] == [
        ("blue", "live", 90),
        ("green", "canary", 10),
    ]


@pytest.mark.parametrize(
    ("changes", "what", "command"),
    [
        (
            {"slots": {"blue": runs(running=False, healthy=False), "green": runs(running=False)}},
            "blue (live) is down",
            "deploy.yml",
        ),
        (
            {"slots": {"blue": runs(healthy=False, problem="it answers 500"), "green": runs(running=False)}},
            "blue (live) is unhealthy: it answers 500",
            "rollback.yml",
        ),
        (
            {"slots": {"blue": runs(restarts=3), "green": runs(running=False)}},
            "blue (live) ended by itself and was started again 3 times",
            "rollback.yml",
        ),
        ({"serving": None}, "nginx does not answer at http://127.0.0.1:8080", "deploy.yml"),
    ],
)
def test_what_is_broken_names_the_next_command(changes: dict[str, Any], what: str, command: str) -> None:
    shown = view(seen(**changes), limit=" --limit web1")
    assert shown["state"] == "bad"
    assert ("bad", what, f"ansible-playbook {command} --limit web1") in problems(shown)


def test_a_denied_canary_goes_back_and_chaos_is_ended() -> None:
    denied = {"canary": {"outcome": "denied", "reasons": ["error rate is 50.00 %, maximum is 1.00 %"]}}
    evidence = {"blue": FIGURES, "green": {**FIGURES, "chaos": "error", "error_rate": 0.5}}
    shown = view(with_canary(), policy=denied, evidence=evidence, version="2.0.0", mode="canary")
    assert problems(shown) == [
        ("bad", "policy canary denied", "ansible-playbook rollback.yml"),
        ("attention", "chaos error is on in green", "ansible-playbook chaos.yml -e chaos=recover"),
    ]
    assert shown["state"] == "bad"


def test_an_engine_that_gives_no_decision_and_one_that_denies_a_deploy() -> None:
    shown = view(
        policy={
            "canary": {"outcome": "unavailable", "reasons": ["refused"]},
            "infrastructure": {"outcome": "denied", "reasons": ["disk"]},
        }
    )
    assert shown["state"] == "attention"
    assert problems(shown)[0] == ("attention", "policy canary unavailable", "ansible-playbook deploy.yml")
    assert view(policy={"canary": {"outcome": "insufficient", "reasons": ["few"]}})["state"] == "ok"


def test_an_empty_host() -> None:
    found = seen(live=None, serving=None, state={"service": "app", "slots": {"blue": None, "green": None}})
    found["problems"] = ["port 8080 is in use"]
    shown = view(found)
    assert (shown["state"], shown["slots"]) == ("empty", [])
    assert problems(shown) == [("attention", "nothing is deployed here", "ansible-playbook deploy.yml")]


def test_what_stands_in_the_way_of_a_deployed_host_is_told() -> None:
    found = seen()
    found["problems"] = ["the docker runtime cannot be used: no answer."]
    assert ("bad", "the docker runtime cannot be used: no answer.", None) in problems(view(found))


def test_the_record_has_the_live_figures_and_the_canarys_own() -> None:
    evidence = {"blue": FIGURES, "green": {**FIGURES, "error_rate": 0.5}}
    event = status.event("web1", with_canary()["observed"], evidence, {})
    assert (event["version"], event["error_rate"], event["answered"]) == ("1.0.0", 0.0, True)
    assert event["canary"]["error_rate"] == 0.5
    assert event["canary"]["weight"] == 10
    assert "canary" not in status.event("web1", seen()["observed"], evidence, {})


def test_the_record_of_a_silent_host_has_no_figures_and_the_reason() -> None:
    event = status.unanswered_event("web1", "app", "ssh: refused")
    assert event["reason"] == "no answer: ssh: refused"
    assert event["answered"] is False
    assert [event[name] for name in ("version", "mode", "chaos", *status.FIGURES)] == [None] * 6


def test_the_document_counts_who_answered_and_has_the_worst_first() -> None:
    made = status.document([view(), status.unanswered("web2", AT, "app", "ssh: refused")], AT)
    assert (made["schema"], made["asked"], made["answered"]) == (1, 2, 1)
    assert [(host["host"], host["answered"]) for host in made["hosts"]] == [("web2", False), ("web1", True)]
    # Programs find the same keys in both.
    assert made["hosts"][0].keys() == made["hosts"][1].keys()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("xml", True, 5, 1, 50), "format is 'xml', allowed are text and json."),
        (("text", False, 0, 1, 50), "interval is 0, allowed is 1 to 3600 seconds."),
        (("text", False, 5, 60, 50), "--forks 60, or look once with -e once=true."),
        (("text", True, 5, 60, 50), None),
        (("json", False, 5, 50, 50), None),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_sentence(asked: tuple[Any, ...], words: str | None) -> None:
    told = status.refusal(*asked)
    assert told is None if words is None else told is not None and told.endswith(words)


@pytest.mark.parametrize(
    "before",
    [
        "",
        "Failed to connect to the host via ssh: ",
        "Task failed: Failed to connect to the host via ssh: ",
        'Data could not be sent to remote host "127.0.0.1". Make sure this host can be reached over ssh: ',
    ],
)
def test_ssh_says_the_same_whatever_ansible_puts_before_it(before: str) -> None:
    assert display.unreachable_reason(f"{before}ssh: connect: refused\n") == "ssh: connect: refused"
    # A host that goes away in the middle of a module says nothing at all.
    assert display.unreachable_reason(before) == "its connection broke"


def test_a_dead_engine_is_no_answer_and_a_dead_stack_is_one() -> None:
    found = seen(serving=None, running={})
    found["problems"] = ["the docker runtime cannot be used: no answer."]
    found["options"]["runtime"] = "docker"
    assert status.engine_problem(found) == "the docker runtime cannot be used: no answer."
    assert status.engine_problem({**found, "problems": []}) is None
    found["options"]["runtime"] = "process"
    assert status.engine_problem(found) is None
    assert status.broken(view(found)) == (
        "nginx does not answer at http://127.0.0.1:8080; the docker runtime cannot be used: no answer."
    )
    assert status.broken(view()) is None


def test_the_status_leads_nowhere_near_what_was_taken_away() -> None:
    found = seen()
    found["observed"]["state"]["rejected"] = [{"version": "2.0.0", "why": "rolled_back"}]
    ((level, what, command),) = problems(view(found, version="2.0.0"))
    assert (level, command) == ("attention", None)
    assert what.endswith("2.0.0 was rolled back here: name a version that is mended in the manifest")
