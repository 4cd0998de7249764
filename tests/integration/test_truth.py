"""The gate's figures beside the truth: what a client wrote down of every request it sent.

An hour of health lies in the service's lifetime counters, put there by the test. Then half of all requests fail, with
latencies of a known distribution, for longer than the window, which is 10 s here instead of 30. Clients straddle both
ends of the window, so figures and log are samples of the same distribution and not the same sample.

Bounds, all at four standard deviations (a test in 16,000 would fail by chance):

- error rates: the binomial sqrt(p (1 - p) / n) with p = 0.5 and n the requests in the window, against the client's
  rate and against p itself;
- the proxy's P99, which is exact: between the order statistics of the client's times whose ranks are
  n (0.99 +- 4 sqrt(0.99 * 0.01 / n)), whatever the distribution;
- the service's P99: the same, each end moved to the bound of its bucket, since inside it a histogram knows nothing.

What lies between client and service is no latency of it: as much as the slowest of the client's own health requests.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import itertools
import math
import random
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from integration.test_metrics import PATIENCE, Playbook, nginx, wait_until

WINDOW = 10.0
HEALTH_RATE = 20.0  # one a second would hardly be seen if it were counted
P = 0.5
SIGMAS = 4
RATE = 60.0  # requests a second
HOUR = 3600 * 100  # requests of the healthy hour
MEDIAN, SPREAD = 0.08, 0.5  # seconds, and the standard deviation of the logarithm
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 5.0)
FORGED = (
    "/%22%7D%20500%0A{n}http_requests_total%7Bstatus_code=%22500%22%7D%20999",
    "/x%22,%22status%22:500,%22slot%22:%22blue{n}",
    "/healthz%20{n}",
    "/metrics%0d%0aX:{n}",
    "/%5c{n}",
)


@pytest.fixture
def playbook(tmp_path: Path) -> Playbook:
    folder = tmp_path / "play"
    folder.mkdir()
    return Playbook(folder)


class Faulty:
    """A service with an hour of health behind it. It puts any path into a label, as careless services do."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["path", "status_code"]
        self.hits = Counter("http_requests", "n", labels, registry=self.registry)
        self.took = Histogram("http_request_duration_seconds", "t", labels, registry=self.registry, buckets=BOUNDS)
        self.hits.labels("/", "200").inc(HOUR)
        healthy = self.took.labels("/", "200")
        for _ in range(HOUR // 100):
            healthy.observe(0.004)
        for bucket in healthy._buckets:
            bucket.set(bucket.get() * 100)
        self.scrapes = 0
        self._random = random.Random(20261121)
        self._lock = threading.Lock()
        faulty = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    faulty.scrapes += 1
                    self.answer(200, generate_latest(faulty.registry))
                    return
                began = time.perf_counter()
                status = faulty.serve(self.path)
                faulty.hits.labels(unquote(self.path), str(status)).inc()
                faulty.took.labels(unquote(self.path), str(status)).observe(time.perf_counter() - began)
                self.answer(status, b"")

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self.server.server_address[1])

    def serve(self, path: str) -> int:
        """Bear the latency of a request to ``path``; its status."""
        if path == "/healthz":
            return 200
        if path != "/":
            return 404
        with self._lock:
            seconds = MEDIAN * math.exp(SPREAD * self._random.gauss(0, 1))
            status = 500 if self._random.random() < P else 200
        time.sleep(seconds)
        return status

    def lifetime_error_rate(self) -> float:
        """What a gate would see that reads the counters as they are."""
        counted: dict[str, float] = collections.defaultdict(float)
        for family in self.registry.collect():
            for sample in family.samples:
                if sample.name == "http_requests_total":
                    counted[sample.labels["status_code"]] += sample.value
        return counted["500"] / sum(counted.values())


@contextlib.contextmanager
def faulty_service() -> Iterator[Faulty]:
    one = Faulty()
    thread = threading.Thread(target=one.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield one
    finally:
        one.server.shutdown()
        one.server.server_close()
        thread.join()


class Entry(NamedTuple):
    """One request in the client's log. Times are seconds."""

    path: str
    status: int
    seconds: float


class Clients:
    """Sends requests at their planned moments, whatever became of the ones before, and writes each down."""

    def __init__(self, port: int) -> None:
        self.log: list[Entry] = []
        self.port = port
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def send(self, path: str, rate: float, workers: int) -> None:
        """Ask ``path`` ``rate`` times a second from now on."""
        begin = time.monotonic()
        numbers = itertools.count()

        def work() -> None:
            while True:
                if self._stop.wait(max(0.0, begin + next(numbers) / rate - time.monotonic())):
                    return
                self.ask(path)

        for _ in range(workers):
            self._threads.append(threading.Thread(target=work))
            self._threads[-1].start()

    def ask(self, path: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        began = time.perf_counter()
        connection.request("GET", path)
        status = connection.getresponse().status
        self.log.append(Entry(path, status, time.perf_counter() - began))
        connection.close()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def of(self, path: str) -> list[Entry]:
        return [entry for entry in self.log if entry.path == path]


def measure(playbook: Playbook, service: Faulty, log: Path) -> dict[str, Any]:
    call = {
        "slots": [{"slot": "blue", "url": f"http://127.0.0.1:{service.port}/metrics"}],
        "window_seconds": WINDOW,
        "proxy_log": {"kind": "file", "path": str(log)},
    }
    return dict(playbook.measure(call)[0]["evidence"]["blue"])


def binomial(n: float) -> float:
    return SIGMAS * math.sqrt(P * (1 - P) / n)


def p99_between(ordered: list[float], n: float) -> tuple[float, float]:
    """The order statistics that the P99 of another sample of ``n`` lies between."""
    off = SIGMAS * math.sqrt(0.99 * 0.01 / n)
    low, high = (math.ceil(q * len(ordered)) for q in (0.99 - off, min(1.0, 0.99 + off)))
    return ordered[max(0, low - 1)], ordered[high - 1]


def test_the_figures_are_the_truth_of_the_window(tmp_path: Path, playbook: Playbook) -> None:
    with faulty_service() as service, nginx(tmp_path / "nginx", service.port) as front:
        clients = Clients(int(front.url.rsplit(":", 1)[1]))
        try:
            clients.send("/", RATE, 32)
            clients.send("/healthz", HEALTH_RATE, 2)
            wait_until(lambda: len(clients.of("/")) > 60, "the fault is a second old when the window begins")
            got = measure(playbook, service, front.log)
        finally:
            clients.stop()
        lifetime = service.lifetime_error_rate()

    users = clients.of("/")
    truth = sum(entry.status >= 500 for entry in users) / len(users)
    way = max(entry.seconds for entry in clients.of("/healthz"))
    assert got["status"] == "measured"
    assert WINDOW <= got["window_seconds"] < WINDOW + 5
    assert lifetime < 0.01  # which no threshold would have noticed
    for name, requests in (("error_rate", got["requests"]), ("proxy_error_rate", got["proxy_requests"])):
        assert requests > 0.7 * RATE * WINDOW
        assert abs(got[name] - truth) <= binomial(requests), (name, got, truth)
        assert abs(got[name] - P) <= binomial(requests), (name, got)

    low, high = p99_between(sorted(entry.seconds for entry in users), got["requests"])
    proxy, own = got["proxy_p99_latency_ms"] / 1000, got["p99_latency_ms"] / 1000
    assert low - way <= proxy <= high, (low, proxy, high, way)
    floor = max((bound for bound in BOUNDS if bound <= low - way), default=0.0)
    ceiling = min((bound for bound in BOUNDS if bound >= high), default=BOUNDS[-1])
    assert floor <= own <= ceiling, (floor, own, ceiling)
    # And of the distribution itself, of which 99 in 100 are below this.
    exact = MEDIAN * math.exp(SPREAD * 2.3263)
    assert low - way <= exact <= high, (low, exact, high)


def test_a_forged_path_moves_no_error_rate(tmp_path: Path, playbook: Playbook) -> None:
    """Each forged request is one request with the status it got, and no other figure moves."""
    with faulty_service() as service, nginx(tmp_path / "nginx", service.port) as front:
        clients = Clients(int(front.url.rsplit(":", 1)[1]))
        outcome: list[dict[str, Any]] = []

        def run() -> None:
            outcome.append(measure(playbook, service, front.log))

        measuring = threading.Thread(target=run)
        measuring.start()
        wait_until(lambda: service.scrapes > 0, "the window has begun")
        for number, path in itertools.product(range(8), FORGED):
            clients.ask("/")
            clients.ask(path.replace("{n}", str(number)))
            clients.ask("/healthz")
        assert service.scrapes == 1, "the window ended before the requests did"
        measuring.join()
    (got,) = outcome
    errors = sum(entry.status >= 500 for entry in clients.log)
    assert {entry.status for entry in clients.log if entry.path not in ("/", "/healthz")} == {404}
    # Half of them ask for what is not there, which dilutes nothing.
    assert (got["status"], got["requests"], got["proxy_requests"]) == ("measured", 40, 40)
    assert (got["requests_seen"], got["proxy_seen"]) == (80, 80)
    assert (got["error_rate"], got["proxy_error_rate"]) == (errors / 40, errors / 40)
