"""Asking OPA for decisions, and telling a decision from anything else that may come back.

Three parts: post() carries one question over HTTP within a time that is bounded as a whole, classify()
is a pure function from an HTTP answer to an outcome, ask() puts both together and never raises because
of what OPA did. Only an answer that is exactly a well-formed decision to allow becomes ``allowed``.

An outcome is a dict:
``{"outcome": "allowed" | "denied" | "insufficient" | "unavailable", "allow": bool, "reasons": [str],
"checked": {figure: value}, "thresholds": {figure: {"min" | "max": number}, "environment": str},
"decision_id": str | None, "policy_revision": str | None, "cause": str | None, "detail": str | None,
"input": dict, "duration_ms": float}``.
Cause and detail are None unless the outcome is unavailable; cause is one of CAUSES. policy_revision stands for the
policies that OPA has evaluated, as OPA itself tells it; None where it was started without a bundle. Input is the
question as it was sent. Where a person's override was needed there is one key more:
``"override": {"accepted": bool, "reason": str, "actor": str, "overridden": [str]}``.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import socket
import time
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional, Tuple, Union
from urllib.parse import urlsplit

from .http import UNIX_SCHEME, Answer, FetchError, fetch, shown, unix_url

CAUSES = (
    "refused",
    "timeout",
    "http_status",
    "not_json",
    "undefined",
    "malformed",
    "too_large",
    "connection",
    "other_policies",
    "not_ours",
    "not_started",
)

MAX_ANSWER_BYTES = 1024 * 1024
MAX_DEPTH = 64
_MAX_TIMEOUT_SECONDS = 3600.0

_DOMAIN = re.compile(r"[a-z][a-z0-9_]*\Z")
_ID = re.compile(r"[0-9A-Za-z-]{8,64}")


class UnavailableError(Exception):
    """No decision came back. cause is one of CAUSES; detail completes the sentence "OPA at URL ..."."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail


def socket_url(stack_dir: Path) -> str:
    """The base address of the OPA of the stack in ``stack_dir``."""
    return unix_url(stack_dir / "opa" / "run" / "opa.sock")


def check_url(url: str) -> None:
    """Raise ValueError, with what is allowed, unless ``url`` can be OPA's base address."""
    allowed = f"it must be {UNIX_SCHEME}://SOCKET or http://HOST:PORT with nothing behind it"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  raises ValueError
    except ValueError as error:
        raise ValueError(f"url is '{url}': {error}; {allowed}") from None
    extra = parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None
    if parts.scheme not in (UNIX_SCHEME, "http") or not parts.hostname or extra:
        raise ValueError(f"url is '{url}'; {allowed}")


def check_timeout(timeout: float) -> None:
    """Raise ValueError unless timeout (seconds) is a usable bound."""
    if not 0 < timeout <= _MAX_TIMEOUT_SECONDS:
        raise ValueError(f"timeout is {timeout:g}; it must be more than 0 and at most {_MAX_TIMEOUT_SECONDS:g} seconds")


def check_domains(domains: List[str]) -> None:
    """Raise ValueError where a domain cannot be a package's name or is asked twice."""
    for domain in domains:
        if not _DOMAIN.match(domain):
            raise ValueError(f"domain is '{domain}'; it must be a policy package's name such as infrastructure")
    twice = sorted({domain for domain in domains if domains.count(domain) > 1})
    if twice:
        raise ValueError("domain {} is asked twice; ask it in a task of its own".format(", ".join(twice)))


def finite(value: Any) -> Any:
    """The value with every number that JSON does not know (NaN, infinity) replaced by None.

    The policies treat None as not measured, so such a figure is never a pass.
    """
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def ask(url: str, domain: str, question: Dict[str, Any], timeout: float, revision: str = "") -> Dict[str, Any]:
    """Ask OPA for one domain's decision on the question (the policy's input); see the module for the result.

    timeout bounds the whole exchange in seconds. Where a revision is given, a decision by other policies is none.
    Raises ValueError for arguments that cannot be used.
    """
    check_url(url)
    check_timeout(timeout)
    check_domains([domain])
    asked = finite(question)
    body = json.dumps({"input": asked}, allow_nan=False).encode("ascii")
    started = time.monotonic()
    try:
        answer = post(url, f"/v1/data/swiftdeploy/{domain}/decision?provenance=true", body, timeout)
        decision = classify(domain, answer.status, answer.body)
        check_revision(decision["policy_revision"], revision)
    except UnavailableError as problem:
        decision = unavailable(url, problem)
    decision["input"] = asked
    decision["duration_ms"] = round((time.monotonic() - started) * 1000, 1)
    return decision


def unasked(url: str, question: Dict[str, Any], why: str) -> Dict[str, Any]:
    """The outcome, as of ``ask``, where OPA did not start: whoever answers in its place would be somebody else."""
    problem = UnavailableError("not_started", f"did not start and was not asked: {_one_line(why)}")
    return {**unavailable(url, problem), "input": finite(question), "duration_ms": 0.0}


def unavailable(url: str, problem: UnavailableError) -> Dict[str, Any]:
    """The outcome of a question that got no decision, with one sentence on what, where and what to do."""
    return {
        "outcome": "unavailable",
        "allow": False,
        "reasons": ["OPA at {} {}".format(shown(url.rstrip("/")), problem.detail)],
        "checked": {},
        "thresholds": {},
        "decision_id": None,
        "policy_revision": None,
        "cause": problem.cause,
        "detail": problem.detail,
    }


# --- what an answer means -------------------------------------------------------------------------


def classify(domain: str, status: int, body: bytes) -> Dict[str, Any]:
    """The outcome of one HTTP answer (without duration_ms). Raises UnavailableError for all but a decision."""
    if status != 200:
        _raise_status(domain, status, body)
    document = _parse(body)
    if not isinstance(document, dict):
        _raise_malformed(domain, f"the answer is {_shown(document)}, not an object")
    if "result" not in document:
        raise UnavailableError("undefined", f"has no decision for domain {domain} (are the policies loaded?)")
    decision = document["result"]
    fault = _fault(domain, decision)
    if fault is not None:
        _raise_malformed(domain, fault)
    decision_id = document.get("decision_id")
    return {
        "outcome": _outcome(decision),
        "allow": decision["allow"],
        "reasons": [_printable(reason) for reason in decision["reasons"]],
        "checked": decision["checked"],
        "thresholds": decision["thresholds"],
        # It names a folder later on.
        "decision_id": decision_id if isinstance(decision_id, str) and _ID.fullmatch(decision_id) else None,
        "policy_revision": _revision(document),
        "cause": None,
        "detail": None,
        **({"override": _override(decision["override"])} if "override" in decision else {}),
    }


def _override(found: Dict[str, Any]) -> Dict[str, Any]:
    return {
        "accepted": found["accepted"],
        "reason": _printable(found["reason"]),
        "actor": _printable(found["actor"]),
        "overridden": [_printable(reason) for reason in found["overridden"]],
    }


def check_revision(found: Optional[str], wanted: str) -> None:
    """Raise UnavailableError where a decision was made by other policies than those that were installed."""
    if wanted and found != wanted:
        raise UnavailableError(
            "other_policies",
            "decided by {}, not by the installed ones ({}): they are not loaded, or another OPA listens there".format(
                f"policies of revision {_printable(found)[:12]}" if found else "policies without a revision",
                wanted[:12],
            ),
        )


def _revision(document: Dict[str, Any]) -> Optional[str]:
    """The revision of the one bundle that was loaded when this was decided; None for anything else."""
    provenance = document.get("provenance")
    bundles = provenance.get("bundles") if isinstance(provenance, dict) else None
    if not isinstance(bundles, dict) or len(bundles) != 1:
        return None
    (loaded,) = bundles.values()
    revision = loaded.get("revision") if isinstance(loaded, dict) else None
    return revision if isinstance(revision, str) and revision else None


def _outcome(decision: Dict[str, Any]) -> str:
    if decision["allow"]:
        return "allowed"
    return "insufficient" if decision["insufficient"] else "denied"


def _fault(domain: str, decision: Any) -> Optional[str]:
    """What is wrong with the shape of a decision, None where nothing is."""
    if not isinstance(decision, dict):
        return f"the result is {_shown(decision)}, not an object"
    for key, kind, words in (
        ("allow", bool, "true or false"),
        ("insufficient", bool, "true or false"),
        ("reasons", list, "a list"),
        ("domain", str, "a string"),
        ("checked", dict, "an object"),
        ("thresholds", dict, "an object"),
    ):
        if key not in decision:
            return f"it has no '{key}'"
        if not isinstance(decision[key], kind):
            return f"'{key}' is {_shown(decision[key])}, not {words}"
    return _contradiction(domain, decision)


def _contradiction(domain: str, decision: Dict[str, Any]) -> Optional[str]:
    """What in a decision of the right types contradicts itself or the question."""
    reasons = decision["reasons"]
    for reason in reasons:
        if not isinstance(reason, str) or not _printable(reason):
            return f"'reasons' holds {_shown(reason)}, not a sentence"
    if decision["domain"] != domain:
        return "it is about domain {}".format(_shown(decision["domain"]))
    if decision["allow"] and decision["insufficient"]:
        return "it allows and calls the evidence insufficient"
    if decision["allow"] and reasons:
        return f"it allows and gives a reason against: {_shown(reasons[0])}"
    if not decision["allow"] and not reasons:
        return "it denies without a reason"
    return _override_fault(decision) if "override" in decision else None


def _override_fault(decision: Dict[str, Any]) -> Optional[str]:
    """What is wrong with what a decision says of an override, None where nothing is."""
    found = decision["override"]
    if not isinstance(found, dict):
        return f"'override' is {_shown(found)}, not an object"
    for key, kind, words in (
        ("accepted", bool, "true or false"),
        ("reason", str, "a string"),
        ("actor", str, "a string"),
        ("overridden", list, "a list"),
    ):
        if key not in found:
            return f"'override' has no '{key}'"
        if not isinstance(found[key], kind):
            return f"'{key}' of 'override' is {_shown(found[key])}, not {words}"
    return _override_contradiction(decision["allow"], found)


def _override_contradiction(allow: bool, found: Dict[str, Any]) -> Optional[str]:
    """What in an override of the right types contradicts itself or the decision."""
    for reason in found["overridden"]:
        if not isinstance(reason, str) or not _printable(reason):
            return f"'overridden' holds {_shown(reason)}, not a sentence"
    if found["accepted"] != allow:
        return "it accepts an override and denies" if found["accepted"] else "it refuses an override and allows"
    if found["accepted"] and not found["overridden"]:
        return "it accepts an override of nothing"
    if found["accepted"] and not _printable(found["reason"]):
        return "it accepts an override without a reason"
    return None


def _raise_malformed(domain: str, fault: str) -> NoReturn:
    raise UnavailableError(
        "malformed",
        f"gave a malformed answer for domain {domain}: {fault} (check the policy: opa test policies/)",
    )


def _raise_status(domain: str, status: int, body: bytes) -> NoReturn:
    if status == 400 and b"https" in body.lower():
        raise UnavailableError(
            "connection", "expects TLS where plain HTTP was spoken (does another program listen there?)"
        )
    if status in (401, 403):
        hint = "its authorisation does not know this question: are the policies on the host up to date?"
    elif 300 <= status < 400:
        hint = "OPA never redirects: does another program listen there?"
    else:
        hint = "its log says more"
    said = _error_message(body)
    raise UnavailableError(
        "http_status",
        "answered the question for domain {} with HTTP {}{} ({})".format(
            domain, status, ": " + said if said else "", hint
        ),
    )


def _error_message(body: bytes) -> str:
    """The message of one of OPA's own error answers, else the beginning of the body."""
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(body)
        if isinstance(document, dict) and isinstance(document.get("message"), str):
            return _one_line(document["message"])
    return _one_line(body[:1000].decode("utf-8", "replace"))


def _parse(body: bytes) -> Any:
    """The JSON document of an answer, free of what other readers of it could stumble over."""
    if not body.strip():
        raise UnavailableError("not_json", "gave an empty answer (does another program listen there?)")
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_twins)
    except _TwiceError as error:
        raise UnavailableError("malformed", f"gave an answer with the key '{error}' twice") from None
    except (ValueError, RecursionError):
        raise UnavailableError(
            "not_json",
            "answered with something that is not JSON: {} (does another program listen there?)".format(
                _one_line(body[:200].decode("utf-8", "replace"))
            ),
        ) from None
    oddity = _oddity(document)
    if oddity is not None:
        raise UnavailableError("malformed", f"gave an answer with {oddity}")
    return document


class _TwiceError(ValueError):
    """A key given twice: which of the two counts would be anybody's guess."""


def _no_twins(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(_one_line(key))
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _oddity(document: Any) -> Optional[str]:
    """What in a parsed document could not be handed on: nesting, numbers or text out of range."""
    waiting: List[Tuple[Any, int]] = [(document, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            return f"more than {MAX_DEPTH} levels of nesting"
        if isinstance(value, dict):
            waiting.extend((item, depth + 1) for item in value)
            waiting.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, list):
            waiting.extend((item, depth + 1) for item in value)
        elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            return "text that is not Unicode"
        elif _out_of_range(value):
            return "a number out of range"
    return None


def _out_of_range(value: Union[str, int, float, None]) -> bool:
    if isinstance(value, int):
        return value.bit_length() > 1024
    return isinstance(value, float) and not math.isfinite(value)


def _shown(value: Any) -> str:
    return _one_line(json.dumps(value))


def _printable(text: str) -> str:
    """Text of a stranger without what could act on a terminal or break the line."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _one_line(text: str) -> str:
    line = _printable(text[:1000])
    return line if len(line) <= 120 else line[:117] + "..."


# --- transport ------------------------------------------------------------------------------------


def post(url: str, path: str, body: bytes, timeout: float) -> Answer:
    """POST JSON and read the answer; at most timeout seconds in all. Raises UnavailableError."""
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    try:
        return fetch(url.rstrip("/") + path, timeout, headers, MAX_ANSWER_BYTES, post=body)
    except FetchError as problem:
        raise _explain(problem, timeout) from None


def _explain(problem: FetchError, timeout: float) -> UnavailableError:
    """Why there was no answer, as cause and words."""
    if problem.cause == "timeout":
        return UnavailableError(
            "timeout", f"gave no answer within {timeout:g} s (is it overloaded, stopped or hanging?)"
        )
    if problem.cause == "refused":
        return UnavailableError("refused", "refused the connection (is it running?)")
    if problem.cause == "not_ours":
        return UnavailableError("not_ours", f"was not asked: {problem.said}")
    if problem.cause == "too_large":
        return UnavailableError(
            "too_large",
            f"gave an answer of more than {MAX_ANSWER_BYTES} bytes (does another program listen there?)",
        )
    return UnavailableError("connection", _broken(problem))


def _broken(problem: FetchError) -> str:
    error = problem.__cause__
    if problem.cause == "bad_url" or isinstance(error, socket.gaierror):
        return "cannot be found: the host's name does not resolve (check the address)"
    if problem.cause == "incomplete" or isinstance(error, ConnectionError):
        return "closed the connection before its answer was complete (did it crash? does it expect TLS?)"
    if problem.cause == "bad_answer":
        return "answered with something that is not HTTP (does another program or TLS listen there?)"
    words = getattr(error, "strerror", None) or problem.detail
    return f"cannot be reached: {_one_line(str(words))} (check the address and the host's firewall)"
