"""What two samples of a slot say: counters, quantiles, restarts, exclusions, and text that is no metrics."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from swiftdeploy.evidence import (
    EvidenceProblem,
    added,
    compute,
    excluded,
    histogram_quantile,
    of_slots,
    parse,
    record,
    records,
    suffices,
)
from swiftdeploy.measurement import told

CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
NONE = excluded({})
quick = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def sample(body: str, at: float = 100.0, content_type: str = CLASSIC, slot: str = "blue") -> dict[str, Any]:
    return {"slot": slot, "at": at, "body": body, "content_type": content_type}


def page(requests: dict[str, float], buckets: dict[str, float] | None = None, more: str = "") -> str:
    """A metrics page: label text to value, le to value."""
    lines = ["# TYPE http_requests_total counter"]
    lines += [f"http_requests_total{{{labels}}} {value}" for labels, value in requests.items()]
    lines += ["# TYPE http_request_duration_seconds histogram"]
    for le, value in (buckets or {}).items():
        lines.append(f'http_request_duration_seconds_bucket{{le="{le}"}} {value}')
    return "\n".join([*lines, more, ""])


def measured(before: str, after: str, **options: Any) -> dict[str, Any]:
    """The record between two pages, 10 s apart."""
    names = options.pop("names", {})
    exclude = excluded(names, options.pop("exclude_paths", ()))
    return record(sample(before, 100.0, **options), sample(after, 110.0, **options), names, exclude)


# --- quantiles -------------------------------------------------------------------------------------------


def test_quantile_by_hand() -> None:
    buckets = [(0.1, 50.0), (0.5, 90.0), (1.0, 100.0), (math.inf, 100.0)]
    assert histogram_quantile(0.25, buckets) == pytest.approx(0.05)  # 25 of the 50 in 0..0.1
    assert histogram_quantile(0.5, buckets) == pytest.approx(0.1)  # exactly the bound
    assert histogram_quantile(0.7, buckets) == pytest.approx(0.3)  # 20 of the 40 in 0.1..0.5
    assert histogram_quantile(0.99, buckets) == pytest.approx(0.95)  # 9 of the 10 in 0.5..1


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ([(0.1, 0.0), (math.inf, 0.0)], None),  # no observation
        ([(math.inf, 7.0)], None),  # one bucket
        ([(0.1, 5.0), (0.5, 7.0)], None),  # no +Inf
        ([], None),
        ([(0.1, 1.0), (0.5, 1.0), (math.inf, 10.0)], 0.5),  # beyond the highest finite bound
        ([(-1.0, 8.0), (1.0, 9.0), (math.inf, 9.0)], -1.0),  # lowest bound at or below 0
        ([(0.0, 8.0), (1.0, 9.0), (math.inf, 9.0)], 0.0),
        ([(0.1, 10.0), (0.5, 4.0), (1.0, 20.0), (math.inf, 20.0)], 0.1),  # 4 is read as 10
        ([(math.inf, 10.0), (1.0, 5.0), (0.5, 5.0), (1.0, 5.0)], 0.5),  # any order, one bound twice
    ],
)
def test_quantile_at_the_edges(buckets: list[tuple[float, float]], expected: float | None) -> None:
    assert histogram_quantile(0.5, buckets) == expected


def test_counts_that_go_down_are_raised_to_their_neighbour() -> None:
    buckets = [(0.1, 10.0), (0.5, 4.0), (1.0, 20.0), (math.inf, 19.0)]
    assert histogram_quantile(0.75, buckets) == pytest.approx(0.75)  # 5 of the 10 in 0.5..1


# Answers of a real Prometheus 2.42 to histogram_quantile(q, sum by (le) (h)), q = 0.5, 0.95, 0.99.
PROMETHEUS = json.loads("""[
[[[["-0.5",0],["0",8],["10",27264],["+Inf",27268]]],
 ["4.999266216612856","9.501247431758145","9.90142353977106"]],
[[[["-0.5",0],["0",3],["0.005",11],["0.05",12],["1",12],["10",12],["30",31389],["+Inf",57592]]],
 ["28.34719699142684","30","30"]],
[[[["-1",0],["-0.5",6],["0",5935],["1",5935],["2.5",5940],["10",5944],["+Inf",5944]]],
 ["-0.24987350312025636","-0.024304267161409987","-0.004253668409512523"]],
[[[["-1",0],["0.001",29725],["0.05",123878],["0.25",123878],["0.5",123878],["10",123878],["+Inf",123881]]],
 ["0.01776589699744034","0.046777994859430926","0.04935684800271899"]],
[[[["-1",0],["0.001",2],["30",2],["+Inf",2]],
  [["-0.5",42893],["0.25",42895],["0.5",107857],["1",107857],["+Inf",107857]]],
 ["0.29246521043071333","0.47925344816969917","0.4958568470798313"]],
[[[["-0.5",0],["0",15431],["0.001",15439],["0.01",15439],["0.025",74000],["30",155119]]],
 ["NaN","NaN","NaN"]],
[[[["-1",91902],["0",91902],["0.005",91909],["0.025",91909],["0.05",124684],["0.25",206154],["2.5",206156],
   ["30",206156],["+Inf",206156]]],
 ["0.03351945080091533","0.2247003805081625","0.24494400392782623"]],
[[[["-0.5",5],["0.001",5],["0.05",6],["0.1",35966],["0.25",45820],["1",45825],["2.5",143011],["30",171704],
   ["+Inf",171704]]],
 ["1.6177895993250058","21.771756177464873","28.35435123549297"]]
]""")


@pytest.mark.parametrize(("sets", "answers"), PROMETHEUS)
def test_quantile_is_that_of_prometheus(sets: list[list[tuple[str, float]]], answers: list[str]) -> None:
    buckets = [(float(le), float(count)) for one in sets for le, count in one]
    for q, answer in zip((0.5, 0.95, 0.99), answers, strict=True):
        expected = None if answer == "NaN" else pytest.approx(float(answer), rel=1e-12)
        assert histogram_quantile(q, buckets) == expected


@st.composite
def histograms(draw: st.DrawFn) -> list[tuple[float, float]]:
    """A well-formed histogram with at least one observation."""
    bounds = sorted(draw(st.sets(st.floats(-10, 1000, allow_nan=False), min_size=1, max_size=12)))
    counts = draw(st.lists(st.integers(0, 10**9), min_size=len(bounds) + 1, max_size=len(bounds) + 1))
    counts[-1] += 1
    running = itertools.accumulate(counts)
    return list(zip([*bounds, math.inf], map(float, running), strict=True))


@given(histograms(), st.floats(0.001, 1))
@quick
def test_quantile_lies_in_the_bucket_of_its_rank(buckets: list[tuple[float, float]], q: float) -> None:
    answer = histogram_quantile(q, buckets)
    assert answer is not None
    finite = [bound for bound, _ in buckets if bound < math.inf]
    reached = [bound for bound, count in buckets if count >= q * buckets[-1][1]]
    below = [0.0 if finite[0] > 0 else finite[0], *(bound for bound in finite if bound < reached[0])]
    assert below[-1] <= answer <= min(reached[0], finite[-1]) or answer == pytest.approx(below[-1])


@given(histograms(), st.lists(st.floats(0.001, 1), min_size=2, max_size=6))
@quick
def test_quantile_grows_with_q(buckets: list[tuple[float, float]], qs: list[float]) -> None:
    answers = [histogram_quantile(q, buckets) for q in sorted(qs)]
    for lower, higher in itertools.pairwise(answers):
        assert lower is not None
        assert higher is not None
        assert lower <= higher or lower == pytest.approx(higher)


# --- counters --------------------------------------------------------------------------------------------


def test_figures_are_differences_never_lifetimes() -> None:
    before = page(
        {'path="/",status_code="200"': 100000, 'path="/",status_code="500"': 3}, {"0.1": 100003, "+Inf": 100003}
    )
    after = page(
        {'path="/",status_code="200"': 100010, 'path="/",status_code="500"': 13},
        {"0.1": 100003, "0.5": 100023, "+Inf": 100023},
    )
    got = measured(before, after)
    assert got["status"] == "measured"
    assert (got["requests"], got["req_per_sec"], got["error_rate"]) == (20, 2.0, 0.5)
    assert got["window_seconds"] == 10.0
    assert got["p50_latency_ms"] == pytest.approx(300.0)  # all 20 in 0.1..0.5
    assert got["p99_latency_ms"] == pytest.approx(496.0)


def test_a_quiet_window_has_null_rates_not_zero() -> None:
    quiet = page({'status_code="200"': 5}, {"0.1": 5, "+Inf": 5})
    got = measured(quiet, quiet)
    assert (got["status"], got["requests"], got["req_per_sec"]) == ("measured", 0, 0.0)
    assert got["error_rate"] is None
    assert got["p99_latency_ms"] is None


def test_a_restart_counts_what_is_new_since() -> None:
    before = page({'status_code="200"': 1000, 'status_code="500"': 500}, {"0.1": 3, "0.5": 1500, "+Inf": 1500})
    after = page({'status_code="200"': 6, 'status_code="500"': 2}, {"0.1": 4, "0.5": 8, "+Inf": 8})
    got = measured(before, after)
    assert (got["requests"], got["error_rate"]) == (8, 0.25)
    # The bucket 0.1 grew past its old value, but belongs to the new process like the others.
    assert got["p50_latency_ms"] == pytest.approx(100.0)


STARTED = ("process_start_time_seconds 1000\n", "process_start_time_seconds 2000\n")
UPTIME = ("app_uptime_seconds 90\n", "app_uptime_seconds 4\n")


@pytest.mark.parametrize("said", [STARTED, UPTIME])
def test_a_restart_that_the_process_tells_of_is_one_of_every_series(said: tuple[str, str]) -> None:
    before = page({'status_code="200"': 1000, 'status_code="500"': 3}, {"0.1": 1003, "+Inf": 1003}, said[0])
    after = page({'status_code="200"': 6, 'status_code="500"': 5}, {"0.1": 11, "+Inf": 11}, said[1])
    got = measured(before, after)
    # 500 went up from 3 to 5, and still all 5 are of the new process.
    assert (got["requests"], got["error_rate"]) == (11, 5 / 11)


def test_counters_that_outlive_a_restart_are_not_taken_for_new() -> None:
    before = page({'status_code="200"': 1000, 'status_code="500"': 3}, {"0.1": 1003, "+Inf": 1003}, STARTED[0])
    after = page({'status_code="200"': 1002, 'status_code="500"': 5}, {"0.1": 1007, "+Inf": 1007}, STARTED[1])
    assert measured(before, after)["error_rate"] == 0.5


def test_a_new_label_set_counts_in_full_and_a_vanished_one_not_at_all() -> None:
    before = page({'path="/old",status_code="200"': 70})
    after = page({'path="/new",status_code="503"': 4, 'path="/other",status_code="200"': 4})
    assert measured(before, after)["error_rate"] == 0.5


def test_labels_in_another_order_are_the_same_series() -> None:
    before = page({'path="/",status_code="200"': 10})
    after = page({'status_code="200",path="/"': 12})
    assert measured(before, after)["requests"] == 2


def test_a_series_that_comes_twice_counts_once() -> None:
    twice = 'http_requests_total{status_code="200"} 7\nhttp_requests_total{status_code="200"} 900\n'
    assert measured(page({'status_code="200"': 1}), twice + page({}))["requests"] == 6


def test_health_metrics_and_chaos_requests_are_no_evidence() -> None:
    labels = ["path", "route", "handler", "endpoint", "uri"]
    after = {f'{label}="/healthz",status_code="500"': 50.0 for label in labels}
    after |= {'path="/up",status_code="500"': 50, 'path="/m",status_code="200"': 9, 'path="/",status_code="200"': 1}
    bucket = "http_request_duration_seconds_bucket"
    slow = f'{bucket}{{path="/healthz",le="0.1"}} 0\n{bucket}{{path="/healthz",le="9"}} 99\n'
    slow += f'{bucket}{{path="/healthz",le="+Inf"}} 99\n{bucket}{{path="/",le="0.1"}} 1\n'
    slow += f'{bucket}{{path="/",le="+Inf"}} 1\n'
    got = measured(page({}), page(after, more=slow), names={"path": "/m"}, exclude_paths=["/up"])
    assert (got["requests"], got["error_rate"]) == (1, 0.0)
    assert got["p99_latency_ms"] == pytest.approx(99.0)


@pytest.mark.parametrize(
    ("status", "is_error"),
    [
        ("500", 0.5),
        ("599", 0.5),
        ("5xx", 0.5),
        ("5XX", 0.5),
        ("50", 0.0),
        ("5000", 0.0),
        ("", 0.0),
        ("404", 0.0),
        ("4XX", 0.0),
    ],
)
def test_what_counts_as_an_error(status: str, is_error: float) -> None:
    after = page({f'path="/a",status="{status}"': 2, 'path="/b",status="200"': 2})
    assert measured(page({}), after)["error_rate"] == is_error


@pytest.mark.parametrize("status", ["", "error", "OK", "0", "-500", "5000"])
def test_a_label_that_tells_no_status_would_hide_every_error(status: str) -> None:
    got = measured(page({}), page({f'status="{status}"': 2}))
    assert (got["status"], got["requests"], got["error_rate"]) == ("measured", 2, None)
    assert "has no status label, looked for status_code, status, code" in got["untold"]["error_rate"]
    assert repr(status) in got["untold"]["error_rate"] or not status


def test_an_empty_label_is_none() -> None:
    assert measured(page({}), page({'status_code="",status="503"': 2}))["error_rate"] == 1.0


def test_the_first_status_label_of_the_manifest_wins() -> None:
    after = page({'code="500",status="200"': 4})
    assert measured(page({}), after)["error_rate"] == 0.0
    assert measured(page({}), after, names={"status_labels": ["code", "status"]})["error_rate"] == 1.0


def test_names_of_another_service() -> None:
    def body(requests: int, slow: int) -> str:
        return (
            f'# TYPE rpc_calls counter\nrpc_calls{{code="500"}} {requests}\n# TYPE rpc_time histogram\n'
            f'rpc_time_bucket{{le="1"}} 0\nrpc_time_bucket{{le="2"}} {slow}\nrpc_time_bucket{{le="+Inf"}} {slow}\n'
        )

    names = {"requests": "rpc_calls", "duration": "rpc_time", "status_labels": ["code"]}
    got = measured(body(5, 5), body(15, 15), names=names)
    assert (got["requests"], got["error_rate"], got["p50_latency_ms"]) == (10, 1.0, pytest.approx(1500.0))


@pytest.mark.parametrize("name", ["hits", "hits_total"])
@pytest.mark.parametrize("shown", ["# TYPE hits counter\nhits", "hits_total", "# TYPE hits_total counter\nhits_total"])
def test_a_counter_with_or_without_total(name: str, shown: str) -> None:
    body = f'{shown}{{status="200"}} 3\n' + page({}, {"1": 0, "+Inf": 0})
    assert measured(page({}, {"1": 0, "+Inf": 0}), body, names={"requests": name})["requests"] == 3


# --- buckets ---------------------------------------------------------------------------------------------


def test_bounds_are_numbers_not_text() -> None:
    before = page({'status="200"': 0}, {"0.50": 10, "1": 10, "+Inf": 10})
    after = page({'status="200"': 0}, {"0.5": 10, "1.0": 30, "+Inf": 30})
    assert measured(before, after)["p50_latency_ms"] == pytest.approx(750.0)


def test_label_sets_with_different_bounds_are_summed_by_bound() -> None:
    bucket = "http_request_duration_seconds_bucket"
    more = "".join(
        f'{bucket}{{path="{path}",le="{le}"}} {count}\n'
        for path, le, count in [("/a", "0.1", 10), ("/a", "+Inf", 10), ("/b", "0.2", 10), ("/b", "+Inf", 10)]
    )
    # By bound: 0.1 -> 10, 0.2 -> 10, +Inf -> 20, so the median is the end of the first bucket.
    assert measured(page({}), page({}, more=more))["p50_latency_ms"] == pytest.approx(100.0)
    assert measured(page({}), page({}, more=more))["p95_latency_ms"] == pytest.approx(200.0)


def test_a_bound_that_appears_later_does_not_bring_its_lifetime() -> None:
    before = page({'status="200"': 0}, {"0.1": 1000, "+Inf": 1000})
    after = page({'status="200"': 0}, {"0.1": 1000, "1": 1010, "+Inf": 1020})
    assert measured(before, after)["p50_latency_ms"] == pytest.approx(1000.0)


@pytest.mark.parametrize("le", ["1_0", "NaN", "ten", ""])
def test_a_bucket_whose_bound_is_no_number_is_passed_over(le: str) -> None:
    after = page({'status="200"': 0}, {"1": 0, le: 10, "+Inf": 10})
    assert measured(page({}), after)["p50_latency_ms"] == pytest.approx(1000.0)


@pytest.mark.parametrize("openmetrics", [False, True])
def test_pages_of_the_real_library(openmetrics: bool) -> None:
    registry = CollectorRegistry()
    requests = Counter("http_requests", "n", ["path", "status_code"], registry=registry)
    duration = Histogram("http_request_duration_seconds", "t", ["path"], registry=registry)
    render, kind = (generate_openmetrics, OPENMETRICS) if openmetrics else (generate_latest, CLASSIC)
    empty = render(registry).decode()
    for seconds in (0.003, 0.02, 0.02, 3.0):
        requests.labels("/", "200").inc()
        duration.labels("/").observe(seconds)
    got = measured(empty, render(registry).decode(), content_type=kind)
    assert (got["status"], got["requests"], got["error_rate"]) == ("measured", 4, 0.0)
    assert got["p50_latency_ms"] == pytest.approx(17.5)  # rank 2: one of two in 0.01..0.025
    assert got["p99_latency_ms"] == pytest.approx(4900.0)  # 0.96 of 2.5..5


@given(
    st.lists(st.integers(0, 1000), min_size=4, max_size=4),
    st.lists(st.integers(0, 1000), min_size=4, max_size=4),
)
@quick
def test_no_figure_is_ever_negative(before: list[int], after: list[int]) -> None:
    def body(counts: list[int]) -> str:
        labels = ['status="200"', 'status="500"', 'status="404"', 'path="/",status="200"']
        les = ["0.1", "0.5", "1", "+Inf"]
        return page(dict(zip(labels, counts, strict=True)), dict(zip(les, itertools.accumulate(counts), strict=True)))

    got = measured(body(before), body(after))
    assert got["status"] == "measured"
    assert got["requests"] >= 0
    assert got["error_rate"] is None or 0 <= got["error_rate"] <= 1
    assert got["p99_latency_ms"] is None or 0 <= got["p50_latency_ms"] <= got["p99_latency_ms"] <= 1000


# --- what the service says about itself ------------------------------------------------------------------

FACTS = 'app_mode 1.0\nchaos_active 2.0\napp_uptime_seconds 12.5\napp_build_info{version="1.2.0"} 1.0\n'


def test_facts_of_the_service() -> None:
    got = measured(page({}), page({}, more=FACTS))
    assert (got["mode"], got["version"], got["chaos"], got["uptime_seconds"]) == ("canary", "1.2.0", "error", 12.5)


def test_facts_are_null_where_the_service_tells_none() -> None:
    got = measured(page({}), page({}, more="app_mode 7\nchaos_active NaN\n"))
    assert [got[name] for name in ("mode", "version", "chaos", "uptime_seconds")] == [None] * 4


def test_one_sample_has_facts_but_no_figures() -> None:
    got = record(None, sample(page({}, more=FACTS)), {}, NONE)
    assert (got["status"], got["cause"], got["requests"]) == ("unavailable", "one_sample", None)
    assert (got["mode"], got["version"]) == ("canary", "1.2.0")


# --- what is no evidence ---------------------------------------------------------------------------------

GOOD = page({'status="200"': 1}, {"1": 1, "+Inf": 1})


@pytest.mark.parametrize(
    ("body", "cause", "words"),
    [
        ("", "family_missing", "the page of metrics is empty"),
        (" \n\n", "family_missing", "the page of metrics is empty"),
        ("<html><body>502</body></html>", "not_prometheus", "<html>"),
        ('{"status": "ok"}', "not_prometheus", "no Prometheus text"),
        ("OK", "not_prometheus", "OK"),
        (f'http_requests_total{{a="{"x" * 20000}"}} 1', "not_prometheus", "16384"),
        ("up 1\n", "family_missing", "http_requests_total"),
        (
            'http_requests_total{status="200" 1\n',
            "not_prometheus",
            "line 1 of the metrics has labels that cannot be read",
        ),
        (GOOD + 'http_requests_total{status="500"} 1e\n', "not_prometheus", "has '1e' for a value"),
        (page({'status="200"': math.nan}), "bad_value", 'http_requests_total{status="200"} is nan'),
        (page({'status="200"': -1}), "bad_value", "-1"),
        (page({'status="200"': math.inf}), "bad_value", "inf"),
        (f'http_requests_total{{status="200"}} {"9" * 400}\n', "bad_value", "inf"),
        (page({'status="200"': 1}, {"1": math.nan, "+Inf": 1}), "bad_value", "_bucket"),
        (
            page({'path="/a",status="200"': 1.7e308, 'path="/b",status="200"': 1.7e308}),
            "bad_value",
            "from 0 to 9.0072e+15",
        ),
        (page({f'path="/{n}",status="200"': 9e15 for n in range(9)}), "bad_value", "add up to 8.1e+16"),
        (page({'status="200"': 1}, {"1e300": 1, "+Inf": 2}), "bad_value", "more than anything real"),
        (page({'status="200"': 1e308}), "bad_value", "is 1e+308"),
    ],
)
def test_a_page_that_is_no_evidence_says_why(body: str, cause: str, words: str) -> None:
    got = measured(GOOD, body)
    assert (got["status"], got["cause"]) == ("unavailable", cause)
    assert words in got["detail"]
    assert got["requests"] is got["error_rate"] is got["p99_latency_ms"] is None


def test_a_cut_openmetrics_page_is_not_believed() -> None:
    body = '# TYPE http_requests counter\nhttp_requests_total{status="200"} 1\n'
    with pytest.raises(EvidenceProblem) as caught:
        parse(sample(body, content_type=OPENMETRICS))
    assert caught.value.cause == "not_prometheus"


def test_an_openmetrics_page_that_only_prometheus_would_forgive() -> None:
    loose = page({'status="200"': 3}, {"1": 3, "+Inf": 3}) + "# EOF\n"
    assert parse(sample(loose, content_type=OPENMETRICS)).counter("http_requests_total") is not None


@pytest.mark.parametrize(
    "line",
    [
        'http_requests_total\t{status="500"}\t\t4\t',
        'http_requests_total { status = "500" , path = "/" }   4   ',
        'http_requests_total{status="500",} 4',
        'http_requests_total{path="a\\"b\\\\c\\nd} 9",status="500"} 4',
        'http_requests_total{path="} 5 # {",status="500"} 4e0 1395066363000',
        'http_requests_total{path="x\u2028y\x0b",status="500"} +4.0 -1',
        '{"http_requests_total",status="500"} 4',
        '# a comment\n#TYPE http_requests_total gauge\n\nhttp_requests_total{status="500"} 4',
        '# TYPE http_requests_total counter\nhttp_requests_total{status="500"} 4\n# TYPE http_requests_total counter',
        'http_requests_total{status="500"} 4 # {trace_id="x"} 0.5 1.0',
        'http_requests_total{status="500"} 4\nhttp_requests_total_created{status="500"} 1.7e9',
    ],
)
def test_text_of_every_spelling_is_read(line: str) -> None:
    after = f'{line}\nhttp_requests_total{{status="200"}} 4\n' + page({}, {"1": 8, "+Inf": 8})
    got = measured(page({}), after)
    assert (got["status"], got["requests"], got["error_rate"]) == ("measured", 8, 0.5), got["detail"]


def test_ten_thousand_series_are_all_counted() -> None:
    def body(each: int) -> str:
        routes = range(5000)
        statuses = {f'path="/{number}",status="{code}"': each for number in routes for code in (200, 500)}
        buckets = "".join(
            f'http_request_duration_seconds_bucket{{path="/{number}",le="{le}"}} {2 * each * (le != "0.5")}\n'
            for number in routes[:2500]
            for le in ("0.5", "1", "5", "+Inf")
        )
        return page(statuses, more=buckets)

    got = measured(body(7), body(10))
    assert (got["requests"], got["error_rate"]) == (30_000, 0.5)
    assert got["p50_latency_ms"] == pytest.approx(750.0)


def test_windows_line_ends_and_timestamps_are_read() -> None:
    body = GOOD.replace(" 1\n", " 4 1395066363000\n").replace("\n", "\r\n")
    assert measured(GOOD, body)["requests"] == 3


def test_samples_in_the_wrong_order() -> None:
    got = record(sample(GOOD, 200.0), sample(GOOD, 100.0), {}, NONE)
    assert got["cause"] == "clock"


def seen(requests: int, **figures: Any) -> dict[str, Any]:
    """What the proxy saw of a slot."""
    nothing = dict.fromkeys(("errors", "broken", "client_errors", "abandoned", "left", "forced", "probes"), 0)
    times = {"p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0}
    rest = {"clients": requests, "largest_source": 0, "rest_requests": requests, "rest_errors": 0}
    known = {
        "requests": requests,
        "seen": requests,
        "answered": requests,
        "methods": {"GET": requests},
        "truncated": False,
    }
    return {**nothing, **times, **rest, **known, "unexercised": None, "unexercised_share": None, **figures}


def test_a_failed_scrape_passes_its_cause_on_and_keeps_the_proxys_view() -> None:
    failed = {"slot": "blue", "at": 110.0, "cause": "refused", "detail": "nothing listens at http://x"}
    proxy = {"slots": {"blue": seen(4, errors=1, probes=2)}}
    got = record(sample(GOOD), failed, {}, NONE, proxy=proxy, probes={"sent": 20, "failed": 3})
    assert (got["status"], got["cause"], got["detail"]) == ("unavailable", "refused", failed["detail"])
    assert (got["proxy_requests"], got["proxy_error_rate"], got["proxy_p99_latency_ms"]) == (4, 0.25, 3.0)
    assert (got["probes_sent"], got["probes_failed"], got["proxy_probes"]) == (20, 3, 2)
    assert "first sample" in record(failed, sample(GOOD, 120.0), {}, NONE)["detail"]


def test_a_log_that_cannot_be_read_is_said() -> None:
    proxy = {"cause": "log_missing", "detail": "there is no access log at /x"}
    got = record(sample(GOOD), sample(GOOD, 110.0), {}, NONE, proxy=proxy)
    assert (got["status"], got["proxy_requests"], got["proxy_detail"]) == ("measured", None, proxy["detail"])


def test_the_share_of_probes_is_the_proxys_count() -> None:
    proxy = {"slots": {"blue": seen(80, probes=20)}}
    more = page({'status="200"': 81}, {"1": 81, "+Inf": 81})
    got = record(sample(GOOD), sample(more, 110.0), {}, NONE, proxy=proxy, probes={"sent": 20, "failed": 0})
    assert got["probe_share"] == 0.25
    assert told(got) == "80 requests in 10.0 s, 20 of 80 at the proxy were probes (25 %)"
    none = {"slots": {"blue": seen(0)}}
    quiet = record(sample(GOOD), sample(GOOD, 110.0), {}, NONE, proxy=none)
    assert quiet["probe_share"] is None
    assert told(quiet) == "0 requests in 10.0 s"
    assert told(record(None, sample(GOOD), {}, NONE)) == ""


# --- what there is to rest on -----------------------------------------------------------------------------


def test_client_errors_neither_count_nor_dilute() -> None:
    def of(refused: int) -> dict[str, Any]:
        return measured(page({}), page({'status="200"': 95, 'status="500"': 5, 'status="404"': refused}))

    assert (of(0)["requests"], of(0)["error_rate"], of(0)["client_error_rate"]) == (100, 0.05, 0)
    assert (of(900)["requests"], of(900)["error_rate"], of(900)["client_error_rate"]) == (100, 0.05, 0.9)
    assert (of(900)["requests_seen"], of(900)["req_per_sec"]) == (1000, 100)
    only = measured(page({}), page({'status="404"': 50}))
    assert (only["requests"], only["error_rate"], only["client_error_rate"]) == (0, None, 1)


def test_refusals_are_no_part_of_the_quantiles_where_the_histogram_tells_them() -> None:
    bucket = "http_request_duration_seconds_bucket"
    rows = [("200", "1", 0), ("200", "2", 10), ("200", "+Inf", 10), ("404", "1", 990), ("404", "2", 990)]
    more = "".join(f'{bucket}{{status="{code}",le="{le}"}} {n}\n' for code, le, n in [*rows, ("404", "+Inf", 990)])
    got = measured(page({}), page({'status="200"': 10, 'status="404"': 990}, more=more))
    assert (got["p99_bucket_ms"], got["p50_latency_ms"]) == ([1000, 2000], pytest.approx(1500))


OTEL = {"duration": "http_server_request_duration_seconds"}


def otel(good: int, bad: int, bounds: tuple[str, ...] = ("0.1", "1", "+Inf")) -> str:
    """OpenTelemetry's convention: one histogram, and no counter."""
    lines = ["# TYPE http_server_request_duration_seconds histogram"]
    for code, count in (("200", good), ("500", bad)):
        label = f'http_response_status_code="{code}"'
        name = "http_server_request_duration_seconds"
        lines += [f'{name}_bucket{{{label},le="{le}"}} {count}' for le in bounds]
        lines += [f"{name}_count{{{label}}} {count}", f"{name}_sum{{{label}}} {count}"]
    return "\n".join([*lines, ""])


def test_a_histogram_alone_counts_the_requests() -> None:
    got = measured(otel(0, 0), otel(30, 10), names=OTEL)
    assert (got["requests"], got["error_rate"], got["untold"]) == (40, 0.25, {})
    assert got["counted_by"] == "http_server_request_duration_seconds_count"
    assert got["p99_bucket_ms"] == [0, 100]
    assert "counted by http_server_request_duration_seconds_count" in told(got)


@pytest.mark.parametrize(
    ("after", "names", "figure", "words"),
    [
        ('http_requests_total{status="200"} 9\n', {}, "p99_latency_ms", "no histogram http_request_duration_seconds"),
        (otel(5, 5, ("+Inf",)), OTEL, "p99_latency_ms", "native buckets are not part of the text format"),
        (otel(5, 5, ("1", "2")), OTEL, "p99_latency_ms", 'no bucket with le="+Inf"'),
        ("http_requests_total 9\n", {}, "error_rate", "no status label, looked for status_code, status, code"),
        (
            'http_requests_total{status="200"} 1\n# TYPE http_request_duration_seconds summary\n'
            'http_request_duration_seconds{quantile="0.5"} 1\nhttp_request_duration_seconds_count 1\n',
            {},
            "p99_latency_ms",
            "a summary will not do",
        ),
    ],
)
def test_what_a_service_does_not_tell_is_said(after: str, names: dict[str, Any], figure: str, words: str) -> None:
    got = measured("up 1\n", after, names=names)
    assert (got["status"], got[figure]) == ("measured", None)
    assert words in got["untold"][figure]
    assert words in told(got)


def test_a_service_without_metrics_has_the_proxys_figures() -> None:
    first, second = ({"slot": "blue", "at": at, "none": True} for at in (100.0, 110.0))
    figures = seen(50, errors=5, client_errors=50, seen=100)
    got = record(first, second, {}, NONE, proxy={"slots": {"blue": figures}, "window_seconds": 10.0})
    assert (got["status"], got["rests_on"], got["requests"], got["error_rate"]) == ("measured", ["proxy"], 50, 0.1)
    assert (got["req_per_sec"], got["p99_latency_ms"], got["views_gap"]) == (10, 3.0, None)
    assert told(got).startswith("50 requests in 10.0 s at the proxy alone (the service has no metrics)")
    blind = record(first, second, {}, NONE, proxy={"cause": "log_missing", "detail": "there is no access log"})
    assert (blind["status"], blind["cause"], blind["detail"]) == ("unavailable", "no_proxy", "there is no access log")
    assert record(None, second, {}, NONE)["cause"] == "one_sample"


@pytest.mark.parametrize(
    ("service", "proxy", "interval", "gap"),
    [
        (3300, 0, 0.0, 3298 / 3300),  # invented
        (100, 100, 0.0, 0),
        (102, 100, 0.0, 0),  # at the ends of the window
        (20, 400, 0.0, 378 / 400),  # counts too little
        (120, 100, 1.0, 0),  # health checks, in metrics that name no path
        (220, 100, 1.0, 98 / 220),
        (0, 0, 0.0, 0),
    ],
)
def test_how_far_the_two_views_are_apart(service: int, proxy: int, interval: float, gap: float) -> None:
    found = {"slots": {"blue": seen(proxy)}}
    samples = (sample(page({'status="200"': 0})), sample(page({'status="200"': service}), 110.0))
    got = record(*samples, {}, NONE, proxy=found, health_interval=interval)
    assert got["views_gap"] == pytest.approx(gap)
    # A service that does not count what it has no route for, and one that tells no statuses.
    flood = {"slots": {"blue": seen(service, client_errors=900, seen=service + 900, answered=service)}}
    assert record(*samples, {}, NONE, proxy=flood)["views_gap"] == 0
    untold = (sample("http_requests_total 0\n"), sample(f"http_requests_total {service + 900}\n", 110.0))
    assert record(*untold, {}, NONE, proxy=flood)["views_gap"] == 0
    paths = (sample(page({'path="/",status="200"': 0})), sample(page({'path="/",status="200"': 220}), 110.0))
    # Where paths are told, health checks are left out by them.
    assert record(*paths, {}, NONE, proxy={"slots": {"blue": seen(100)}}, health_interval=1.0)["views_gap"] > 0.5


def test_probes_belong_to_the_slot_they_were_sent_to() -> None:
    one = {"sent": 4, "failed": 4, "client_errors": 0}
    two = {"sent": 4, "failed": 0, "client_errors": 1}
    now = {"sent": 8, "failed": 4, "client_errors": 1, "by_slot": {"canary": one, "stable": two}}
    whole = added(added({}, now), now)
    assert (whole["sent"], whole["failed"], whole["by_slot"]["canary"]["failed"]) == (16, 8, 8)
    assert of_slots(whole, ["green", "blue"], ["canary", "stable"])["blue"]["failed"] == 0
    assert of_slots(now, ["green", "blue"], [])["blue"] == now
    got = record(sample(GOOD), sample(TEN, 110.0), {}, NONE, probes=one)
    assert (got["probes_sent"], got["probes_failed"], got["probes_failed_rate"]) == (4, 4, 1)


def test_what_the_line_of_a_measurement_remarks() -> None:
    figures = seen(
        20,
        probes=20,
        client_errors=0,
        abandoned=99,
        broken=1,
        left=2,
        forced=85,
        clients=20,
        largest_source=19,
        unexercised=[{"route": f"POST /{n}", "requests": 9 - n} for n in range(5)],
    )
    got = record(sample(GOOD), sample(TEN, 110.0), {}, NONE, proxy={"slots": {"blue": figures}}, probes={"failed": 3})
    line = told(got)
    for words in (
        "99 left without an answer",
        "1 answers were broken off",
        "2 left in the middle of an answer",
        "85 whose client chose the slot do not count",
        "3 probes failed",
        "one address sent 95 % of the clients' requests",
        "not exercised: POST /0 (9), POST /1 (8), POST /2 (7) and 2 more",
    ):
        assert words in line
    alone = record(sample(GOOD), sample(TEN, 110.0), {}, NONE, proxy={"slots": {"blue": seen(20, probes=20)}})
    assert "nothing but GET was tried" in told(alone)


# --- samples of an earlier run ---------------------------------------------------------------------------

TEN = page({'status="200"': 11}, {"1": 11, "+Inf": 11})


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ("chaos_active 0\n", "chaos_active 2\n", "chaos is error, and was none"),
        ('app_build_info{version="1"} 1\n', 'app_build_info{version="2"} 1\n', "version is 2, and was 1"),
        ("app_mode 0\n", "app_mode 1\n", "mode is canary, and was stable"),
        ("app_uptime_seconds 50\n", "app_uptime_seconds 2\n", "restarted"),
        ("process_start_time_seconds 50\n", "process_start_time_seconds 99\n", "restarted"),
    ],
)
def test_a_kept_sample_counts_only_while_the_service_is_the_same(before: str, now: str, words: str) -> None:
    samples = (sample(GOOD + before), sample(TEN + now, 110.0), {}, NONE)
    got = record(*samples, first_sample="kept")
    assert (got["status"], got["cause"], got["requests"]) == ("unavailable", "changed", None)
    assert words in got["detail"]
    # In a window that was watched from its begin the same is no problem.
    assert record(*samples)["status"] == "measured"
    same = record(sample(GOOD + before), sample(TEN + before, 110.0), {}, NONE, first_sample="kept")
    assert (same["status"], same["first_sample"], same["requests"]) == ("measured", "kept", 10)


def test_what_kept_evidence_must_have() -> None:
    def of(**proxy: Any) -> dict[str, Any]:
        found = {"slots": {"blue": {**seen(10), **proxy}}} if proxy else None
        return record(sample(GOOD), sample(TEN, 110.0), {}, NONE, proxy=found, first_sample="kept")

    assert suffices([of(requests=10)], 10, proxied=True)
    assert not suffices([of(requests=10)], 11, proxied=True)
    assert not suffices([of(requests=9)], 10, proxied=True)
    assert not suffices([of(truncated=True)], 10, proxied=True)
    assert not suffices([of()], 10, proxied=True)  # the log could not be read
    assert suffices([of()], 10, proxied=False)
    assert not suffices([of(requests=10), record(None, sample(GOOD), {}, NONE)], 1, proxied=True)


def test_records_pair_the_samples_by_slot() -> None:
    later = page({'status="200"': 5}, {"1": 5, "+Inf": 5})
    got = records([sample(GOOD, slot="green")], [sample(later, 110.0), sample(later, 110.0, slot="green")], {}, NONE)
    assert got["blue"]["cause"] == "one_sample"
    assert got["green"]["requests"] == 4


numbers = st.one_of(
    st.integers(-(10**400), 10**400).map(str),
    st.floats().map(str),
    st.sampled_from(["NaN", "+Inf", "-Inf", "1e999", "0x10", "1_0", "", "-0"]),
)
label = st.builds(
    "{}={}".format,
    st.sampled_from(["le", "status", "path", "code", "quantile", "é", ""]),
    st.one_of(st.sampled_from(['"+Inf"', '"0.5"', '"200"', '"5xx"', '"NaN"', "200"]), st.text(max_size=8)),
)
names_of_lines = st.sampled_from(
    [
        "http_requests_total",
        "http_requests",
        "http_request_duration_seconds_bucket",
        "http_request_duration_seconds_count",
        "http_request_duration_seconds",
        "app_mode",
        "chaos_active",
        "app_build_info",
    ]
)
line = st.one_of(
    st.builds(lambda n, ls, v: f"{n}{{{','.join(ls)}}} {v}", names_of_lines, st.lists(label, max_size=3), numbers),
    st.builds(
        lambda n, t: f"# TYPE {n} {t}",
        names_of_lines,
        st.sampled_from(["counter", "histogram", "gauge", "summary", "x", ""]),
    ),
    st.builds(lambda n, t: f"# HELP {n} {t}", names_of_lines, st.text(max_size=9)),
    st.just("# EOF"),
    st.text(max_size=30),
)


@given(
    st.lists(line, max_size=12).map("\n".join),
    st.lists(line, max_size=12).map("\n".join),
    st.sampled_from([CLASSIC, OPENMETRICS, "", "application/json"]),
)
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_no_text_breaks_it_or_makes_a_figure_that_is_none(first: str, second: str, kind: str) -> None:
    for body in (second, GOOD + second):
        got = measured(first, body, content_type=kind)
        assert got["status"] in ("measured", "unavailable")
        json.dumps(got, allow_nan=False)  # every figure is a number or null
        if got["status"] == "measured":
            assert got["requests"] >= 0
        else:
            assert got["cause"]
            assert got["detail"]


@given(st.dictionaries(st.sampled_from(["slot", "at", "body", "content_type", "cause"]), st.none() | st.integers()))
@quick
def test_no_shape_of_a_sample_breaks_it(shape: dict[str, Any]) -> None:
    assert record(shape, shape, {}, NONE)["status"] == "unavailable"


def test_compute_raises_its_own_problem_only() -> None:
    scrape = parse(sample("up 1\n"))
    with pytest.raises(EvidenceProblem):
        compute(scrape, parse(sample("up 1\n", 110.0)), {}, NONE)
