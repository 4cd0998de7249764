"""The reader of metrics: what it reads, what one bad line costs, and that it never costs more than its length."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from swiftdeploy import metrics_text
from swiftdeploy.metrics_text import EvidenceProblem, parse
from swiftdeploy_target import inflight

NAMES = ("http_requests_total", "http_request_duration_seconds_bucket")
OURS = 'http_requests_total{status="200"} 3\n'


def read(body: str, content_type: str = "text/plain") -> dict[str, Any]:
    found = parse({"at": 1.0, "body": body, "content_type": content_type}, NAMES)
    return {name: {tuple(sorted(labels)): value for labels, value in one.items()} for name, one in found.series.items()}


def refused(body: str, content_type: str = "text/plain") -> EvidenceProblem:
    with pytest.raises(EvidenceProblem) as caught:
        read(body, content_type)
    return caught.value


@pytest.mark.parametrize(
    ("line", "labels", "value"),
    [
        ("http_requests_total 7", {}, 7),
        ("http_requests_total{} 7", {}, 7),
        ("http_requests_total { } 7 1700000000000", {}, 7),
        ('http_requests_total{a="b\\"c\\\\d\\ne"} 0x10', {"a": 'b"c\\d\ne'}, 16),
        ('{"http_requests_total","http.route"="/größe",a="b",} 1e3', {"http.route": "/größe", "a": "b"}, 1000),
        ('{a="b","http_requests_total"} 1', None, None),  # the name comes first
        ('http_requests_total{a="",b="x"} 1', {"b": "x"}, 1),
        ('  http_requests_total{a="}"} +1 # {trace_id="KOO5"} 0.67 1700000000.5', {"a": "}"}, 1),
        ('http_requests_total{a="x"} 2\r', {"a": "x"}, 2),
    ],
)
def test_every_form_of_a_sample(line: str, labels: dict[str, str] | None, value: float | None) -> None:
    found = read(f"up 1\n{line}\n")
    expected = {} if labels is None else {"http_requests_total": {tuple(sorted(labels.items())): value}}
    assert found == expected


@pytest.mark.parametrize(
    "line",
    [
        "# TYPE x gauge_histogram",
        "# TYPE x gaugehistogram",
        "# TYPE x",
        "# UNIT x",
        'x{a="1} 1',
        'x{a="1"',
        "x",
        "x one",
        "x 1_0",
        "\x00\x01",
        "<b>",
        f'x{{a="{" " * 50_000}"}} 1',
        '{"x.y" 1',
    ],
)
def test_what_cannot_be_read_of_another_family_loses_nothing_else(line: str) -> None:
    assert read(f"{line}\n{OURS}{line}") == {"http_requests_total": {(("status", "200"),): 3}}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('http_requests_total{status="500} 1', "line 2 of the metrics has labels that cannot be read"),
        ('http_requests_total{status="500"}', "line 2 of the metrics is no sample"),
        ("http_requests_total 1 2 3", "line 2 of the metrics is no sample"),
        ("http_requests_total many", "line 2 of the metrics has 'many' for a value"),
        (f'http_requests_total{{a="{" " * 50_000}"}} 1', "line 2 of the metrics has more than 16384 characters"),
        ("{\"http_requests_total\",a='b'} 1", "labels that cannot be read"),
    ],
)
def test_a_line_of_ours_that_cannot_be_read_is_told(line: str, words: str) -> None:
    problem = refused(f"{OURS}{line}\n")
    assert problem.cause == "not_prometheus"
    assert words in problem.detail
    assert len(problem.detail) < 250


def test_a_cut_page_is_refused() -> None:
    kind = "application/openmetrics-text; version=1.0.0"
    assert "# EOF" in refused(OURS, kind).detail
    assert read(OURS + "# EOF\n", kind)
    for page in ("<html>\n<b>502</b>", '{"status": "ok"}', "OK"):
        assert refused(page).cause == "not_prometheus"


ENDLESS = [
    'http_requests_total{a="' + " " * 400_000 + '"} 1',
    "http_requests_total{" + " " * 400_000 + "} 1",
    'x{a="' + "\\" * 400_000 + '"} 1',
    '{"' + " " * 400_000,
    "http_requests_total{" + 'a="b" ' * 2_000,
    "http_requests_total{" + '"\\' * 8_000,
    'http_requests_total{a="b"' + " " * 16_000,
    "http_requests_total " + "1 " * 8_000,
    "# TYPE " + " " * 400_000,
    "# TYPE " + '"' * 400_000,
    "a{\n" * 900_000,
]


@pytest.mark.parametrize("body", ENDLESS, ids=range(len(ENDLESS)))
def test_no_page_costs_more_than_its_length(body: str) -> None:
    """Processor time, so that a busy machine is none of the page's fault; a quadratic reader takes hours."""
    begin = time.process_time()
    for text in (body, OURS + body, body + "\n" + OURS):
        with contextlib.suppress(EvidenceProblem):
            read(text)
    for metric in ("http_requests_total", "x"):
        inflight.read_gauge(body, metric)
    assert time.process_time() - begin < 30


def test_a_page_of_too_many_lines_or_series_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_text, "MAX_SERIES", 10)
    assert read(OURS * 10)
    assert refused(OURS * 11).cause == "too_large"
    monkeypatch.setattr(metrics_text, "MAX_LINES", 20)
    assert refused("up 1\n" * 21).cause == "too_large"
