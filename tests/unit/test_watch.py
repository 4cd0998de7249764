"""Slots that are watched while a window runs: when one counts as unhealthy, and how soon that is known."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from swiftdeploy_target import probes
from swiftdeploy_target.watch import Watch

PATIENCE = 30.0


class Health:
    """A real HTTP server whose health a test decides: a status, or None for no answer at all."""

    def __init__(self) -> None:
        self.status: int | None = 200
        self.asked = threading.Semaphore(0)
        self.headers: list[dict[str, str]] = []
        self.released = threading.Event()
        health = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                health.headers.append(dict(self.headers.items()))
                status = health.status
                health.asked.release()
                if status is None:
                    health.released.wait(PATIENCE)
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/healthz"

    def wait_for(self, questions: int) -> None:
        for _ in range(questions):
            assert self.asked.acquire(timeout=PATIENCE)


@pytest.fixture
def serve() -> Iterator[Callable[[], Health]]:
    with contextlib.ExitStack() as servers:

        def start() -> Health:
            health = Health()
            thread = threading.Thread(target=health.server.serve_forever, args=(0.01,))
            thread.start()
            servers.callback(thread.join)
            servers.callback(health.server.server_close)
            servers.callback(health.server.shutdown)
            servers.callback(health.released.set)
            return health

        yield start


def target(health: Health, **changes: Any) -> dict[str, Any]:
    return {"slot": "green", "url": health.url, "timeout": 5.0, "interval": 0.02, "retries": 3, **changes}


def test_a_slot_that_turns_bad_ends_the_watch_with_its_reason(serve: Callable[[], Health]) -> None:
    good, bad = serve(), serve()
    watch = Watch([target(good, slot="blue"), target(bad)])
    watch.start()
    bad.wait_for(3)
    assert not watch.ended.is_set()
    bad.status = 503
    assert watch.ended.wait(PATIENCE)
    watch.stop()
    assert watch.unhealthy == {"green": "it answers 503, 3 times in a row"}
    assert watch.failures == {"blue": 0, "green": 3}


def test_slots_that_stay_well_are_asked_until_the_end(serve: Callable[[], Health]) -> None:
    health = serve()
    health.status = 204
    watch = Watch([target(health)])
    watch.start()
    health.wait_for(5)
    watch.stop()
    assert (watch.unhealthy, watch.failures, watch.ended.is_set()) == ({}, {"green": 0}, False)
    # What was under way is answered by now, and ten intervals bring no further question.
    while health.asked.acquire(blocking=False):
        pass
    assert not health.asked.acquire(timeout=0.2)


def test_one_good_answer_forgives_what_was_before(serve: Callable[[], Health]) -> None:
    health = serve()
    health.status = 500
    watch = Watch([target(health, retries=4, failures=2, interval=PATIENCE)])
    watch.start()
    health.wait_for(1)
    watch.stop()
    assert (watch.failures, watch.unhealthy) == ({"green": 3}, {})
    health.status = 200
    watch = Watch([target(health, retries=4, failures=3, interval=PATIENCE)])
    watch.start()
    watch.stop()
    assert (watch.failures, watch.unhealthy) == ({"green": 0}, {})


@pytest.mark.parametrize("status", [301, 404, 500])
def test_only_200_to_299_is_well(serve: Callable[[], Health], status: int) -> None:
    health = serve()
    health.status = status
    watch = Watch([target(health, retries=1)])
    watch.start()
    assert watch.ended.wait(PATIENCE)
    assert watch.unhealthy["green"].startswith(f"it answers {status}")


def test_failures_go_on_from_one_watch_to_the_next(serve: Callable[[], Health]) -> None:
    health = serve()
    health.status = 500
    failures = 0
    for _ in range(3):
        watch = Watch([target(health, interval=PATIENCE, failures=failures)])
        watch.start()
        watch.stop()  # at once: a slot is asked at least once
        failures = watch.failures["green"]
    assert watch.unhealthy == {"green": "it answers 500, 3 times in a row"}


def test_a_slot_that_hangs_past_the_end_is_still_a_failure(serve: Callable[[], Health]) -> None:
    health = serve()
    health.status = None
    watch = Watch([target(health, timeout=0.3, retries=1)])
    watch.start()
    health.wait_for(1)
    watch.stop()
    assert watch.unhealthy == {"green": f"no complete answer from {health.url} within 0.3 s"}


def test_a_slot_that_hangs_holds_up_neither_the_others_nor_the_end(serve: Callable[[], Health]) -> None:
    hanging, bad = serve(), serve()
    hanging.status, bad.status = None, 500
    watch = Watch([target(hanging, slot="blue", timeout=PATIENCE), target(bad)])
    begin = time.monotonic()
    watch.start()
    assert watch.ended.wait(PATIENCE)
    watch.stop()
    assert time.monotonic() - begin < PATIENCE / 2
    assert list(watch.unhealthy) == ["green"]


def test_nobody_at_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/healthz"
    watch = Watch([{"slot": "green", "url": url, "timeout": 5.0, "interval": 0.01, "retries": 2}])
    watch.start()
    assert watch.ended.wait(PATIENCE)
    assert watch.unhealthy == {"green": f"nothing listens at {url}, 2 times in a row"}


def test_nothing_to_watch_is_well() -> None:
    watch = Watch([])
    watch.start()
    watch.stop()
    assert (watch.unhealthy, watch.failures, watch.ended.is_set()) == ({}, {}, False)


# --- probes that such an end stops -----------------------------------------------------------------------


def asked(health: Health, **changes: Any) -> dict[str, Any]:
    return {"url": health.url, "count": 5, "header_value": "run-7", "timeout": PATIENCE, **changes}


def test_an_early_end_stops_the_probes_that_are_not_sent(serve: Callable[[], Health]) -> None:
    health = serve()
    stop = threading.Event()
    got: list[dict[str, int]] = []
    # Probe 1 of 5 is due at once, probe 2 in an hour.
    sending = threading.Thread(
        target=lambda: got.append(probes.send_all(asked(health), time.monotonic() - 1800, 18000, stop))
    )
    sending.start()
    health.wait_for(1)
    stop.set()
    sending.join(PATIENCE)
    assert [{name: one[name] for name in ("sent", "failed")} for one in got] == [{"sent": 1, "failed": 0}]


def test_an_early_end_does_not_wait_for_a_probe_under_way(serve: Callable[[], Health]) -> None:
    health = serve()
    health.status = None
    stop = threading.Event()
    got: list[dict[str, int]] = []
    sending = threading.Thread(target=lambda: got.append(probes.send_all(asked(health), time.monotonic(), 0, stop)))
    sending.start()
    health.wait_for(5)
    stop.set()
    sending.join(PATIENCE / 2)
    assert [{name: one[name] for name in ("sent", "failed")} for one in got] == [{"sent": 5, "failed": 0}]


def test_probes_are_sent_for_each_slot_in_turn(serve: Callable[[], Health]) -> None:
    planned = probes.plan({"count": 2, "slots": ["canary", "stable"]}, 100.0, 8.0)
    assert planned == [(101.0, "canary"), (103.0, "stable"), (105.0, "canary"), (107.0, "stable")]
    health = serve()
    sent = probes.send_all(asked(health, count=3, slots=["canary", "stable"]), time.monotonic(), 0.1)
    three = {"sent": 3, "failed": 0, "client_errors": 0}
    assert sent == {"sent": 6, "failed": 0, "client_errors": 0, "by_slot": {"canary": three, "stable": three}}
    words = [headers.get("X-SwiftDeploy-Slot") for headers in health.headers]
    assert sorted(words, key=str) == ["canary"] * 3 + ["stable"] * 3
    assert {headers["X-SwiftDeploy-Probe"] for headers in health.headers} == {"run-7"}


@pytest.mark.parametrize("slots", [{}, {"slots": []}])
def test_without_slots_a_probe_names_none(serve: Callable[[], Health], slots: dict[str, Any]) -> None:
    health = serve()
    five = {"sent": 5, "failed": 0, "client_errors": 0}
    assert probes.send_all(asked(health, **slots), time.monotonic(), 0.1) == {**five, "by_slot": {"": five}}
    assert all("X-SwiftDeploy-Slot" not in headers for headers in health.headers)
