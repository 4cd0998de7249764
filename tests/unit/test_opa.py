"""Telling a decision from everything else that may come back from OPA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdeploy_target.http import unix_url
from swiftdeploy_target.opa import (
    CAUSES,
    MAX_DEPTH,
    UnavailableError,
    ask,
    check_domains,
    check_revision,
    check_timeout,
    check_url,
    classify,
    finite,
    unavailable,
)

ALLOW: dict[str, Any] = {
    "allow": True,
    "insufficient": False,
    "reasons": [],
    "domain": "canary",
    "checked": {"error_rate": 0.0},
    "thresholds": {"error_rate": {"max": 0.01}, "environment": "production"},
}
DENY = ALLOW | {"allow": False, "reasons": ["P99 latency is 620 ms, maximum is 500 ms"]}
INSUFFICIENT = DENY | {"insufficient": True, "reasons": ["12 requests in 30 s, at least 20 are needed"]}
MISSING = object()


def body(result: object, **more: object) -> bytes:
    return json.dumps({"result": result, **more}).encode()


def without(decision: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in decision.items() if name != key}


def problem_of(status: int, answer: bytes) -> UnavailableError:
    with pytest.raises(UnavailableError) as caught:
        classify("canary", status, answer)
    assert caught.value.cause in CAUSES
    return caught.value


@pytest.mark.parametrize(
    ("decision", "outcome"), [(ALLOW, "allowed"), (DENY, "denied"), (INSUFFICIENT, "insufficient")]
)
def test_a_decision_is_handed_on_whole(decision: dict[str, Any], outcome: str) -> None:
    assert classify("canary", 200, body(decision, decision_id="4ca6b7ec-1")) == {
        "outcome": outcome,
        "allow": decision["allow"],
        "reasons": decision["reasons"],
        "checked": decision["checked"],
        "thresholds": decision["thresholds"],
        "decision_id": "4ca6b7ec-1",
        "policy_revision": None,
        "cause": None,
        "detail": None,
    }


def test_a_decision_without_an_id_is_still_one() -> None:
    assert classify("canary", 200, body(ALLOW))["decision_id"] is None
    assert classify("canary", 200, body(ALLOW, decision_id=7))["decision_id"] is None


def provenance(bundles: object) -> dict[str, Any]:
    return {"provenance": {"version": "1.22.0", "bundles": bundles}}


def test_a_decision_names_the_policies_that_made_it() -> None:
    answer = body(ALLOW, **provenance({"opa/policies": {"revision": "0a1b"}}))
    assert classify("canary", 200, answer)["policy_revision"] == "0a1b"


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"provenance": None},
        {"provenance": []},
        provenance(None),
        provenance({}),
        provenance({"a": {}}),
        provenance({"a": None}),
        provenance({"a": {"revision": ""}}),
        provenance({"a": {"revision": 7}}),
        provenance({"a": {"revision": "0a1b"}, "b": {"revision": "2c3d"}}),
    ],
)
def test_what_is_no_revision_is_none(more: dict[str, Any]) -> None:
    assert classify("canary", 200, body(ALLOW, **more))["policy_revision"] is None


def test_a_decision_by_other_policies_is_none() -> None:
    check_revision("0a1b", "0a1b")
    check_revision("0a1b", "")
    check_revision(None, "")
    with pytest.raises(UnavailableError, match=r"revision 2c3d, not by the installed ones \(0a1b\)") as caught:
        check_revision("2c3d", "0a1b")
    assert caught.value.cause == "other_policies"
    assert caught.value.cause in CAUSES
    with pytest.raises(UnavailableError, match="without a revision"):
        check_revision(None, "0a1b")


def test_a_reason_cannot_act_on_a_terminal() -> None:
    loud = DENY | {"reasons": ["disk is\x1b[2J\nfull \u2192 \u00e9"]}
    assert classify("canary", 200, body(loud))["reasons"] == ["disk is [2J full \u2192 \u00e9"]


def test_what_a_later_policy_adds_does_no_harm() -> None:
    later = ALLOW | {"advice": {"accepted": False}}
    assert classify("canary", 200, body(later, warning={"code": "x"}))["outcome"] == "allowed"


OVERRIDE = {
    "accepted": True,
    "reason": "the shop is down",
    "actor": "ada@c1",
    "overridden": ["frozen by weekend", "disk is full"],
}
REFUSED_OVERRIDE = OVERRIDE | {"accepted": False, "overridden": []}


@pytest.mark.parametrize(
    ("decision", "override", "outcome"),
    [
        (ALLOW, OVERRIDE, "allowed"),
        (DENY, REFUSED_OVERRIDE, "denied"),
        (INSUFFICIENT, REFUSED_OVERRIDE, "insufficient"),
    ],
)
def test_an_override_is_handed_on(decision: dict[str, Any], override: dict[str, Any], outcome: str) -> None:
    found = classify("canary", 200, body(decision | {"override": override | {"more": 1}}))
    assert found["outcome"] == outcome
    assert found["override"] == override
    assert "override" not in classify("canary", 200, body(decision))


def test_an_override_cannot_act_on_a_terminal() -> None:
    loud = OVERRIDE | {"reason": "down\x1b[2J", "actor": "ada\n@c1", "overridden": ["a\rb"]}
    assert classify("canary", 200, body(ALLOW | {"override": loud}))["override"] == {
        "accepted": True,
        "reason": "down [2J",
        "actor": "ada @c1",
        "overridden": ["a b"],
    }


@pytest.mark.parametrize(
    ("decision", "override", "words"),
    [
        (ALLOW, None, "'override' is null, not an object"),
        (ALLOW, True, "'override' is true, not an object"),
        (ALLOW, {}, "'override' has no 'accepted'"),
        (ALLOW, OVERRIDE | {"accepted": "true"}, """'accepted' of 'override' is "true", not true or false"""),
        (ALLOW, OVERRIDE | {"accepted": 1}, "'accepted' of 'override' is 1, not true or false"),
        (ALLOW, OVERRIDE | {"reason": None}, "'reason' of 'override' is null, not a string"),
        (ALLOW, OVERRIDE | {"reason": " "}, "it accepts an override without a reason"),
        (ALLOW, OVERRIDE | {"actor": 5}, "'actor' of 'override' is 5, not a string"),
        (ALLOW, OVERRIDE | {"overridden": "disk"}, """'overridden' of 'override' is "disk", not a list"""),
        (ALLOW, OVERRIDE | {"overridden": [5]}, "'overridden' holds 5, not a sentence"),
        (ALLOW, OVERRIDE | {"overridden": []}, "it accepts an override of nothing"),
        (ALLOW, REFUSED_OVERRIDE, "it refuses an override and allows"),
        (DENY, OVERRIDE, "it accepts an override and denies"),
        (INSUFFICIENT, OVERRIDE, "it accepts an override and denies"),
        *((ALLOW, without(OVERRIDE, key), f"'override' has no '{key}'") for key in OVERRIDE),
    ],
)
def test_an_override_of_the_wrong_shape_makes_no_decision(
    decision: dict[str, Any], override: object, words: str
) -> None:
    problem = problem_of(200, body(decision | {"override": override}))
    assert problem.cause == "malformed"
    assert words in problem.detail


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("allow", "false", """'allow' is "false", not true or false"""),
        ("allow", "true", """'allow' is "true", not true or false"""),
        ("allow", 1, "'allow' is 1, not true or false"),
        ("allow", 0, "'allow' is 0, not true or false"),
        ("allow", None, "'allow' is null, not true or false"),
        ("allow", [True], "'allow' is [true], not true or false"),
        ("allow", MISSING, "it has no 'allow'"),
        ("insufficient", "false", """'insufficient' is "false", not true or false"""),
        ("insufficient", 0, "'insufficient' is 0, not true or false"),
        ("insufficient", True, "it allows and calls the evidence insufficient"),
        ("insufficient", MISSING, "it has no 'insufficient'"),
        ("reasons", MISSING, "it has no 'reasons'"),
        ("reasons", "", """'reasons' is "", not a list"""),
        ("reasons", {}, "'reasons' is {}, not a list"),
        ("reasons", None, "'reasons' is null, not a list"),
        ("reasons", [1], "'reasons' holds 1, not a sentence"),
        ("reasons", ["\x1b"], """'reasons' holds "\\u001b", not a sentence"""),
        ("reasons", [" "], """'reasons' holds " ", not a sentence"""),
        ("reasons", ["disk is full"], """it allows and gives a reason against: "disk is full\""""),
        ("domain", "infrastructure", """it is about domain "infrastructure\""""),
        ("domain", None, "'domain' is null, not a string"),
        ("domain", MISSING, "it has no 'domain'"),
        ("checked", [], "'checked' is [], not an object"),
        ("checked", MISSING, "it has no 'checked'"),
        ("thresholds", "none", """'thresholds' is "none", not an object"""),
        ("thresholds", MISSING, "it has no 'thresholds'"),
    ],
)
def test_a_decision_of_the_wrong_shape_is_none(key: str, value: object, words: str) -> None:
    decision = without(ALLOW, key) if value is MISSING else ALLOW | {key: value}
    problem = problem_of(200, body(decision))
    assert problem.cause == "malformed"
    assert words in problem.detail


def test_a_denial_without_reasons_is_malformed() -> None:
    assert "denies without a reason" in problem_of(200, body(DENY | {"reasons": []})).detail


@pytest.mark.parametrize("result", [None, True, "allow", 1, [], [ALLOW], {}])
def test_a_result_that_is_no_decision_is_malformed(result: object) -> None:
    assert problem_of(200, body(result)).cause == "malformed"


@pytest.mark.parametrize("answer", [b"[]", b"null", b"true", b'"x"', b"1"])
def test_an_answer_that_is_no_object_is_malformed(answer: bytes) -> None:
    assert problem_of(200, answer).cause == "malformed"


@pytest.mark.parametrize(
    "answer", [b"{}", b'{"decision_id": "4ca6b7ec-1"}', b'{"warning": {"code": "api_usage_warning"}}']
)
def test_an_answer_without_a_result_is_undefined(answer: bytes) -> None:
    problem = problem_of(200, answer)
    assert problem.cause == "undefined"
    assert "has no decision for domain canary" in problem.detail


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"  \n",
        b"<html><body>It works!</body></html>",
        b"\xff\xfe\x00",
        body(ALLOW)[:-1],
        body(ALLOW) + b"x",
        b'{"result": NaN}',
        b'{"result": Infinity}',
        b"[" * 100_000,
    ],
)
def test_what_is_not_json_is_said_to_be_not_json(answer: bytes) -> None:
    assert problem_of(200, answer).cause == "not_json"


def test_a_key_given_twice_is_malformed() -> None:
    twice = body(ALLOW).replace(b'"allow": true', b'"allow": false, "allow": true')
    problem = problem_of(200, twice)
    assert problem.cause == "malformed"
    assert "'allow' twice" in problem.detail


@pytest.mark.parametrize(
    "checked",
    [b'{"a": 1e999}', b'{"a": ' + b"9" * 400 + b"}", rb'{"a": "\ud800"}', b"[" * MAX_DEPTH + b"]" * MAX_DEPTH],
)
def test_an_answer_that_could_not_be_handed_on_is_malformed(checked: bytes) -> None:
    answer = body(ALLOW).replace(b'{"error_rate": 0.0}', checked)
    assert problem_of(200, answer).cause == "malformed"


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (500, b'{"code": "internal_error", "message": "eval_conflict_error"}', "HTTP 500: eval_conflict_error ("),
        (500, b"", "HTTP 500 ("),
        (401, b'{"code": "unauthorized", "message": "request rejected"}', "are the policies on the host up to date?"),
        (302, b"", "HTTP 302 ("),
        (204, b"", "HTTP 204 ("),
        (404, b"<html>\r\n\x1b[31mnot here</html>", "HTTP 404: <html> [31mnot here</html> ("),
        (201, body(ALLOW), "HTTP 201"),
        (500, body(ALLOW), "HTTP 500"),
        (500, b'["message"]', "HTTP 500"),
        (500, b"[" * 100_000, "HTTP 500"),
    ],
)
def test_any_status_but_200_is_no_decision(status: int, answer: bytes, words: str) -> None:
    problem = problem_of(status, answer)
    assert problem.cause == "http_status"
    assert words in problem.detail
    assert problem.detail.isprintable()


def test_a_tls_server_that_says_so_is_named() -> None:
    problem = problem_of(400, b"Client sent an HTTP request to an HTTPS server.\n")
    assert problem.cause == "connection"
    assert "TLS" in problem.detail


def test_unavailable_is_one_sentence_with_where() -> None:
    decision = unavailable("http://127.0.0.1:8181/", UnavailableError("refused", "refused the connection (x?)"))
    assert decision["outcome"] == "unavailable"
    assert decision["allow"] is False
    assert decision["reasons"] == ["OPA at http://127.0.0.1:8181 refused the connection (x?)"]
    assert (decision["cause"], decision["detail"]) == ("refused", "refused the connection (x?)")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
BOOLISH: st.SearchStrategy[Any] = st.sampled_from([True, False, "true", "false", 0, 1, None, [], {}])
DECISIONS = st.fixed_dictionaries(
    {},
    optional={
        "allow": BOOLISH,
        "insufficient": BOOLISH,
        "reasons": st.lists(st.sampled_from(["disk is full", "", 1, None]), max_size=2) | JSON_VALUES,
        "domain": st.sampled_from(["canary", "infrastructure", None]),
        "checked": st.just({}) | JSON_VALUES,
        "thresholds": st.just({}) | JSON_VALUES,
    },
)
ANSWERS = (
    DECISIONS.map(body)
    | JSON_VALUES.map(body)
    | JSON_VALUES.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=64)
    | st.integers(0, len(body(ALLOW))).map(lambda end: body(ALLOW)[:end])
)


def is_clear_yes(status: int, answer: bytes) -> bool:
    """The definition of an allowing answer, written without looking at the code under test."""
    if status != 200:
        return False
    try:
        result = json.loads(answer)["result"]
        return (
            result["allow"] is True
            and result["insufficient"] is False
            and result["reasons"] == []
            and result["domain"] == "canary"
            and isinstance(result["checked"], dict)
            and isinstance(result["thresholds"], dict)
        )
    except (ValueError, KeyError, TypeError):
        return False


@given(st.sampled_from([200, 200, 200, 200, 201, 204, 301, 400, 401, 500]), ANSWERS)
def test_nothing_but_a_clear_yes_is_allowed(status: int, answer: bytes) -> None:
    try:
        decision = classify("canary", status, answer)
    except UnavailableError as problem:
        assert problem.cause in CAUSES
        assert problem.detail.isprintable()
        # The one clear yes that is refused all the same: figures that cannot be handed on.
        assert not is_clear_yes(status, answer) or "out of range" in problem.detail or "Unicode" in problem.detail
        return
    assert (decision["outcome"] == "allowed") == is_clear_yes(status, answer)
    assert decision["allow"] is (decision["outcome"] == "allowed")
    assert (decision["reasons"] == []) is decision["allow"]


@given(st.binary(max_size=200), st.integers(min_value=0, max_value=999))
def test_no_bytes_break_the_reading(answer: bytes, status: int) -> None:
    with pytest.raises(UnavailableError):
        classify("canary", status, answer)


def test_figures_that_json_does_not_know_are_asked_as_null() -> None:
    nan, infinity = float("nan"), float("inf")
    assert finite({"a": nan, "b": [infinity, (1.5, -infinity)], "c": "NaN", "d": 10**400}) == {
        "a": None,
        "b": [None, [1.5, None]],
        "c": "NaN",
        "d": 10**400,
    }


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8181", "http://localhost:1/", "http://[::1]:8181", unix_url(Path("/my app/opa.sock"))],
)
def test_urls(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8181",
        "https://127.0.0.1:8181",
        "file:///etc/passwd",
        "http://",
        "http://x:99999",
        "http://x:port",
        "http://user:secret@x:8181",
        "http://x:8181/v1/policies",
        "http://x:8181?explain=full",
        "http://[::1",
    ],
)
def test_other_urls_are_refused_with_what_is_allowed(url: str) -> None:
    with pytest.raises(ValueError, match=r"it must be http\+unix://SOCKET or http://HOST:PORT"):
        check_url(url)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 3601])
def test_timeouts_that_bound_nothing_are_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="it must be more than 0"):
        check_timeout(timeout)


@pytest.mark.parametrize("domain", ["", "Canary", "../policies", "canary/decision", "a b", "canary\n", "ä"])
def test_domains_cannot_lead_elsewhere(domain: str) -> None:
    with pytest.raises(ValueError, match="policy package's name"):
        ask("http://127.0.0.1:1", domain, {}, 1)


def test_a_domain_is_asked_once() -> None:
    check_domains(["infrastructure", "canary"])
    with pytest.raises(ValueError, match="canary is asked twice"):
        check_domains(["canary", "infrastructure", "canary"])
