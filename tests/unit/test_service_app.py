"""The service's answers and figures, one worker, no sockets."""

from __future__ import annotations

import gzip
import json
import logging
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from swift_service.app import create_app
from swift_service.chaos import Chaos, ChaosFile
from swift_service.log import JsonLines
from swift_service.metrics import Metrics, ServiceCollector, forget_in_progress, wipe
from swift_service.settings import read_settings

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
Build = Callable[..., Flask]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Make the application of one worker; all of them share one state directory."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))

    def make(mode: str, slot: int = 0, delayed: int = 4) -> Flask:
        settings = read_settings({"MODE": mode, "APP_VERSION": "1.2.3", "APP_NAME": "shop"})
        chaos = ChaosFile(tmp_path / "chaos.json")
        facts = ServiceCollector(settings, chaos, time.monotonic() - 100)
        return create_app(settings, chaos, Metrics(tmp_path, slot, facts), facts, delayed)

    return make


@pytest.fixture
def stable(build: Build) -> FlaskClient:
    return build("stable").test_client()


@pytest.fixture
def canary(build: Build) -> FlaskClient:
    return build("canary").test_client()


def samples(client: FlaskClient) -> Samples:
    text = client.get("/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def counts(client: FlaskClient) -> dict[tuple[str, str, str], float]:
    """{(method, path, status): requests}, those that were made."""
    found = {}
    for (name, labels), value in samples(client).items():
        if name == "http_requests_total" and value:
            label = dict(labels)
            found[label["method"], label["path"], label["status_code"]] = value
    return found


def test_the_front_page_says_who_and_when(stable: FlaskClient) -> None:
    answer = stable.get("/")
    assert answer.status_code == 200
    body = answer.json
    assert body is not None
    assert list(body) == ["message", "mode", "version", "timestamp"]
    assert (body["mode"], body["version"]) == ("stable", "1.2.3")
    assert "shop" in body["message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])


def test_health_tells_mode_version_and_the_uptime_of_the_service(canary: FlaskClient) -> None:
    body = canary.get("/healthz").json
    assert body is not None
    assert (body["status"], body["mode"], body["version"]) == ("ok", "canary", "1.2.3")
    assert body["uptime_seconds"] >= 100


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/", 200),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/nowhere", 404),
        ("POST", "/", 405),
        ("GET", "/chaos", 405),
        ("POST", "/chaos", 400),
    ],
)
def test_every_answer_in_canary_mode_says_so(canary: FlaskClient, method: str, path: str, code: int) -> None:
    answer = canary.open(path, method=method)
    assert answer.status_code == code
    assert answer.headers.getlist("X-Mode") == ["canary"]


def test_no_answer_in_stable_mode_carries_the_header(stable: FlaskClient) -> None:
    for path in ("/", "/healthz", "/metrics", "/nowhere"):
        assert "X-Mode" not in stable.get(path).headers


def test_a_crash_is_json_says_its_mode_and_is_counted(build: Build) -> None:
    app = build("canary")

    @app.get("/crash")
    def crash() -> str:
        raise RuntimeError("the inside must not show")

    client = app.test_client()
    answer = client.get("/crash")
    assert (answer.status_code, answer.headers["X-Mode"]) == (500, "canary")
    assert answer.json == {"error": "Internal Server Error", "code": 500}
    assert counts(client) == {("GET", "/crash", "500"): 1}


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/nowhere"])
def test_errors_are_json(stable: FlaskClient, path: str) -> None:
    answer = stable.put(path)
    assert answer.status_code in (404, 405)
    assert answer.json is not None
    assert answer.json["code"] == answer.status_code
    assert answer.json["error"]


def test_a_wrong_method_is_told_the_right_one(canary: FlaskClient) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = canary.open("/chaos", method=method)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_chaos_is_forbidden_outside_canary_mode_whatever_is_sent(stable: FlaskClient) -> None:
    for body in (b'{"mode":"recover"}', b"", b"nonsense", b"x" * 100_000):
        answer = stable.post("/chaos", data=body)
        assert answer.status_code == 403
        assert answer.json is not None
        assert "canary" in answer.json["error"]
    assert samples(stable)["chaos_active", ()] == 0


def test_bad_chaos_is_answered_with_the_reason_and_changes_nothing(canary: FlaskClient) -> None:
    assert canary.post("/chaos", json={"mode": "error", "rate": 1}).status_code == 200
    answer = canary.post("/chaos", json={"mode": "slow", "duration": 61})
    assert answer.status_code == 400
    assert answer.json == {
        "error": '"duration" must be a number above 0 and at most 60 seconds, found 61',
        "code": 400,
    }
    assert samples(canary)["chaos_active", ()] == 2


@pytest.mark.parametrize("size", [4097, 4098, 1_000_000])
def test_a_huge_body_is_refused(canary: FlaskClient, size: int) -> None:
    assert canary.post("/chaos", data=b'{"mode":"recover"}'.ljust(4096)).status_code == 200
    answer = canary.post("/chaos", data=b'{"mode":"recover"}'.ljust(size))
    assert answer.status_code == 413
    assert answer.json is not None
    assert answer.json["code"] == 413


def test_chaos_that_cannot_be_stored_says_so(canary: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: ChaosFile, chaos: Chaos) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ChaosFile, "write", full)
    answer = canary.post("/chaos", json={"mode": "error"})
    assert answer.status_code == 500
    assert answer.json is not None
    assert "No space left on device" in answer.json["error"]


def test_error_chaos_fails_requests_and_counts_them(canary: FlaskClient) -> None:
    answer = canary.post("/chaos", json={"mode": "error", "rate": 1})
    assert answer.json == {"chaos": {"mode": "error", "rate": 1.0}}
    for _ in range(5):
        failed = canary.get("/")
        assert (failed.status_code, failed.headers["X-Mode"]) == (500, "canary")
        assert failed.json is not None
        assert failed.json["code"] == 500
    assert canary.get("/healthz").status_code == 200
    assert counts(canary)["GET", "/", "500"] == 5
    assert canary.post("/chaos", json={"mode": "recover"}).json == {"chaos": {"mode": "none"}}
    assert canary.get("/").status_code == 200


def test_error_chaos_at_half_fails_some_and_not_others(canary: FlaskClient) -> None:
    canary.post("/chaos", json={"mode": "error"})
    codes = {canary.get("/").status_code for _ in range(200)}
    assert codes == {200, 500}


def test_slow_chaos_delays_and_the_delay_is_in_the_histogram(canary: FlaskClient) -> None:
    canary.post("/chaos", json={"mode": "slow", "duration": 0.2})
    assert canary.get("/").status_code == 200
    figures = samples(canary)
    labels = (("method", "GET"), ("path", "/"))
    assert figures["http_request_duration_seconds_sum", labels] >= 0.2
    assert figures["http_request_duration_seconds_bucket", (("le", "0.15"), *labels)] == 0
    assert figures["http_request_duration_seconds_count", labels] == 1
    assert figures["chaos_active", ()] == 1


def test_slow_chaos_does_not_reach_the_watchers(canary: FlaskClient) -> None:
    canary.post("/chaos", json={"mode": "slow", "duration": 60})  # a touched request would hang this test
    assert canary.get("/healthz").status_code == 200
    assert canary.get("/metrics").status_code == 200
    assert canary.get("/chaos").status_code == 405
    assert canary.post("/chaos", json={"mode": "recover"}).status_code == 200


def test_more_delayed_requests_than_there_is_room_for_are_refused_at_once(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep, wake = threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        asleep.set()
        assert wake.wait(30)

    monkeypatch.setattr("swift_service.app.time", SimpleNamespace(sleep=sleep, perf_counter=time.perf_counter))
    app = build("canary", delayed=1)
    app.test_client().post("/chaos", json={"mode": "slow", "duration": 60})
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(lambda: app.test_client().get("/").status_code)
        assert asleep.wait(30)
        refused = app.test_client().get("/")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        wake.set()
        assert held.result() == 200
    assert app.test_client().get("/").status_code == 200
    assert counts(app.test_client())["GET", "/", "503"] == 1


def test_path_labels_are_templates_and_strangers_share_one(canary: FlaskClient) -> None:
    strange = ("/nowhere", "/healthz/", "/healthz//x", "/%00", "/%ff%fe", "/<unmatched>", '/a"b\n', "/x" * 500)
    for path in strange:
        assert canary.get(path).status_code == 404
    canary.get("/?q=1")
    canary.get("/chaos")
    canary.get("/%68ealthz")
    assert counts(canary) == {
        ("GET", "<unmatched>", "404"): len(strange),
        ("GET", "/", "200"): 1,
        ("GET", "/chaos", "405"): 1,
        ("GET", "/healthz", "200"): 1,
    }


def test_methods_nobody_knows_share_one_label(stable: FlaskClient) -> None:
    for method in ("BREW", "PROPFIND", "GETX", "X" * 20):
        assert stable.open("/", method=method).status_code == 405
        assert stable.open("/nowhere", method=method).status_code in (404, 405)
    stable.head("/")
    found = counts(stable)
    assert {method for method, _, _ in found} == {"OTHER", "HEAD"}
    assert sum(found.values()) == 9


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "a b/c"},
        {"Host": "x" * 300},
        {"Host": "evil:port"},
        {"X-Forwarded-Host": "evil", "X-Original-Url": "/healthz", "X-Rewrite-Url": "/x"},
        {"X-HTTP-Method-Override": "DELETE"},
        {"Accept": "application/openmetrics-text; version=abc"},
        {"Accept": "application/openmetrics-text; version=9.x"},
        {"Accept": "text/plain; version=1.a.0"},
        {"Accept-Encoding": "gzip;;;=,,"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/metrics"])
def test_forged_headers_neither_break_nor_bend(stable: FlaskClient, headers: dict[str, str], path: str) -> None:
    assert stable.get(path, headers=headers).status_code in (200, 400)
    for _, label, _ in counts(stable):
        assert label in {"/", "/metrics", "<unmatched>"}
    assert sum(counts(stable).values()) >= 1


def test_all_families_are_there_before_the_first_request(stable: FlaskClient) -> None:
    figures = samples(stable)
    assert figures["http_requests_total", (("method", "GET"), ("path", "/"), ("status_code", "200"))] == 0
    assert figures["http_request_duration_seconds_count", (("method", "GET"), ("path", "/"))] == 0
    assert figures["http_requests_in_progress", ()] == 0
    assert figures["app_uptime_seconds", ()] >= 100
    assert figures["app_mode", ()] == 0
    assert figures["chaos_active", ()] == 0
    assert figures["app_build_info", (("version", "1.2.3"),)] == 1


def test_canary_mode_shows_in_the_figures(canary: FlaskClient) -> None:
    assert samples(canary)["app_mode", ()] == 1


def test_the_histogram_can_tell_the_usual_limit_of_half_a_second(stable: FlaskClient) -> None:
    bounds = {dict(labels).get("le") for name, labels in samples(stable) if name.endswith("_bucket")}
    assert {"0.005", "0.5", "30.0", "+Inf"} <= bounds


def test_openmetrics_is_given_to_who_asks_for_it(stable: FlaskClient) -> None:
    stable.get("/")
    answer = stable.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.mimetype == "application/openmetrics-text"
    families = {family.name: family for family in parse_openmetrics(answer.text)}  # type: ignore[no-untyped-call]
    assert families["http_requests"].samples[0].value == 1
    assert families["app_build"].type == "info"
    assert families["http_request_duration_seconds"].type == "histogram"
    plain = stable.get("/metrics")
    assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_a_scrape_is_compressed_for_who_asks_for_it(stable: FlaskClient) -> None:
    answer = stable.get("/metrics", headers={"Accept-Encoding": "deflate, gzip;q=0.5"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert b"http_requests_total" in gzip.decompress(answer.data)
    assert "Content-Encoding" not in stable.get("/metrics").headers


def test_a_new_worker_on_a_slot_goes_on_counting(build: Build, tmp_path: Path) -> None:
    for _ in range(3):
        client = build("stable").test_client()  # each time as after a restart of the worker
        client.get("/")
        client.get("/")
    assert counts(client)["GET", "/", "200"] == 6
    assert samples(client)["http_request_duration_seconds_count", (("method", "GET"), ("path", "/"))] == 6
    assert len(list(tmp_path.glob("*.db"))) == 3


def test_the_slots_add_up(build: Build) -> None:
    first = build("stable", slot=0).test_client()
    first.get("/")
    second = build("stable", slot=1).test_client()
    second.get("/")
    assert counts(second)["GET", "/", "200"] == 2


def test_requests_of_a_dead_worker_are_not_in_progress_for_ever(build: Build, tmp_path: Path) -> None:
    dying = build("stable", slot=0).wsgi_app._metrics  # type: ignore[attr-defined]
    dying.started()
    dying.started()
    other = build("stable", slot=1).test_client()
    assert samples(other)["http_requests_in_progress", ()] == 2
    forget_in_progress(tmp_path, 0)
    assert samples(other)["http_requests_in_progress", ()] == 0


def test_a_start_of_the_service_begins_at_zero_and_keeps_strange_files(build: Build, tmp_path: Path) -> None:
    client = build("canary").test_client()
    client.get("/")
    client.post("/chaos", json={"mode": "error"})
    (tmp_path / "note.txt").write_text("not ours")
    wipe(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    figures = samples(build("canary").test_client())
    assert figures["chaos_active", ()] == 0
    assert figures["http_requests_total", (("method", "GET"), ("path", "/"), ("status_code", "200"))] == 0


def test_a_log_line_is_one_json_object() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError as problem:
        info = (ValueError, problem, problem.__traceback__)
    record = logging.LogRecord("gunicorn.error", logging.ERROR, "x.py", 1, 'said "%s"\n', ("it",), info)
    line = JsonLines().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert (found["level"], found["logger"], found["message"]) == ("error", "gunicorn", 'said "it"\n')
    assert "ValueError" in found["exception"]
