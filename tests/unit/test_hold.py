"""Holding a canary when the connection to its host is lost."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure

from support import plugin

hold = plugin.load("action_plugins", "swiftdeploy_hold")


class Connection:
    """A connection that can be reset."""

    def __init__(self) -> None:
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1


def held(
    monkeypatch: pytest.MonkeyPatch, answers: list[Any]
) -> tuple[dict[str, Any], Any, list[tuple[str, dict[str, Any]]]]:
    """What a hold answers whose measurement loses the connection, and whose way back meets ``answers``."""
    action = object.__new__(hold.ActionModule)
    action._connection = Connection()
    asked: list[tuple[str, dict[str, Any]]] = []

    def module(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        asked.append((name, arguments))
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    def lost(*_words: Any, **_more: Any) -> Any:
        raise AnsibleConnectionFailure("Connection reset by peer")

    given = {"stack": {}, "back": {"commit": "back"}, "place": {"weight": 25}}
    monkeypatch.setattr(hold.ActionBase, "run", lambda *_words, **_more: {})
    monkeypatch.setattr(hold.ActionModule, "validate_argument_spec", lambda *_words, **_more: ({}, given))
    monkeypatch.setattr(hold.time, "sleep", lambda _seconds: None)
    action._module, action._hold = module, lost
    return action.run(), action._connection, asked


def test_a_lost_connection_is_opened_anew_and_the_traffic_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = AnsibleConnectionFailure("refused")
    result, connection, asked = held(monkeypatch, [lost, lost, {"changed": True}])
    assert result["failed"]
    assert "unreachable" not in result
    assert result["msg"].startswith("the connection to the host was lost while the canary had 25 %: ")
    assert [name for name, _arguments in asked] == ["swiftdeploy_route"] * 3
    # Nobody has judged it, so that nothing is held against it.
    assert asked[-1][1] == {"stack": {}, "commit": "back", "leaves": "replaced"}
    assert connection.resets == 3


def test_a_host_that_stays_out_of_reach_is_told_with_what_the_canary_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _connection, asked = held(monkeypatch, [AnsibleConnectionFailure("refused")] * len(hold.TRIES))
    assert result["unreachable"]
    assert len(asked) == len(hold.TRIES)
    assert "the canary keeps its 25 %, and nobody watches it" in result["msg"]
    assert "next: ansible-playbook rollback.yml as soon as the host answers" in result["msg"]


def test_any_other_way_back_survives_a_lost_connection_too(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _connection, asked = held(monkeypatch, [AnsibleConnectionFailure("refused"), {"failed": True, "msg": "no"}])
    assert result["failed"]
    assert result["msg"].endswith("and the traffic could not be taken back: no")
    assert len(asked) == 2
