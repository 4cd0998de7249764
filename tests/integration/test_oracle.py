"""Our figures beside those of a real Prometheus, on the very same samples."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from integration.test_metrics import service
from support import prometheus
from support.prometheus import Prometheus, same
from swiftdeploy import evidence

T = TypeVar("T")
CASES = 400
WINDOW = 10.0
QUANTILES = {"p50_latency_ms": 0.5, "p95_latency_ms": 0.95, "p99_latency_ms": 0.99}
REQUESTS, DURATION = "http_requests_total", "http_request_duration_seconds"
# Client errors are no evidence; requests_seen and req_per_sec count them all the same.
ANSWERED = '!~"4(..|xx)"'
NO_EVIDENCE = 'path!~"/healthz|/metrics|/chaos"'
# By how much a series grew: in full where it is new or went down, as increase() does, but without its extrapolation
# to the edges of the window. {0} is the series, {1} how long ago the first scrape was.
GREW = "(({0} < {0} offset {1}) or ({0} - {0} offset {1}) or {0})"


def collect(strategy: st.SearchStrategy[T], count: int) -> list[T]:
    """``count`` examples at once, since one Prometheus for each would take hours."""
    found: list[T] = []

    @given(strategy)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def take(one: T) -> None:
        found.append(one)

    take()
    return found


# --- generated histograms and counters -------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """One series of a case: labels without the case, the values of both scrapes; None where it was not there."""

    name: str
    labels: dict[str, str]
    before: int | None
    after: int

    def line(self, value: int | None, more: str = "", at: str = "") -> list[str]:
        if value is None:
            return []
        labels = ",".join([*(f'{key}="{text}"' for key, text in self.labels.items()), *([more] if more else [])])
        return [f"{self.name}{{{labels}}} {value}{at}"]


BOUNDS = st.one_of(
    st.sampled_from([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
    st.floats(-1, 100, allow_subnormal=False).filter(lambda bound: bound == 0 or abs(bound) > 1e-6),
)
SPELLINGS: list[Callable[[float], str]] = [repr, "{:.17e}".format, lambda bound: f"{bound:.17g}"]


@st.composite
def histogram(draw: st.DrawFn, path: str) -> list[Counted]:
    """The buckets of one label set: often well-formed, now and then caught in the middle of an update."""
    bounds = sorted(draw(st.sets(BOUNDS, min_size=1, max_size=10)))
    spell = draw(st.sampled_from(SPELLINGS))
    names = [*(spell(bound) for bound in bounds), *draw(st.sampled_from([["+Inf"]] * 9 + [[]]))]
    size = len(names)
    most = draw(st.sampled_from([0, 3, 1000, 10**9]))
    cumulated = draw(st.sampled_from([True, True, True, False]))
    grown = draw(st.lists(st.integers(0, most), min_size=size, max_size=size))
    earlier = list(itertools.accumulate(draw(st.lists(st.integers(0, 10**9), min_size=size, max_size=size))))
    is_new = draw(st.sampled_from([False, False, False, True]))
    added = list(itertools.accumulate(grown)) if cumulated else grown
    return [
        Counted(
            f"{DURATION}_bucket",
            {"path": path, "le": name},
            None if is_new else before,
            more if is_new else before + more,
        )
        for name, before, more in zip(names, earlier, added, strict=True)
    ]


@st.composite
def counters(draw: st.DrawFn) -> list[Counted]:
    """Requests by path and status, with restarts and label sets that are new."""
    found = []
    for path, status in draw(
        st.sets(
            st.tuples(st.sampled_from(["/", "/a", "/healthz"]), st.sampled_from(["200", "404", "500", "503", "5xx"])),
            min_size=1,
            max_size=8,
        )
    ):
        before, after = draw(st.tuples(st.none() | st.integers(0, 10**12), st.integers(0, 10**12)))
        found.append(Counted(REQUESTS, {"path": path, "status": status}, before, after))
    return found


@st.composite
def cases(draw: st.DrawFn) -> list[Counted]:
    paths = draw(st.sampled_from([["/"], ["/", "/a"], ["/", "/a", "/healthz"]]))
    return [*itertools.chain(*(draw(histogram(path)) for path in paths)), *draw(counters())]


def page(case: list[Counted], after: bool) -> str:
    lines = [line for one in case for line in one.line(one.after if after else one.before)]
    return "\n".join([f"# TYPE {DURATION} histogram", f"# TYPE {REQUESTS} counter", *lines, ""])


def blocks(found: list[list[Counted]], at: float) -> str:
    """All cases as OpenMetrics with the times of their scrapes, told apart by the label case."""
    lines = []
    for number, case in enumerate(found):
        for one in case:
            more = f'case="{number}"'
            lines += one.line(one.before, more, f" {at - WINDOW:.3f}") + one.line(one.after, more, f" {at:.3f}")
    # All samples of a name belong together.
    lines.sort(key=lambda line: line.partition("{")[0])
    return "\n".join([*lines, "# EOF", ""])


def test_generated_histograms_and_counters_give_prometheus_figures(tmp_path: Path) -> None:
    found = collect(cases(), CASES)
    at = float(math.floor(time.time()) - 6 * 3600)
    grew = GREW.format("{0}", f"{WINDOW:g}s")
    buckets = grew.format(f"{DURATION}_bucket{{{NO_EVIDENCE}}}")
    seen = f"sum by (case) ({grew.format(f'{REQUESTS}{{{NO_EVIDENCE}}}')})"
    counted = f"{REQUESTS}{{{NO_EVIDENCE},status{ANSWERED}}}"
    requests_ = f"sum by (case) ({grew.format(counted)})"
    selected = f'{REQUESTS}{{{NO_EVIDENCE},status=~"5.."}}'
    errors = f"sum by (case) ({grew.format(selected)})"
    with prometheus.running(tmp_path, blocks=blocks(found, at)) as oracle:
        theirs: dict[str, prometheus.Values] = {
            name: oracle.query(f"histogram_quantile({q}, sum by (case, le) ({buckets})) * 1000", at, "case")
            for name, q in QUANTILES.items()
        }
        theirs["requests"] = oracle.query(requests_, at, "case")
        theirs["requests_seen"] = oracle.query(seen, at, "case")
        theirs["req_per_sec"] = oracle.query(f"{seen} / {WINDOW}", at, "case")
        theirs["error_rate"] = oracle.query(f"({errors} or 0 * {requests_}) / {requests_}", at, "case")
    compared = dict.fromkeys(theirs, 0)
    for number, case in enumerate(found):
        ours = figures(case, at)
        for name, values in theirs.items():
            expected = values.get(str(number), math.nan)
            if name in QUANTILES and "p99_latency_ms" in ours["untold"]:
                # No +Inf bucket: they say nothing, and we say why.
                assert math.isnan(expected), (case, name, expected)
                continue
            if name in ("requests", "requests_seen", "req_per_sec") and str(number) not in values:
                expected = 0.0
            assert same(ours[name], expected), (case, name, ours[name], expected)
            compared[name] += ours[name] is not None
    # Nearly all of them say something.
    assert min(compared.values()) > CASES / 2, compared


def figures(case: list[Counted], at: float) -> dict[str, Any]:
    first, second = (
        {"slot": "blue", "at": when, "body": page(case, after), "content_type": "text/plain"}
        for when, after in ((at - WINDOW, False), (at, True))
    )
    return evidence.record(first, second, {}, evidence.excluded({}))


# --- the bundled service ---------------------------------------------------------------------------------


class Relay:
    """Hands the service's page on to Prometheus, numbered, and keeps what it handed on."""

    def __init__(self, url: str) -> None:
        self.pages: list[str] = []
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = requests.get(f"{url}/metrics", timeout=30).text + f"relay_page {len(relay.pages)}\n"
                relay.pages.append(body)
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"

    def scraped(self, oracle: Prometheus, more: int) -> tuple[float, int]:
        """Time and number of the last stored page, once ``more`` new ones were stored from now on."""
        number = len(self.pages) + more
        limit = time.monotonic() + prometheus.PATIENCE
        while True:
            stored = oracle.samples("relay_page", time.time())
            if stored and stored[-1][1] >= number:
                return stored[-1][0], int(stored[-1][1])
            assert time.monotonic() < limit, f"Prometheus has not stored page {number}"
            time.sleep(0.1)


@contextlib.contextmanager
def relay(url: str) -> Iterator[Relay]:
    one = Relay(url)
    thread = threading.Thread(target=one.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield one
    finally:
        one.server.shutdown()
        one.server.server_close()
        thread.join()


def ask(url: str, path: str, times: int) -> list[int]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: requests.get(f"{url}{path}", timeout=60).status_code, range(times)))


@pytest.mark.parametrize("chaos", [None, {"mode": "error", "rate": 0.3}, {"mode": "slow", "duration": 0.02}])
def test_the_service_under_known_load_gives_prometheus_figures(tmp_path: Path, chaos: dict[str, Any] | None) -> None:
    with (
        service(tmp_path / "service") as url,
        relay(url) as pages,
        prometheus.running(tmp_path / "prometheus", target=pages.address) as oracle,
    ):
        ask(url, "/", 100)  # of before, no part of the window
        begin, first = pages.scraped(oracle, 1)
        if chaos:
            assert requests.post(f"{url}/chaos", json=chaos, timeout=30).ok
        statuses = [*ask(url, "/", 150), *ask(url, "/nowhere", 50)]
        ask(url, "/healthz", 100)
        end, last = pages.scraped(oracle, 1)

        ago = f"{round((end - begin) * 1000)}ms"
        buckets = GREW.format(f"{DURATION}_bucket{{{NO_EVIDENCE}}}", ago)
        grew = GREW.format(f"{REQUESTS}{{{NO_EVIDENCE}}}", ago)
        answered = GREW.format(f"{REQUESTS}{{{NO_EVIDENCE},status_code{ANSWERED}}}", ago)
        errors = GREW.format(f'{REQUESTS}{{{NO_EVIDENCE},status_code=~"5.."}}', ago)
        queries = {
            name: f"histogram_quantile({q}, sum by (le) ({buckets})) * 1000" for name, q in QUANTILES.items()
        } | {
            "requests": f"sum({answered})",
            "requests_seen": f"sum({grew})",
            "req_per_sec": f"sum({grew}) / {end - begin!r}",
            "error_rate": f"(sum({errors}) or vector(0)) / sum({answered})",
        }
        theirs = {name: oracle.query(query, end)[""] for name, query in queries.items()}
    samples = [
        {"slot": "blue", "at": when, "body": pages.pages[number], "content_type": "text/plain"}
        for when, number in ((begin, first), (end, last))
    ]
    ours = evidence.record(*samples, {}, evidence.excluded({}))
    for name, expected in theirs.items():
        assert same(ours[name], expected), (name, ours[name], expected)
    # And both are right.
    answered_well = [status for status in statuses if not 400 <= status < 500]
    assert (ours["requests"], ours["requests_seen"]) == (len(answered_well), 200)
    assert ours["error_rate"] == sum(status >= 500 for status in statuses) / len(answered_well)
    if chaos and chaos["mode"] == "slow":
        assert ours["p50_latency_ms"] >= 10  # the bucket of 20 ms begins there
