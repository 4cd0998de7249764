"""The policies as OPA itself reads, compiles and serves them."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swiftdeploy_target.opa import classify

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ROOT / "policies"
DOMAINS = ("infrastructure", "canary")


def run(*command: str, given_input: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=given_input, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["fmt", "--diff", "--fail", str(POLICIES)],
        ["check", "--strict", str(POLICIES)],
        ["check", "--strict", "--bundle", str(POLICIES)],
        ["test", str(POLICIES)],
        ["test", "--bundle", str(POLICIES)],
    ],
    ids=lambda arguments: " ".join(arguments[:-1]),
)
def test_policies_are_formatted_strict_and_tested(opa_binary: str, arguments: list[str]) -> None:
    result = run(opa_binary, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_line_of_the_policies_is_tested(opa_binary: str) -> None:
    result = run(opa_binary, "test", "--coverage", "--threshold", "100", "--format", "json", str(POLICIES))
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr
    report = json.loads(result.stdout)
    covered = {Path(name).name for name in report["files"]}
    assert {"infrastructure.rego", "canary.rego", "lib.rego", "authz.rego"} <= covered
    assert report["not_covered_lines"] == 0


def evaluate(opa: str, tree: Path, query: str, question: Any) -> Any:
    """The value of a query that ``opa eval`` answers with exactly one value."""
    command = (opa, "eval", "--data", str(tree), "--stdin-input", "--format", "values", query)
    result = run(*command, given_input=json.dumps(question))
    assert result.returncode == 0, result.stdout + result.stderr
    (value,) = json.loads(result.stdout)
    return value


def test_no_limit_stands_in_a_policy(opa_binary: str, tmp_path: Path) -> None:
    """Without the data nothing passes, whatever the figures."""
    bare = tmp_path / "policies"
    shutil.copytree(POLICIES, bare, ignore=shutil.ignore_patterns("thresholds", "*_test.rego"))
    question = {
        "facts": {"disk_free_gb": 1e6, "cpu_load_1m": 0, "mem_free_percent": 100},
        "evidence": {"status": "measured", "requests": 1e6, "error_rate": 0, "p99_latency_ms": 0},
        "min_requests": 0,
    }
    for domain in DOMAINS:
        decision = evaluate(opa_binary, bare, f"data.swiftdeploy.{domain}.decision", question)
        assert decision["allow"] is False
        assert any("policies/thresholds/data.yaml" in reason for reason in decision["reasons"])


def test_a_threshold_edit_alone_changes_the_decision(opa_binary: str, tmp_path: Path) -> None:
    edited = tmp_path / "policies"
    shutil.copytree(POLICIES, edited)
    (edited / "thresholds" / "data.yaml").write_text(
        """
infrastructure:
  default:
    disk_free_gb: {min: 60}
    cpu_load_1m: {max: 1}
    mem_free_percent: {min: 1}
"""
    )
    question = {"facts": {"disk_free_gb": 40, "cpu_load_1m": 0, "mem_free_percent": 50}}
    query = "data.swiftdeploy.infrastructure.decision.reasons"
    assert evaluate(opa_binary, POLICIES, query, question) == []
    assert evaluate(opa_binary, edited, query, question) == ["disk has 40.0 GB free, minimum is 60 GB"]


ODD: st.SearchStrategy[Any] = st.sampled_from([None, True, "1", "NaN", "", -1, -0.5, [], [1], {}, {"value": 1}])
FIGURE = ODD | st.sampled_from([0, 1, 2, 2.001, 9.99, 10, 10.0, 500, 500.5, 1e300, 10**30]) | st.floats(0, 1000)
RATE = ODD | st.sampled_from([0, 0.0, 0.01, 0.0100001, 0.5, 1]) | st.floats(0, 1)


def changed(good: dict[str, Any], values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """A good record with up to three of its values replaced or removed, so that passes and refusals both occur."""
    change = st.sampled_from(sorted(values)).flatmap(lambda name: st.tuples(st.just(name), values[name]))
    replaced = st.lists(change, max_size=2).map(lambda changes: good | dict(changes))
    gone = st.sampled_from([None, None, *sorted(good)])
    return st.builds(lambda record, out: {name: value for name, value in record.items() if name != out}, replaced, gone)


FACTS = changed(
    {"disk_free_gb": 40.5, "cpu_load_1m": 0.2, "mem_free_percent": 60},
    {"disk_free_gb": FIGURE, "cpu_load_1m": FIGURE, "mem_free_percent": FIGURE, "other": ODD},
)
EVIDENCE = changed(
    {
        "status": "measured",
        "slot": "green",
        "window_seconds": 30.0,
        "requests": 412,
        "error_rate": 0.0,
        "p99_latency_ms": 12.5,
        "proxy_requests": 412,
        "proxy_error_rate": 0.0,
        "proxy_p99_latency_ms": 14.0,
    },
    {
        "status": ODD | st.just("unavailable"),
        "slot": ODD,
        "detail": ODD | st.text(max_size=5),
        "window_seconds": FIGURE,
        "requests": FIGURE,
        "error_rate": RATE,
        "p99_latency_ms": FIGURE,
        "proxy_requests": FIGURE,
        "proxy_error_rate": RATE,
        "proxy_p99_latency_ms": FIGURE,
    },
)
QUESTIONS = ODD | st.fixed_dictionaries(
    {"facts": ODD | FACTS, "evidence": ODD | EVIDENCE, "min_requests": st.integers(0, 30) | ODD},
    optional={
        "environment": ODD | st.sampled_from(["production", "local", "default"]),
        "baseline": ODD | EVIDENCE,
        "partial": ODD,
    },
)


def within(figures: Any, name: str, low: float, high: float) -> bool:
    value = figures.get(name) if isinstance(figures, dict) else None
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def is_sound_host(question: Any) -> bool:
    """The shipped limits on a host, written without looking at the policy."""
    if not isinstance(question, dict):
        return False
    disk, load, memory = (2, 64, 5) if question.get("environment") == "local" else (10, 2, 10)
    facts = question.get("facts")
    return (
        within(facts, "disk_free_gb", disk, math.inf)
        and within(facts, "cpu_load_1m", 0, load)
        and within(facts, "mem_free_percent", memory, math.inf)
    )


def is_good_view(figures: dict[str, Any], base: dict[str, Any], partial: bool) -> bool:
    """error_rate and p99_latency_ms of one view beside those of a baseline that may be used ({} for none)."""
    whole = {"error_rate": (0.01, 0.01), "p99_latency_ms": (500, 200)}
    early = {"error_rate": (0.25, None), "p99_latency_ms": (5000, None)}
    for name, (limit, more) in (early if partial else whole).items():
        value = figures[name]
        if more is not None and within(base, name, 0, math.inf):
            if value - base[name] > more + 1e-9 or (value > limit and base[name] <= limit):
                return False
        elif value > limit:
            return False
    return True


def view(record: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name: record.get(prefix + name) for name in ("error_rate", "p99_latency_ms")}


def is_sound_service(question: Any) -> bool:
    """The shipped limits on a service, written without looking at the policy."""
    if not isinstance(question, dict) or not within(question, "min_requests", 0, math.inf):
        return False
    seen = question.get("evidence")
    partial = question.get("partial") is True
    needed = max(question["min_requests"], 20 if partial else 1)
    if not isinstance(seen, dict) or seen.get("status") != "measured" or not within(seen, "requests", needed, math.inf):
        return False
    base = question.get("baseline")
    if not within(base, "requests", needed, math.inf) or base.get("status") != "measured":
        base = {}
    base_at_proxy = view(base, "proxy_") if within(base, "proxy_requests", needed, math.inf) else {}
    service, proxy = view(seen, ""), view(seen, "proxy_")
    silent = seen.get("proxy_requests") is None or within(seen, "proxy_requests", 0, 0)
    if not silent and not within(seen, "proxy_requests", 0, math.inf):
        return False
    if silent:  # figures are not needed then, but where there are some they count
        proxy = {name: 0 if value is None else value for name, value in proxy.items()}
    return all(
        all(within(figures, name, 0, math.inf) for name in figures) and is_good_view(figures, beside, partial)
        for figures, beside in ((service, base), (proxy, base_at_proxy))
    )


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(QUESTIONS, min_size=40, max_size=80))
def test_every_question_gets_a_whole_decision_and_no_false_pass(opa_binary: str, questions: list[Any]) -> None:
    for domain, sound in (("infrastructure", is_sound_host), ("canary", is_sound_service)):
        rule = f"data.swiftdeploy.{domain}.decision"
        query = f"[decision | some question in input; decision := {rule} with input as question]"
        decisions = evaluate(opa_binary, POLICIES, query, questions)
        assert len(decisions) == len(questions)
        for question, decision in zip(questions, decisions, strict=True):
            # Refuses whatever is not whole or contradicts itself.
            outcome = classify(domain, 200, json.dumps({"result": decision}).encode())
            assert outcome["allow"] is sound(question), (question, decision)
            # What Go prints where a format and its value do not match.
            assert not any("%!" in reason for reason in outcome["reasons"]), decision["reasons"]
