"""A past decision, told from the history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swiftdeploy import explain, history

ID = "4ca636c1-55e4-417a-b1d8-4aceb67960d1"
OTHER = "4ca636c1-0000-417a-b1d8-4aceb67960d1"


def answer(decision_id: str | None = ID, **changes: Any) -> dict[str, Any]:
    """A decision as swiftdeploy_opa returns it."""
    return {
        "outcome": "denied",
        "allow": False,
        "reasons": ["disk has 4.2 GB free, minimum is 10 GB"],
        "checked": {"disk_free_gb": 4.2},
        "thresholds": {"disk_free_gb": {"min": 10}, "environment": "production", "source": "default"},
        "decision_id": decision_id,
        "policy_revision": "a" * 64,
        "input": {"environment": "production", "action": "deploy", "facts": {"disk_free_gb": 4.2}},
        **changes,
    }


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A history with one refused deploy."""
    path = tmp_path / "history.jsonl"
    history.append(path, {"event": "status_scrape", "host": "web1"})
    policy = {"infrastructure": answer()}
    history.append(path, {"event": "deploy_blocked", "host": "web1", "actor": "eve@home", "policy": policy})
    return path


@pytest.mark.parametrize("wanted", [ID, ID[:8], ID[:20]])
def test_a_decision_is_found_by_its_id_or_the_beginning_of_it(book: Path, wanted: str) -> None:
    found = explain.find(book, wanted)
    assert (found.id, found.domain, found.record["event"]) == (ID, "infrastructure", "deploy_blocked")


def test_of_several_lines_that_carry_it_the_first_is_told(book: Path) -> None:
    history.append(book, {"event": "deploy_failed", "host": "web1", "policy": {"infrastructure": answer()}})
    assert explain.find(book, ID[:8]).record["event"] == "deploy_blocked"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("4ca", "must be a decision id"),
        ("../../etc/passwd", "must be a decision id"),
        ("ffffffff", "no decision ffffffff is in"),
        (ID[:8], "is the beginning of 2 decisions"),
    ],
)
def test_what_names_no_decision_is_told_so(book: Path, wanted: str, words: str) -> None:
    history.append(book, {"event": "deploy", "host": "web2", "policy": {"infrastructure": answer(OTHER)}})
    with pytest.raises(explain.NotFoundError, match=words):
        explain.find(book, wanted)


def test_a_decision_without_an_id_is_passed_over(book: Path) -> None:
    for policy in ({"infrastructure": answer(None)}, {"infrastructure": "?"}, ["?"], None):
        history.append(book, {"event": "deploy", "host": "web1", "policy": policy})
    assert explain.find(book, ID).record["seq"] == 2


def test_a_person_reads_question_figures_limits_reasons_and_what_to_type(book: Path) -> None:
    told = explain.text(explain.find(book, ID), "opa eval ...")
    assert told.startswith(f"decision {ID}\n")
    for line in (
        "    outcome   denied",
        "    host      web1",
        "    actor     eve@home",
        f"    policies  {'a' * 64}",
        "    disk has 4.2 GB free, minimum is 10 GB",
        "    disk_free_gb  4.2   min 10",
        "    action       deploy",
        "    opa eval ...",
    ):
        assert line in told.splitlines()
    assert "entry default" in told


def test_a_record_that_holds_less_is_told_as_such(book: Path) -> None:
    short = answer("12345678-aaaa", thresholds=None, checked=None, reasons=[])
    del short["input"], short["policy_revision"]
    history.append(book, {"event": "deploy", "policy": {"infrastructure": short}})
    told = explain.text(explain.find(book, "12345678"), None, "nothing is kept")
    for words in ("does not say which", "does not hold the question", "not possible: nothing is kept"):
        assert words in told
    with pytest.raises(explain.NotFoundError, match="does not hold the question"):
        explain.bundle(explain.find(book, "12345678"), [])


def test_an_override_is_told(book: Path) -> None:
    override = {"accepted": True, "reason": "site down", "actor": "eve", "overridden": ["frozen"]}
    history.append(book, {"event": "deploy", "policy": {"change": answer("aaaaaaaa-1", override=override)}})
    told = explain.text(explain.find(book, "aaaaaaaa-1"), None).splitlines()
    assert '    overridden  ["frozen"]' in told
    assert "    reason      site down" in told


def test_text_of_strangers_cannot_act_on_a_terminal(book: Path) -> None:
    history.append(book, {"event": "deploy", "actor": "a\x1b[2Jb", "policy": {"image": answer("bbbbbbbb-1")}})
    assert "\x1b" not in explain.text(explain.find(book, "bbbbbbbb-1"), None)


def test_what_is_needed_to_decide_again_is_put_together(book: Path) -> None:
    decision = explain.find(book, ID)
    files = explain.bundle(decision, [{"path": "lib/lib.rego", "content": "package lib\n"}])
    assert sorted(files) == ["answer.json", "input.json", "policies/lib/lib.rego"]
    assert json.loads(files["input.json"]) == answer()["input"]
    assert json.loads(files["answer.json"])["outcome"] == "denied"
    assert explain.command(decision, Path("/x")).endswith(" data.swiftdeploy.infrastructure.decision")
