"""Inputs from outside that are nearly right: a manifest, metrics, log lines, OPA's answers, kept samples.

Whatever comes, only the documented errors come out of it, no answer but a clear yes is one, and no figure is made up.
A few hundred inputs each in every run of the tests; `make fuzz` tries SWIFTDEPLOY_FUZZ of them for each target and says
how many there were.
"""

from __future__ import annotations

import collections
import itertools
import json
import math
import os
import re
import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swiftdeploy import evidence, manifest, thresholds
from swiftdeploy_target import access_log, opa, samples
from swiftdeploy_target.samples import Keeping, Now

EXAMPLES = int(os.environ.get("SWIFTDEPLOY_FUZZ", "500"))
REPOSITORY = Path(__file__).resolve().parents[2]
# Target to outcome to how often.
TRIED: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)

fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", autouse=True)
def tell() -> Iterator[None]:
    """Say at the end how many inputs there were, and what became of them."""
    yield
    for target, outcomes in sorted(TRIED.items()):
        print(f"\nfuzz: {target}: {outcomes.total()} inputs, {dict(outcomes)}", end="")
    print(f"\nfuzz: {sum(outcomes.total() for outcomes in TRIED.values())} inputs in all")


@st.composite
def near(draw: st.DrawFn, originals: list[bytes], fragments: list[bytes]) -> bytes:
    """One of ``originals`` with up to five places cut, and something else put there."""
    text = draw(st.sampled_from(originals))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3, 5]))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.sampled_from([0, 0, 1, 2, 5, 20]))
        put = draw(st.one_of(st.sampled_from(fragments), st.binary(max_size=4), st.just(b"")))
        text = text[:at] + put + text[at + cut :]
    return text


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([10**400, -1, 0.0, "true", "NaN", "\ud800", "5xx"]),
)
TREES = st.recursive(
    SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=6), part, max_size=3)
)


@st.composite
def near_tree(draw: st.DrawFn, original: Any) -> Any:
    """``original`` with up to three of its values replaced, removed or doubled."""
    tree = json.loads(json.dumps(original))
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
        place = tree
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
            inner = place[key]
            if isinstance(inner, dict | list) and inner and draw(st.booleans()):
                place = inner
                continue
            what = draw(st.sampled_from(["replace", "remove", "add"]))
            if what == "replace":
                place[key] = draw(TREES)
            elif what == "remove":
                del place[key]
            elif isinstance(place, dict):
                place[draw(st.text(max_size=6))] = draw(TREES)
            else:
                place.append(draw(TREES))
            break
    return tree


def as_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


# --- the manifest ----------------------------------------------------------------------------------------

FULL = {
    "services": {
        **{"name": "app", "image": "a:1", "port": 3000, "version": "1.0.0", "mode": "canary", "env": {"A": "b"}},
        **{"secrets": ["TOKEN"], "healthcheck": {"path": "/up", "interval": "1s", "timeout": 2}},
        "metrics": {"path": "/m", "requests": "hits_total", "duration": "took", "status_labels": ["code"]},
    },
    "nginx": {"image": "b:1", "port": 8080, "proxy_timeout": "30s", "max_body": "1m"},
    "opa": {"port": 8181, "failure_policy": {"deploy": "ignore", "promote": "fail"}},
    "canary": {"weight": 10, "steps": [5, 25], "window_seconds": "30s", "min_requests": 20, "sticky": {"cookie": "s"}},
    "network": {"name": "net", "driver_type": "bridge"},
    "contact": "ops@example.com",
}
MANIFESTS = [
    (REPOSITORY / "manifest.yaml").read_bytes(),
    json.dumps(FULL, indent=2).encode(),
    b'services: {image: "a", port: 3000}\nnginx: {image: b, port: 8080}\nnetwork: {name: n, driver_type: bridge}\n',
]
YAML_SIGNS = [b"{", b"}", b"[", b"]", b"&a ", b"*a", b"!!python/object:os.system", b"|", b">", b"<<: ", b"- ", b"? "]
YAML_SIGNS += [b": ", b"#", b"'", b'"', b"\t", b"\n", b"\r", b"---\n", b"...\n", b"%YAML 9\n", b"\xef\xbb\xbf", b"\xff"]
YAML_SIGNS += [
    b"0o17",
    b"1e999",
    b".nan",
    b"-.inf",
    b"null",
    b"~",
    b"yes",
    b"2026-11-21",
    b"port: 0",
    b"{{ 1 }}",
    b"\0",
]


@fuzz
@given(near(MANIFESTS, YAML_SIGNS) | near_tree(FULL).map(as_json) | TREES.map(as_json))
def test_a_manifest_is_complete_or_refused_in_words(raw: bytes) -> None:
    try:
        config = manifest.parse(raw, "m").config
    except manifest.ManifestError as error:
        assert error.problems
        assert str(error).replace("\n", "").isprintable()
        TRIED["manifest"]["refused"] += 1
        return
    TRIED["manifest"]["accepted"] += 1
    json.dumps(config, allow_nan=False)
    services, nginx, canary = config["services"], config["nginx"], config["canary"]
    for part in (services, nginx, config["opa"]):
        assert type(part["port"]) is int
        assert 1 <= part["port"] <= 65535
    assert services["mode"] in ("stable", "canary")
    assert set(config["opa"]["failure_policy"].values()) <= {"ignore", "fail"}
    assert 1 <= canary["window_seconds"] <= 3600
    assert canary["min_requests"] >= 1
    assert 1 <= canary["weight"] <= 100
    for text in (services["name"], services["image"], services["version"], nginx["image"]):
        assert isinstance(text, str)
        assert text.isprintable()


# --- metrics ---------------------------------------------------------------------------------------------

CLASSIC = b"""# HELP http_requests_total Requests.
# TYPE http_requests_total counter
http_requests_total{method="GET",path="/",status_code="200"} 100.0
http_requests_total{method="GET",path="/a b",status_code="500"} 7 1395066363000
http_requests_total{path="/healthz",status_code="200"} 1e3
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{path="/",le="0.1"} 50
http_request_duration_seconds_bucket{path="/",le="1.0"} 99
http_request_duration_seconds_bucket{path="/",le="+Inf"} 107
http_request_duration_seconds_sum{path="/"} 12.5
http_request_duration_seconds_count{path="/"} 107
app_mode 1
chaos_active 0
app_uptime_seconds 60.5
app_build_info{version="1.0.0"} 1
"""
OPEN = (
    CLASSIC.replace(b"# HELP http_requests_total Requests.\n", b"")
    .replace(b"counter\n", b"counter\n", 1)
    .replace(b"# TYPE http_requests_total", b"# TYPE http_requests")
    .replace(b" 1395066363000", b' # {trace_id="x"} 0.5 1.0')
    + b"# EOF\n"
)
METRICS_SIGNS = [
    b"NaN",
    b"+Inf",
    b"-Inf",
    b"-1",
    b"1e308",
    b"9" * 400,
    b'"',
    b"\\",
    b"\\n",
    b"{",
    b"}",
    b",",
    b"=",
    b" ",
]
METRICS_SIGNS += [
    b"\n",
    b"\r\n",
    b"\t",
    b"# EOF\n",
    b"# TYPE http_requests gauge\n",
    b"le=",
    b'le="0.1"',
    b'le="x"',
    b"_",
]
METRICS_SIGNS += [
    b"\xc3\xa9",
    b"\xe2\x80\xa8",
    b"\0",
    b'status_code="5xx"',
    b'status_code=""',
    b"{count:1}",
    b"0x1p4",
    b"1_0",
]
KINDS = ["text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0", "", "text/html"]
pages = near([CLASSIC, OPEN, CLASSIC.replace(b"107", b"9")], METRICS_SIGNS)
FIGURES = (
    "requests",
    "req_per_sec",
    "window_seconds",
    "error_rate",
    "p50_latency_ms",
    "p95_latency_ms",
    "p99_latency_ms",
)


@fuzz
@given(pages, pages, st.sampled_from(KINDS), st.sampled_from(["taken", "given", "kept"]))
def test_metrics_are_figures_or_a_cause(first: bytes, second: bytes, kind: str, origin: str) -> None:
    def sample(body: bytes, at: float) -> dict[str, Any]:
        return {"slot": "blue", "at": at, "body": body.decode("utf-8", "replace"), "content_type": kind}

    got = evidence.record(sample(first, 100.0), sample(second, 130.0), {}, evidence.excluded({}), first_sample=origin)
    TRIED["metrics"][got["status"]] += 1
    json.dumps(got, allow_nan=False)
    if got["status"] != "measured":
        assert got["status"] == "unavailable"
        assert re.fullmatch("[a-z_]+", got["cause"])
        assert got["detail"]
        assert [got[name] for name in FIGURES] == [None] * len(FIGURES)
        assert not evidence.suffices([got], 1, proxied=False)
        return
    assert got["window_seconds"] == 30
    assert all(math.isfinite(got[name]) for name in FIGURES if got[name] is not None)
    assert got["requests"] >= 0
    assert got["req_per_sec"] == got["requests"] / 30
    assert (got["error_rate"] is None) == (got["requests"] == 0)
    assert got["error_rate"] is None or 0 <= got["error_rate"] <= 1
    quantiles = [got[name] for name in FIGURES[-3:]]
    assert quantiles == [None] * 3 or all(
        low <= high or math.isclose(low, high) for low, high in itertools.pairwise(quantiles)
    )


# --- lines of the access log -----------------------------------------------------------------------------

LINE = {
    **{"time": "2026-11-21T03:55:00+00:00", "msec": 50.5, "source": "127.0.0.1", "method": "GET", "path": "/"},
    **{"status": 200, "request_time": 0.012, "upstream": "10.0.0.1:3000, 10.0.0.2:3000"},
    **{"upstream_time": "0.010, 0.002", "upstream_status": "502, 200", "slot": "green", "bytes": 312, "probe": True},
}
LINES = [as_json(LINE), as_json({**LINE, "upstream": "10.0.0.1:3000", "slot": "", "upstream_status": "504"})]
LOG_SIGNS = [
    b'"',
    b"\\",
    b"{",
    b"}",
    b",",
    b":",
    b"-",
    b", ",
    b" : ",
    b"NaN",
    b"Infinity",
    b"1e999",
    b"-1",
    b"null",
    b"\xff",
]
LOG_SIGNS += [b'"status":200', b'"slot":"blue"', b"9" * 5000, b"\\ud800", b"\n", b"[" * 2000, b"true", b"0x1"]
SLOTS = [
    {"slot": "blue", "match": ["10.0.0.1:3000", "blue"]},
    {"slot": "green", "match": ["10.0.0.2:3000", "green"]},
]


@fuzz
@given(st.lists(near(LINES, LOG_SIGNS) | near_tree(LINE).map(as_json) | TREES.map(as_json), min_size=1, max_size=3))
def test_log_lines_are_requests_or_passed_over(lines: list[bytes]) -> None:
    tally = access_log.Tally(SLOTS, 0.0, 100.0, ["/healthz"])
    for line in lines:
        request = access_log.parse_line(line)
        TRIED["access log"]["passed over" if request is None else "counted"] += 1
        if request is not None:
            tally.add(request)
    for figures in tally.figures(truncated=False).values():
        assert 0 <= figures["errors"] <= figures["requests"]
        assert 0 <= figures["probes"] <= figures["requests"]
        # One line is at most one request of each slot.
        assert figures["requests"] <= len(lines)
        for name in ("p50_ms", "p95_ms", "p99_ms"):
            assert (figures[name] is None) == (figures["requests"] == 0)
            assert figures[name] is None or (math.isfinite(figures[name]) and figures[name] >= 0)
    proxy = {"slots": tally.figures(truncated=False)}
    for slot in ("blue", "green"):
        record = evidence.record(None, {"slot": slot}, {}, evidence.excluded({}), proxy=proxy)
        json.dumps(record, allow_nan=False)
        assert record["proxy_error_rate"] is None or 0 <= record["proxy_error_rate"] <= 1
        assert record["probe_share"] is None or 0 <= record["probe_share"] <= 1


# --- OPA's answers ---------------------------------------------------------------------------------------

ALLOW = {
    "decision_id": "d-1",
    "result": {
        **{"allow": True, "insufficient": False, "domain": "canary", "reasons": []},
        **{"checked": {"requests": 412, "error_rate": 0.0}, "thresholds": {"error_rate": {"max": 0.01}}},
    },
}
DENY = {"result": {**ALLOW["result"], "allow": False, "reasons": ["P99 latency is 620 ms"]}}  # type: ignore[dict-item]
PAST = {"accepted": True, "reason": "the shop is down", "actor": "ada@c1", "overridden": ["frozen by weekend"]}
OVERRIDDEN = {"result": {**ALLOW["result"], "override": PAST}}  # type: ignore[dict-item]
OPA_SIGNS = [
    b"true",
    b"false",
    b'"true"',
    b"1",
    b"null",
    b"NaN",
    b"[]",
    b"{}",
    b'"allow":true,',
    b'"insufficient":false',
]
OPA_SIGNS += [b"{", b"}", b'"', b",", b"\xef\xbb\xbf", b"\xff", b"9" * 400, b"[" * 100, b"\\ud800", b'"result":', b"\n"]


def is_clear_yes(status: int, body: bytes) -> bool:
    """What alone may let anything through, written without a look at the code: each key once, each of its type."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError
        return dict(pairs)

    def no_number(_: str) -> None:
        raise ValueError

    try:
        answer = json.loads(body.decode("utf-8"), object_pairs_hook=once, parse_constant=no_number)
        result = answer["result"]
        return (
            status == 200
            and result["allow"] is True
            and result["insufficient"] is False
            and result["domain"] == "canary"
            and isinstance(result["reasons"], list)
            and not result["reasons"]
            and isinstance(result["checked"], dict)
            and isinstance(result["thresholds"], dict)
        )
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


@fuzz
@given(
    st.sampled_from([200] * 6 + [201, 204, 302, 400, 401, 500]),
    near([as_json(ALLOW), as_json(DENY)], OPA_SIGNS)
    | near_tree(ALLOW).map(as_json)
    | near_tree(DENY).map(as_json)
    | near_tree(OVERRIDDEN).map(as_json)
    | TREES.map(as_json),
)
def test_nothing_but_a_clear_yes_is_allowed(status: int, body: bytes) -> None:
    try:
        decision = opa.classify("canary", status, body)
    except opa.UnavailableError as problem:
        TRIED["opa"]["unavailable"] += 1
        assert problem.cause in opa.CAUSES
        assert problem.detail.isprintable()
        return
    TRIED["opa"][decision["outcome"]] += 1
    assert decision["outcome"] in ("allowed", "denied", "insufficient")
    assert (decision["outcome"] == "allowed") is decision["allow"]
    assert not decision["allow"] or is_clear_yes(status, body)
    assert decision["allow"] or decision["reasons"]
    override = decision.get("override")
    assert override is None or override["accepted"] is decision["allow"]
    assert override is None or not override["accepted"] or (override["reason"] and override["overridden"])
    json.dumps(decision, allow_nan=False).encode()


# --- samples kept on the host ----------------------------------------------------------------------------


def kept_file(folder: Path) -> tuple[Keeping, bytes]:
    keeping = Keeping(folder / samples.FILE_NAME, {"blue": "r1"}, 30.0, 60.0)
    sample = {"slot": "blue", "at": 1e9, "body": CLASSIC.decode(), "content_type": "text/plain"}
    samples.keep(keeping, [sample], Now(1e9, 5000.0))
    return keeping, keeping.path.read_bytes()


KEPT_SIGNS = [b"NaN", b"-1", b"1e999", b"null", b"[]", b'"', b"}", b"=", b"AAAA", b"\xff", b'"slot": "green"', b'"r2"']


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Keeping, bytes]:
    return kept_file(tmp_path_factory.mktemp("kept"))


@fuzz
@given(data=st.data())
def test_kept_samples_are_whole_or_none(kept: tuple[Keeping, bytes], data: st.DataObject) -> None:
    keeping, good = kept
    shapes = near([good], KEPT_SIGNS) | near_tree(json.loads(good)).map(as_json)
    keeping.path.write_bytes(data.draw(shapes))
    now = Now(1e9 + 40, 5040.0)
    found = samples.pick(keeping, ["blue"], now)
    TRIED["kept samples"]["found" if found else "none"] += 1
    for one in found:
        assert one["slot"] == "blue"
        assert 30 <= now.at - one["at"] <= 60
        # What is packed has a checksum of its own.
        assert one["body"] == CLASSIC.decode()


# --- thresholds ------------------------------------------------------------------------------------------

SHIPPED = (REPOSITORY / "policies" / "thresholds" / "data.yaml").read_bytes()
HELD = thresholds.parse(SHIPPED, "t")
WINDOW = {
    "timezone": "Europe/Berlin",
    "weekly": {"days": ["fri"], "from": "17:00", "until": "mon 08:00"},
    "reason": "nobody is there",
    "contact": "ops@example.com",
}
FROZEN = {**HELD, "change": {"default": {"actors": ["*"], "freezes": {"weekend": WINDOW}}}}
HELD_SIGNS = [*YAML_SIGNS, b"min: ", b"max: ", b"default:", b"-5", b"1e400", b"0x1F", b".5", b"Mars/Olympus", b"25:61"]
# The figures without whose limit nothing may pass, and the side that it must be on.
NEEDED = {
    "infrastructure": {"disk_free_gb": "min", "cpu_load_1m": "max", "mem_free_percent": "min"},
    "canary": {"error_rate": "max", "p99_latency_ms": "max", "requests": "min"},
}


@fuzz
@given(
    near([SHIPPED, as_json(FROZEN)], HELD_SIGNS)
    | near_tree(HELD).map(as_json)
    | near_tree(FROZEN).map(as_json)
    | TREES.map(as_json)
)
def test_thresholds_limit_every_figure_or_are_refused_in_words(raw: bytes) -> None:
    try:
        found = thresholds.parse(raw, "t")
    except thresholds.ThresholdsError as error:
        assert error.problems
        assert str(error).replace("\n", "").isprintable()
        TRIED["thresholds"]["refused"] += 1
        return
    TRIED["thresholds"]["accepted"] += 1
    json.dumps(found, allow_nan=False)
    for domain, needed in NEEDED.items():
        entries = found[domain]
        for environment in entries:
            for figure, side in needed.items():
                limits = {**entries["default"], **entries[environment]}[figure]
                assert type(limits[side]) in (int, float)
                assert limits[side] >= 0
    for entry in found["change"].values():
        for window in (entry.get("freezes") or {}).values():
            assert window is None or (window["reason"] and window["contact"] and zoneinfo.ZoneInfo(window["timezone"]))
