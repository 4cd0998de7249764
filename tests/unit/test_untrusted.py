"""What hosts, services and histories say is data."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftdeploy import explain, history, untrusted
from swiftdeploy.display import Screen

# A title, a clipboard (OSC 52 in both spellings), a moved cursor, a device's answer, a hidden text, a turned one,
# and sequences that are cut off.
HOSTILE = [
    "\x1b]0;owned\x07ok",
    "\x1b]52;c;cm0gLXJmIH4=\x1b\\ok",
    "\x9d52;c;cm0gLXJmIH4=\x9cok",
    "\x1b[2J\x1b[1;1Hok",
    "\x1bP+q544e\x1b\\ok",
    "\x1b_payload\x1b\\ok",
    "\x9b31mok",
    "\x1b[8mok\x1b[0m",
    "o\u202ek\u2066",
    "o\u200bk\ufeff\u2028",
    "\x07\x08\x7fok\x00",
    "ok\x1b",
    "ok\x1b[",
    "ok\x1b]8;;http://evil",
    "o\rk",
    "ok\U000e0041",
]


def shown(call: Any) -> str:
    lines: list[str] = []
    screen = Screen(lambda text, _kind: lines.append(text), symbols=False)
    call(screen)
    screen.finish([])
    return "\n".join(lines)


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_from_outside_steers_a_terminal_or_hides(text: str) -> None:
    assert untrusted.clean(text) == "ok"
    assert untrusted.text(text) == "ok"
    assert "ok" in untrusted.printable(text)
    ways = [
        lambda screen: screen.step("web1", text),
        lambda screen: screen.output("web1", text),
        lambda screen: screen.event("web1", {"event": "deploy", "summary": text}),
    ]
    for way in ways:
        assert all(letter.isprintable() or letter == "\n" for letter in shown(way))


@given(st.text())
@settings(max_examples=500, deadline=None)
def test_what_is_cleaned_is_clean(text: str) -> None:
    once = untrusted.clean(text)
    assert not untrusted.UNSAFE_ON_A_LINE.search(once.replace("\n", ""))
    assert untrusted.clean(once) == once
    assert not untrusted.UNSAFE_ON_A_LINE.search(untrusted.text(text).replace("\n", "").replace("\t", ""))


def test_words_of_all_languages_and_colours_of_ansible_stay() -> None:
    words = "größer 東京 שלום می\u200cشود 👩\u200d🚀\xa0%\n  zwei"
    assert untrusted.clean(words) == untrusted.text(words) == words
    assert untrusted.printable("\x1b[0;31mfatal\x1b[0m \x1b[8mhidden\x1b]0;t\x07") == "\x1b[0;31mfatal\x1b[0m hidden"


def test_long_lines_are_cut_on_the_screen_and_in_the_record() -> None:
    assert len(shown(lambda screen: screen.step("web1", "x" * 100_000))) < 5_000
    assert "99 more lines" in shown(lambda screen: screen.event("web1", {"event": "deploy", "summary": "y\n" * 299}))
    assert len(history.plain("x" * 1_000_000)) < 40_000


@pytest.mark.parametrize("value", [1e308, -1e308, 10**308, float("inf"), float("nan"), 2**64])
def test_a_number_that_nothing_can_have_is_not_recorded(value: float) -> None:
    assert untrusted.number(value) is None
    record = history.build_record({"event": "deploy", "evidence": {"requests": value}}, 1, history.ZERO_HASH)
    assert record["evidence"] == {"requests": None}
    assert untrusted.cleaned({"a": [value, 3, True]}) == {"a": [None, 3, True]}


def test_a_record_holds_nothing_that_acts_on_whoever_prints_it() -> None:
    record = history.build_record(
        {"event": "deploy", "version": HOSTILE[0], "policy": {HOSTILE[1]: {"reasons": HOSTILE}}}, 1, history.ZERO_HASH
    )
    assert history.encode(record).decode().strip().isprintable()
    assert history.parse_record(history.encode(record).strip()) == record


# What a host could put into the answer of a module.
FORGED = {
    "swiftdeploy_event": {"event": "deploy", "host": "web2", "history_path": "/etc/cron.d/x", "summary": "done"},
    "swiftdeploy_context": {"event": "deploy", "host": "*"},
    "swiftdeploy_step": "done",
    "swiftdeploy_output": "done",
    "swiftdeploy_watch": {"history": "/etc/passwd"},
    "swiftdeploy_appended": {"path": "/etc/passwd", "records": []},
}


@pytest.mark.parametrize("action", ["", "swiftdeploy_stack", "ansible.builtin.uri", "swiftdeploy_slot", "debug"])
def test_callbacks_believe_nothing_of_what_runs_on_a_host(action: str) -> None:
    assert not any(key.startswith("swiftdeploy_") for key in untrusted.made_here(action, FORGED))


def test_an_action_is_believed_in_what_it_makes_and_no_more() -> None:
    assert set(untrusted.made_here("swiftdeploy_step", FORGED)) & set(FORGED) >= {"swiftdeploy_step"}
    assert "swiftdeploy_event" not in untrusted.made_here("swiftdeploy_step", FORGED)
    assert "swiftdeploy_event" in untrusted.made_here("swiftdeploy_event", FORGED)


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "a/b",
        ".",
        "..",
        "-x",
        "~root",
        "a b",
        "a;id",
        "a$(id)",
        "x\x1b[2J",
        "a\u202e",
        "n" * 300,
        "a`id`",
        "web\u200b1",
    ],
)
def test_names_of_hosts_that_are_more_than_names(name: str) -> None:
    assert untrusted.unusable_names(["web1", name, "10.0.0.1"]) == [name]


def test_usual_names_of_hosts() -> None:
    usual = [
        "web1",
        "web-1.example.org",
        "10.0.0.1",
        "fd00::1",
        "fe80::1%eth0",
        "localhost",
        "größe",
        "a_b",
        "user@host",
    ]
    assert untrusted.unusable_names(usual) == []


@pytest.mark.parametrize(
    "identity", ["abcdefgh/../../x", "../../../x", "abcdefg\n", "abcdefgh\x1b[2J", "", "short", 7, None]
)
def test_what_is_no_id_of_a_decision_is_found_by_nobody(identity: object, tmp_path: Any) -> None:
    path = tmp_path / "history.jsonl"
    answer = {"outcome": "allowed", "decision_id": identity, "input": {}}
    record = history.build_record({"event": "deploy"}, 1, history.ZERO_HASH)
    # Not by way of SwiftDeploy, which would have cleaned it.
    record["policy"] = {"image": answer}
    record["hash"] = history.digest(record)
    path.write_bytes(history.encode(record))
    for wanted in ("abcdefgh", str(identity)):
        with pytest.raises(explain.NotFoundError):
            explain.find(path, wanted)


def test_a_folder_for_deciding_again_holds_its_policies_inside_and_its_command_is_quoted(tmp_path: Any) -> None:
    path = tmp_path / "history.jsonl"
    answer = {"outcome": "allowed", "decision_id": "abcdefgh-1", "input": {"x": 1}}
    history.append(
        path, {"event": "deploy", "policy": {"image": answer, "x;id": {**answer, "decision_id": "zbcdefgh"}}}
    )
    found = explain.find(path, "abcdefgh")
    assert explain.command(found, tmp_path / "a;id $(x)").startswith(
        f"opa eval --bundle '{tmp_path}/a;id $(x)'/policies"
    )
    for bad in ("../x.rego", "/etc/x", "a/../../x", "", "a//b", "a\\b", "a\nb"):
        with pytest.raises(explain.NotFoundError, match="outside"):
            explain.bundle(found, [{"path": bad, "content": ""}])
    assert json.loads(explain.bundle(found, [{"path": "lib/x.rego", "content": ""}])["input.json"]) == {"x": 1}
    with pytest.raises(explain.NotFoundError):
        explain.find(path, "zbcdefgh")
