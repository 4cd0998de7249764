"""Figures that are exact over all workers and outlive each of them.

Every worker process holds a numbered slot and counts into the files of that slot. The master gives out the
lowest number that no living worker holds, so a replacement goes on counting where the dead one stopped: nothing
is lost and there are never more files than workers living at once. A scrape adds up all slots.
"""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.exposition import (
    CONTENT_TYPE_PLAIN_0_0_4,
    choose_encoder,
    generate_latest,
    gzip_accepted,
)
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from .chaos import LEVEL, ChaosFile
from .settings import Settings

UNMATCHED = "<unmatched>"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"})
# Dense around 0.5 s, the usual limit for P99: interpolation inside a wide bucket would blur the decision.
BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75),
    *(1, 1.5, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 60),
)
# Files of one slot and the bytes set aside for each: all label sets there can be fit without growing.
_FILES = {"counter": 1 << 17, "histogram": 1 << 19, "gauge_livesum": 1 << 16}


def lay_out(directory: Path, slot: int) -> None:
    """Make the files of a slot that do not exist yet. Raises OSError (disk full, not writable)."""
    for kind, size in _FILES.items():
        path = directory / f"{kind}_{slot}.db"
        if not path.exists():
            _blank(path, size)


def forget_in_progress(directory: Path, slot: int) -> None:
    """The slot's worker is gone: so are the requests it was serving."""
    _blank(directory / f"gauge_livesum_{slot}.db", _FILES["gauge_livesum"])


def wipe(directory: Path) -> None:
    """Remove what an earlier run of the service left: figures and chaos state start anew."""
    for kind in ("counter", "histogram", "gauge"):
        for path in directory.glob(f"{kind}_*.db*"):
            path.unlink()
    for path in directory.glob("chaos.*"):
        path.unlink()


def _blank(path: Path, size: int) -> None:
    # Written aside and renamed, as a scrape must never meet an empty file. The space is really taken:
    # storing into a mapped page that the full disk cannot back would kill the worker.
    aside = path.with_suffix(".db.new")
    with aside.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    aside.replace(path)


class Metrics:
    """The counters of this process. One instance a process: prometheus_client keeps the storage global."""

    def __init__(self, directory: Path, slot: int, collector: Collector) -> None:
        lay_out(directory, slot)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
        values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
        self._requests = Counter(
            "http_requests_total", "Requests answered.", ["method", "path", "status_code"], registry=None
        )
        self._duration = Histogram(
            "http_request_duration_seconds",
            "Time to answer a request.",
            ["method", "path"],
            buckets=BUCKETS,
            registry=None,
        )
        self._in_progress = Gauge(
            "http_requests_in_progress",
            "Requests being answered, scrapes apart.",
            multiprocess_mode="livesum",
            registry=None,
        )
        self._in_progress.set(0)
        # The families exist from the first scrape on, so that the first request is a rise from 0.
        self._requests.labels("GET", "/", "200")
        self._duration.labels("GET", "/")
        self._registry = CollectorRegistry()
        MultiProcessCollector(self._registry, str(directory))  # type: ignore[no-untyped-call]
        self._registry.register(collector)

    def started(self) -> None:
        self._in_progress.inc()

    def finished(self) -> None:
        self._in_progress.dec()

    def count(self, method: str, path: str, status_code: str, seconds: float) -> None:
        """Count one answered request. `path` is a route template; an odd method falls under OTHER."""
        method = method if method in METHODS else "OTHER"
        self._requests.labels(method, path, status_code).inc()
        self._duration.labels(method, path).observe(seconds)

    def render(self, accept: str, accept_encoding: str) -> tuple[bytes, dict[str, str]]:
        """The figures of all workers as (body, headers), in the format and encoding the client asks for."""
        try:
            encode, content_type = choose_encoder(accept)
            body = encode(self._registry)
        except TypeError:  # a version in Accept that is no number
            body, content_type = generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if gzip_accepted(accept_encoding):
            return gzip.compress(body, compresslevel=1), {**headers, "Content-Encoding": "gzip"}
        return body, headers


class ServiceCollector(Collector):
    """Facts that every worker knows alike; made at each scrape, kept nowhere.

    `started` is the monotonic clock, in seconds, at which the service (not this worker) started.
    """

    def __init__(self, settings: Settings, chaos: ChaosFile, started: float) -> None:
        self._settings = settings
        self._chaos = chaos
        self._started = started

    def uptime(self) -> float:
        return time.monotonic() - self._started

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("app_uptime_seconds", "Time since the service started.", self.uptime())
        yield GaugeMetricFamily("app_mode", "0 stable, 1 canary.", int(self._settings.canary))
        yield GaugeMetricFamily("chaos_active", "0 none, 1 slow, 2 error.", LEVEL[self._chaos.read().mode])
        yield InfoMetricFamily("app_build", "The running version.", {"version": self._settings.version})
