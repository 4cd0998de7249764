"""What a slot tells of its requests in flight, and what is not taken for a number of them."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from swiftdeploy_target import inflight

METRIC = "http_requests_in_progress"
TYPE = f"# TYPE {METRIC} gauge\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{TYPE}{METRIC} 3.0\n", 3),
        (f"{METRIC} 0\n", 0),
        (f"{METRIC}{{}} 2\n", 2),
        # The sum over labels, whatever they hold.
        (f'{TYPE}{METRIC}{{path="/a"}} 1\n{METRIC}{{path="/b",method="GET",}} 2\n', 3),
        (f'{METRIC}{{path="/{{id}} 7"}} 1\n{METRIC}{{path="a\\"}} 9\\\\"}}4\n', 5),
        (f'{METRIC}{{ "http.route" = "/" , b="" }}\t1 1395066363000\n', 1),
        # Workers of one gauge: one inherits what another began.
        (f'{METRIC}{{pid="1"}} -1\n{METRIC}{{pid="2"}} 3\n', 2),
        (f"{METRIC} 1.2e1\n", 12),
        (f"{METRIC} +5 1.7e9  \n", 5),
        # OpenMetrics, and families that only look alike.
        (f"# HELP {METRIC} {METRIC} 9\n{TYPE}{METRIC} 2\n# EOF\n", 2),
        (f"{METRIC}_created 1.7e9\n{METRIC}2 8\nmy_{METRIC} 9\n{METRIC} 1\n", 1),
        (f"# TYPE {METRIC} unknown\n{METRIC} 4", 4),
        # Declared and without samples: none was ever begun.
        (TYPE, 0),
        # Not told.
        ("", None),
        ("up 1\n", None),
        ("<html><body>0</body></html>\n", None),
        (f"{METRIC} NaN\n", None),
        (f"{METRIC} 1\n{METRIC} NaN\n", None),
        (f"{METRIC} +Inf\n", None),
        (f"{METRIC} 1e999\n", None),
        (f"{METRIC} 0.5\n", None),
        (f"{METRIC} -1\n", None),
        (f"{METRIC} 0x10\n", None),
        (f"{METRIC} 1_0\n", None),
        (f"{METRIC} \n", None),
        (f"{METRIC} 1 2 3\n", None),
        (f"{METRIC} 0\r\n", None),
        (f'{METRIC}{{path="/}} 0\n', None),
        (f'{METRIC}{{path="/"x="y"}} 0\n', None),
        (f"{METRIC}{{path=/}} 0\n", None),
        (f"{METRIC} ٣\n", None),
        (f"# TYPE {METRIC} counter\n{METRIC} 0\n", None),
        # Endless to a grammar that tries every way to divide the blanks.
        (f'{METRIC}{{a="b"{" " * 400_000}\n', None),
        (f'{METRIC}{{a="b",{" " * 400_000}\n', None),
        (f"{METRIC}{' ' * 400_000}\n", None),
        (f"{METRIC} 1{' ' * 400_000}x\n", None),
        (f"#{' ' * 400_000}TYPE\n{METRIC} 1\n", 1),
    ],
)
def test_only_a_number_of_requests_is_told(text: str, told: int | None) -> None:
    assert inflight.read_gauge(text, METRIC) == told


def test_a_line_made_to_be_slow_is_read_at_once() -> None:
    started = time.monotonic()
    assert inflight.read_gauge(METRIC + "{" + 'a="' + "\\" * 200_000 + " " * 200_000 + "\n", METRIC) is None
    assert inflight.read_gauge(METRIC + "{" + 'a="" , ' * 100_000 + "\n", METRIC) is None
    assert time.monotonic() - started < 2


class Slot(http.server.ThreadingHTTPServer):
    """Answers each question with the next page, the last one for good. A page is (status, headers, body) or a wait."""

    pages: list[Any]
    asked = 0


class Answers(http.server.BaseHTTPRequestHandler):
    server: Slot

    def do_GET(self) -> None:
        page = self.server.pages[min(self.server.asked, len(self.server.pages) - 1)]
        self.server.asked += 1
        if isinstance(page, threading.Event):
            page.wait(20)
            return
        status, headers, body = page
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Nothing."""


Serve = Callable[..., tuple[Slot, str]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[Slot] = []

    def start(*pages: Any) -> tuple[Slot, str]:
        slot = Slot(("127.0.0.1", 0), Answers)
        slot.daemon_threads = True
        slot.pages = list(pages)
        threading.Thread(target=slot.serve_forever, args=(0.02,), daemon=True).start()
        running.append(slot)
        return slot, f"127.0.0.1:{slot.server_address[1]}"

    yield start
    for slot in running:
        for page in slot.pages:
            if isinstance(page, threading.Event):
                page.set()
        slot.shutdown()
        slot.server_close()


def page(body: str, kind: str = "text/plain; version=0.0.4", status: int = 200) -> tuple[int, dict[str, str], bytes]:
    data = body.encode()
    return status, {"Content-Type": kind, "Content-Length": str(len(data))}, data


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (page(f"{METRIC} 2\n"), 2),
        (page(f"{METRIC} 2\n# EOF\n", "application/openmetrics-text; version=1.0.0; charset=utf-8"), 2),
        ((200, {}, f"{METRIC} 2\n".encode()), 2),
        # A 10 whose end is lost.
        ((200, {}, f"{METRIC} 1".encode()), None),
        ((200, {"Content-Length": "99"}, f"{METRIC} 1\n".encode()), None),
        (page(f"{METRIC} 0\n", "text/html"), None),
        (page(f"{METRIC} 0\n", status=503), None),
        ((200, {"Content-Length": "3"}, b"\xff\xfe\n"), None),
        ((302, {"Location": "/metrics", "Content-Length": "0"}, b""), None),
        ((200, {}, f"{METRIC} 0\n".encode() + b"# \n" * 2_000_000), None),
    ],
)
def test_what_is_no_page_of_metrics_tells_nothing(serve: Serve, answer: Any, told: int | None) -> None:
    _, address = serve(answer)
    assert inflight.in_progress(address, "/metrics", METRIC, 10.0) == told


def test_a_slot_that_is_gone_or_hangs_tells_nothing_in_bounded_time(serve: Serve) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{probe.getsockname()[1]}"
        assert inflight.in_progress(nobody, "/metrics") is None
    _, hanging = serve(threading.Event())
    started = time.monotonic()
    assert inflight.in_progress(hanging, "/metrics", METRIC, 0.3) is None
    assert inflight.wait_idle(hanging, "/metrics", METRIC, time.monotonic() + 0.3) == {"idle": None, "left": None}
    assert time.monotonic() - started < 2


def test_waiting_ends_when_the_last_request_has(serve: Serve) -> None:
    slot, address = serve(page(f"{METRIC} 2\n"), page(f"{METRIC} 1\n"), page(f"{METRIC} 0\n"))
    assert inflight.wait_idle(address, "/metrics", METRIC, time.monotonic() + 20) == {"idle": True, "left": 0}
    assert slot.asked == 3


def test_waiting_ends_at_the_deadline_with_what_is_left(serve: Serve) -> None:
    _, address = serve(page(f"{METRIC} 2\n"))
    started = time.monotonic()
    assert inflight.wait_idle(address, "/metrics", METRIC, started + 0.3) == {"idle": False, "left": 2}
    assert time.monotonic() - started < 1


def test_a_deadline_that_is_over_still_gets_one_answer(serve: Serve) -> None:
    _, address = serve(page(f"{METRIC} 0\n"))
    late = time.monotonic() - 1
    assert inflight.wait_idle(address, "/metrics", METRIC, late, pause=1.0) == {"idle": True, "left": 0}


def test_a_slot_too_busy_to_answer_is_not_idle(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflight, "QUESTION", 0.2)
    _, address = serve(page(f"{METRIC} 2\n"), threading.Event())
    assert inflight.wait_idle(address, "/metrics", METRIC, time.monotonic() + 0.6) == {"idle": False, "left": 2}
    slot, address = serve(page(f"{METRIC} 2\n"), threading.Event(), page(f"{METRIC} 0\n"))
    assert inflight.wait_idle(address, "/metrics", METRIC, time.monotonic() + 20) == {"idle": True, "left": 0}
    assert slot.asked == 3


@pytest.mark.parametrize("body", ["up 1\n", f"{METRIC} NaN\n"])
def test_a_slot_that_does_not_tell_is_not_waited_for(serve: Serve, body: str) -> None:
    slot, address = serve(page(body))
    assert inflight.wait_idle(address, "/metrics", METRIC, time.monotonic() + 20) == {"idle": None, "left": None}
    assert slot.asked == 1
