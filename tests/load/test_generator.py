"""The load generator counts what really happened: a false pass would begin here."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from load.stack import SUPPORT, Generator
from support.load import cut_early, percentile
from support.workspace import free_port, wait_until

PLAIN = ("--watch", "")


def listens(port: int) -> bool:
    """Whether something accepts connections on ``port``."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def service() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The traffic service as it is, without a proxy: its address and its process."""
    port = free_port()
    environment = {**os.environ, "PORT": str(port), "APP_VERSION": "7", "MODE": "canary"}
    process = subprocess.Popen([sys.executable, str(SUPPORT / "services" / "traffic.py")], env=environment)
    wait_until(lambda: listens(port), "the service to listen")
    yield f"http://127.0.0.1:{port}", process
    process.kill()
    process.wait()


@contextmanager
def canned(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]) -> Iterator[str]:
    """A server whose every connection is handled by ``answer``, a coroutine function."""
    loop = asyncio.new_event_loop()
    port = free_port()
    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", port))  # type: ignore[arg-type]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_a_service_that_loses_nothing(service: tuple[str, subprocess.Popen[bytes]], tmp_path: Path) -> None:
    url, _process = service
    with Generator(url, tmp_path, 5, *PLAIN) as generator:
        generator.process.wait(timeout=30)
        result = generator.finish()
    assert result["failed"] == 0, result["failures"]
    assert result["schedule"]["planned"] == result["sent"] == 1000
    assert result["schedule"]["kept"]
    # A generator that needs a core of its own would take it from what is measured.
    assert result["schedule"]["cpu_share"] < 0.5
    assert set(result["kinds"]) == {
        *("keepalive", "keepalive_idle", "new_connection", "post", "post_chunked", "slow", "stream", "long_poll"),
        *("websocket", "websocket_short"),
    }
    assert all(counts["answered"] == counts["sent"] for counts in result["kinds"].values())
    assert {label for second in result["seconds"] for label in second["versions"]} == {"7 canary"}


def test_a_service_that_ends_under_load(service: tuple[str, subprocess.Popen[bytes]], tmp_path: Path) -> None:
    url, process = service
    with Generator(url, tmp_path, 60, *PLAIN) as generator:
        process.send_signal(signal.SIGTERM)
        # It ends gracefully: what is in flight is finished, new connections are refused.
        assert process.wait(timeout=30) == 0
        result = generator.finish()
    what = {word for counts in result["kinds"].values() for word in counts["what"]}
    assert "refused" in what
    assert "cut" not in what
    assert result["failed"] == sum(counts["failed"] for counts in result["kinds"].values()) > 0


def test_a_lost_connection_is_not_tried_again(tmp_path: Path) -> None:
    """A kept connection that is closed under the second request is a lost request."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"Upgrade" not in await reader.readuntil(b"\r\n\r\n"):
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"version":')
            await writer.drain()
            await reader.read(1)
        writer.close()

    with canned(once) as url, Generator(url, tmp_path, 3, *PLAIN) as generator:
        generator.process.wait(timeout=60)
        result = generator.finish()
    first, again = result["kinds"]["keepalive"]["answered"], result["kinds"]["keepalive"]["what"]
    assert first > 40
    assert set(again) <= {"closed", "reset"}
    assert result["kinds"]["keepalive"]["failed"] > 40
    assert result["kinds"]["new_connection"]["failed"] == 0
    # Counted apart: such a connection was idle for longer than any server promises.
    assert result["kinds"]["keepalive_idle"]["failed"] == 0


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "status"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ntoo short", "cut"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "cut"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnone", "wrong"),
        (b"", "closed"),
    ],
)
def test_a_bad_answer_is_counted_as_what_it_is(answer: bytes, what: str, tmp_path: Path) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    with canned(handle) as url, Generator(url, tmp_path, 1, *PLAIN) as generator:
        generator.process.wait(timeout=60)
        result = generator.finish()
    counts = result["kinds"]["new_connection"]
    assert counts["failed"] == counts["sent"] > 0
    assert set(counts["what"]) == {what}
    assert counts["texts"]


def test_a_generator_that_falls_behind_says_so(service: tuple[str, subprocess.Popen[bytes]], tmp_path: Path) -> None:
    url, _process = service
    with Generator(url, tmp_path, 2, *PLAIN, "--rate", "20000") as generator:
        generator.process.wait(timeout=120)
        result = generator.finish()
    assert not result["schedule"]["kept"]
    assert result["schedule"]["in_flight_max"] <= 1000


def test_load_stays_on_this_machine(tmp_path: Path) -> None:
    words = [sys.executable, str(SUPPORT / "load.py"), "http://192.0.2.1:80", "--output", str(tmp_path / "none")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "http://192.0.2.1:80 is no loopback address" in done.stderr


def test_a_websocket_is_cut_when_it_ends_within_the_drain() -> None:
    in_order = {"opened": 10.0, "ended": 25.0}
    early = {"opened": 10.0, "ended": 23.0}
    opened_later = {"opened": 22.0, "ended": 26.0}
    assert cut_early([in_order, early, opened_later], [5.0, 20.0], drain=5.0) == [early, opened_later]
    assert cut_early([in_order], [], drain=5.0) == [in_order]


def test_percentiles() -> None:
    ordered = [float(value) for value in range(1, 101)]
    assert [percentile(ordered, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([], 0.99) == 0.0
