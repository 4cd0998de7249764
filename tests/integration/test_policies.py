"""The policies as OPA itself reads, compiles and serves them."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swiftdeploy import thresholds
from swiftdeploy_target.images import whole_name
from swiftdeploy_target.opa import classify

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ROOT / "policies"
DOMAINS = ("infrastructure", "canary", "change", "image")
LIMITS = "policies/thresholds/data.yaml:"


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
    assert {f"{name}.rego" for name in (*DOMAINS, "lib", "override", "authz")} <= covered
    assert report["not_covered_lines"] == 0


def test_the_rule_that_the_how_to_writes_is_formatted_strict_and_tested(opa_binary: str, tmp_path: Path) -> None:
    """Each block goes to the end of the file that the how-to says; the new limit denies in the words shown there."""
    text = (ROOT / "docs" / "howto" / "write-a-policy.md").read_text()
    tree = tmp_path / "policies"
    shutil.copytree(POLICIES, tree)
    rule, test = re.findall(r"```rego\n(.*?)```", text, re.DOTALL)
    for name, block in (("change.rego", rule), ("change_test.rego", test)):
        with (tree / "change" / name).open("a") as file:
            file.write(f"\n{block}")
    for arguments in (
        ["fmt", "--diff", "--fail"],
        ["check", "--strict"],
        ["test", "--coverage", "--threshold", "100"],
    ):
        result = run(opa_binary, *arguments, str(tree))
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr

    data = tree / "thresholds" / "data.yaml"
    added = "  default:\n    mem_available_mb: {min: 512}\n"
    assert added in text
    data.write_text(data.read_text().replace("  default:\n", added, 1))
    ((question, shown),) = re.findall(r"echo '(\{.*?\})' \|.*?(\[\n.*?\n\])", text, re.DOTALL)
    decision = evaluate(opa_binary, tree, "data.swiftdeploy.infrastructure.decision", json.loads(question))
    assert decision["reasons"] == json.loads(shown)


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
        "timestamp": "2026-11-21T03:55:00Z",
        "actor": "ada@c1",
        "images": [whole_name("nginx:1.31.3") | {"role": "nginx"}],
        "override": "a reason that is long enough",
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
    facts = {"disk_free_gb": 40, "cpu_load_1m": 0, "mem_free_percent": 50, "cpu_load_per_cpu": 0}
    none = {"inodes_free_percent": "btrfs", "engine_disk_free_gb": "no engine"}
    question = {"facts": {**facts, "not_applicable": none}}
    query = "data.swiftdeploy.infrastructure.decision.reasons"
    assert evaluate(opa_binary, POLICIES, query, question) == []
    assert evaluate(opa_binary, edited, query, question) == [
        f"disk has 40.0 GB free, minimum is 60 GB ({LIMITS} infrastructure.default.disk_free_gb)"
    ]


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
    {
        "disk_free_gb": 40.5,
        "inodes_free_percent": 80,
        "engine_disk_free_gb": 40.5,
        "cpu_load_1m": 0.2,
        "cpu_load_per_cpu": 0.1,
        "mem_free_percent": 60,
        "not_applicable": {},
    },
    {
        "disk_free_gb": FIGURE,
        "inodes_free_percent": FIGURE,
        "engine_disk_free_gb": FIGURE,
        "cpu_load_1m": FIGURE,
        "cpu_load_per_cpu": FIGURE,
        "mem_free_percent": FIGURE,
        "not_applicable": ODD | st.just({"inodes_free_percent": "btrfs", "disk_free_gb": "x"}),
        "other": ODD,
    },
)
IMAGE = changed(
    {"role": "nginx", **whole_name("nginx:1.31.3")},
    {
        "role": ODD,
        "name": ODD,
        "registry": ODD | st.just("ghcr.io"),
        "repository": ODD,
        "tag": ODD | st.sampled_from(["latest", "v2"]),
        "digest": ODD | st.just("sha256:0"),
    },
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
        "proxy_truncated": False,
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
        "proxy_truncated": ODD | st.booleans(),
    },
)
QUESTIONS = ODD | st.fixed_dictionaries(
    {"facts": ODD | FACTS, "evidence": ODD | EVIDENCE, "min_requests": st.integers(0, 30) | ODD},
    optional={
        "environment": ODD | st.sampled_from(["production", "local", "default"]),
        "baseline": ODD | EVIDENCE,
        "partial": ODD,
        "timestamp": ODD | st.sampled_from(["2026-11-21T03:55:00.123Z", "2026-11-21", "noon"]),
        "actor": ODD | st.sampled_from(["ada@c1", "eve@c1"]),
        "images": ODD | st.lists(ODD | IMAGE, max_size=3),
    },
)


def within(figures: Any, name: str, low: float, high: float) -> bool:
    value = figures.get(name) if isinstance(figures, dict) else None
    # Nothing counts or measures beyond what a float holds exactly.
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= min(high, 2**53)


def is_sound_host(question: Any) -> bool:
    """The shipped limits on a host, written without looking at the policy."""
    if not isinstance(question, dict):
        return False
    local = question.get("environment") == "local"
    disk, load, memory, inodes = (2, 64, 5, 1) if local else (10, 2, 10, 5)
    facts = question.get("facts")
    missing = facts.get("not_applicable") if isinstance(facts, dict) else None
    no_inodes = isinstance(missing, dict) and "inodes_free_percent" in missing
    return (
        within(facts, "disk_free_gb", disk, math.inf)
        and within(facts, "engine_disk_free_gb", disk, math.inf)
        and within(facts, "cpu_load_1m", 0, load)
        and within(facts, "cpu_load_per_cpu", 0, load)
        and (
            within(facts, "inodes_free_percent", inodes, math.inf)
            or (no_inodes and facts.get("inodes_free_percent") is None)
        )
        and within(facts, "mem_free_percent", memory, math.inf)
    )


def is_good_view(figures: dict[str, Any], base: dict[str, Any], partial: bool) -> bool:
    """error_rate and p99_latency_ms of one view beside those of a baseline that may be used ({} for none)."""
    whole = {"error_rate": (0.01, 0.01), "p99_latency_ms": (500, 200)}
    early = {"error_rate": (0.25, 0.25), "p99_latency_ms": (5000, 5000)}
    for name, (limit, more) in (early if partial else whole).items():
        value = figures[name]
        if within(base, name, 0, math.inf):
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
    # Both views are wanted, and the proxy's log from the window's beginning to its end.
    if seen.get("proxy_truncated") is not False or not within(seen, "proxy_requests", needed, math.inf):
        return False
    return all(
        all(within(figures, name, 0, math.inf) for name in figures) and is_good_view(figures, beside, partial)
        for figures, beside in ((service, base), (proxy, base_at_proxy))
    )


def is_somebody(actor: Any) -> bool:
    return isinstance(actor, str) and actor != ""


def is_open_to_change(question: Any) -> bool:
    """No freeze is shipped, and anybody may change anything."""
    return (
        isinstance(question, dict)
        and question.get("timestamp") == "2026-11-21T03:55:00.123Z"
        and is_somebody(question.get("actor"))
    )


def is_fit_to_run(question: Any) -> bool:
    """The shipped rules on images, written without looking at the policy."""
    images = question.get("images") if isinstance(question, dict) else None
    if not isinstance(images, list) or not images:
        return False
    local = question.get("environment") == "local"
    for image in images:
        parts = ("role", "name", "registry", "repository", "tag", "digest")
        if not isinstance(image, dict) or not all(isinstance(image.get(part), str) for part in parts):
            return False
        if not image["registry"] or not image["repository"]:
            return False
        if not local and not image["digest"] and not any(letter.isdigit() for letter in image["tag"]):
            return False
    return True


SOUND = {
    "infrastructure": is_sound_host,
    "canary": is_sound_service,
    "change": is_open_to_change,
    "image": is_fit_to_run,
}


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(QUESTIONS, min_size=40, max_size=80))
def test_every_question_gets_a_whole_decision_and_no_false_pass(opa_binary: str, questions: list[Any]) -> None:
    for domain, sound in SOUND.items():
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


MAPPINGS = QUESTIONS.filter(lambda found: isinstance(found, dict))
OVERRIDES = ODD | st.sampled_from(["", "oops", "the shop is down for everybody"])


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(QUESTIONS.filter(lambda found: isinstance(found, dict)), OVERRIDES), min_size=20, max_size=40)
)
def test_an_override_is_accepted_with_a_reason_and_never_without_need(
    opa_binary: str, questions: list[tuple[dict[str, Any], Any]]
) -> None:
    for domain in SOUND:
        rule = f"data.swiftdeploy.{domain}.decision"
        query = f"[decision | some question in input; decision := {rule} with input as question]"
        asked = [question | {"override": override} for question, override in questions]
        plain = evaluate(opa_binary, POLICIES, query, [question for question, _override in questions])
        decisions = evaluate(opa_binary, POLICIES, query, asked)
        for question, before, decision in zip(asked, plain, decisions, strict=True):
            outcome = classify(domain, 200, json.dumps({"result": decision}).encode())
            override = question["override"]
            if before["allow"] or override is None:
                assert decision == before
                continue
            overridable = domain != "canary" or before["insufficient"]
            said = isinstance(override, str) and len(override.strip()) >= 10
            accepted = overridable and said and is_somebody(question.get("actor"))
            assert outcome["allow"] is accepted, (question, decision)
            assert outcome["override"]["overridden"] == (before["reasons"] if accepted else [])
            assert accepted or decision["reasons"][: len(before["reasons"])] == before["reasons"]


EVERYTHING = """
  lab:
    actors: ["*@ci.example.com", ada@laptop]
    freezes:
      weekend:
        timezone: Europe/Berlin
        weekly: {days: [fri], from: 17:00, until: mon 08:00}
        reason: nobody is there to help
        contact: ops@example.com
      year-end:
        timezone: America/New_York
        once: {from: 2026-12-23 12:00, until: 2027-01-04T08:00}
        reason: the shop earns most of its year
        contact: ops@example.com
"""


def test_what_the_check_lets_pass_every_policy_can_use(opa_binary: str, tmp_path: Path) -> None:
    """The schema and Rego's own guards agree, also on what stands there without quotes."""
    edited = tmp_path / "policies"
    shutil.copytree(POLICIES, edited)
    path = edited / "thresholds" / "data.yaml"
    text = path.read_text()
    path.write_text(text.replace("\nimage:\n", f"{EVERYTHING}\nimage:\n", 1))
    loaded = thresholds.load(edited)
    assert evaluate(opa_binary, edited, "data.thresholds", {}) == loaded
    query = "data.swiftdeploy.change.decision.reasons"
    question = {"environment": "lab", "actor": "ada@laptop", "timestamp": "2026-12-26T12:00:00Z"}
    assert evaluate(opa_binary, edited, query, question) == [
        "frozen by weekend until Mon 2026-12-28 08:00 Europe/Berlin: nobody is there to help; contact ops@example.com "
        f"({LIMITS} change.lab.freezes.weekend)",
        "frozen by year-end until Mon 2027-01-04 08:00 America/New_York: the shop earns most of its year; contact "
        f"ops@example.com ({LIMITS} change.lab.freezes.year-end)",
    ]


ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "UTC"]
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    zone=st.sampled_from(ZONES),
    day=st.integers(0, 6),
    start=st.integers(0, 1439),
    hours=st.integers(1, 167),
    moments=st.lists(
        # Around the days on which a clock is put forward or back, more than anywhere else.
        st.datetimes(datetime(2026, 3, 27), datetime(2026, 3, 31))
        | st.datetimes(datetime(2026, 10, 23), datetime(2026, 10, 27))
        | st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),
        min_size=20,
        max_size=40,
    ),
)
def test_freezes_hold_when_the_clock_says_so(
    opa_binary: str, zone: str, day: int, start: int, hours: int, moments: list[datetime]
) -> None:
    """Against the standard library's zones, at every moment whose clock is not near a change."""
    end = start + 60 * hours
    window = {
        "timezone": zone,
        "weekly": {
            "days": [DAYS[day]],
            "from": f"{start // 60:02}:{start % 60:02}",
            "until": f"{DAYS[(day + end // 1440) % 7]} {end % 1440 // 60:02}:{end % 60:02}",
        },
        "reason": "a test",
        "contact": "nobody",
    }
    asked = [moment.replace(microsecond=0).isoformat() + "Z" for moment in moments]
    query = (
        "[held | some time in input.times; window := input.window; "
        "held := count(data.swiftdeploy.change.decision.checked.frozen_by) "
        'with data.thresholds as {"change": {"default": {"freezes": {"w": window}, "actors": ["*"]}}} '
        'with input as {"timestamp": time}]'
    )
    held = evaluate(opa_binary, POLICIES, query, {"times": asked, "window": window})
    for text, found in zip(asked, held, strict=True):
        instant = datetime.fromisoformat(text)
        shown = instant.astimezone(ZoneInfo(zone))
        minutes = shown.weekday() * 1440 + shown.hour * 60 + shown.minute
        since = (minutes - (day * 1440 + start)) % 10080
        around = {(instant + timedelta(hours=apart)).astimezone(ZoneInfo(zone)).utcoffset() for apart in (-3, 0, 3)}
        if len(around) == 1:
            assert (found == 1) is (since < 60 * hours), (text, window)
