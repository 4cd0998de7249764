"""Constant load on a service of ``services/traffic.py``, and an exact account of what became of every request.

    python tests/support/load.py http://127.0.0.1:8080 --output FILE [--seconds 600] [--rate 200] [--drain 5]

An open model: every request is sent at its planned moment, whether or not earlier ones were answered. Nothing is ever
sent a second time. It ends after its time or on SIGTERM, having waited for what is in flight, and writes one JSON
object (see ``Account.result``). It prints one line when it starts. It talks to loopback addresses and to the network of
the hosts that a test has made (``--network``, see hosts.py) alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import hashlib
import ipaddress
import itertools
import json
import math
import os
import random
import resource
import signal
import sys
import time
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

if __package__:
    from .services.traffic import stream_body
else:
    sys.path.insert(0, str(Path(__file__).parent / "services"))
    from traffic import stream_body  # type: ignore[import-not-found,no-redef]

LATE_SECONDS = 0.5
# A generator that sends more of its requests late than this has not made the load it was asked for.
LATE_SHARE = 0.01
CPU_SHARE = 0.9
REQUEST_TIMEOUT = 15.0
CONNECT_TIMEOUT = 5.0
# How long requests in flight may take once no more are sent.
FINISH_SECONDS = 20.0
WATCH_INTERVAL = 0.1
LAST_WORD = "end"
# A client that never repeats a request must drop a connection before the server may close it: nginx keeps one that
# answered at least 1 s (keepalive_min_timeout), and what is sent needs time to get there.
KEEP_SECONDS = 0.6
# The kind whose client keeps connections for longer than that, and what it then meets now and then.
IDLE = "keepalive_idle"
RACES = ("closed", "reset")
TEXTS = 5
KEPT_FAILURES = 5000
# What a WebSocket may lose of its drain time: when a reload happened is known to one poll, and timers have seconds.
DRAIN_SLACK = 0.5


class WrongAnswerError(Exception):
    """An answer came, but not the right one: ``what`` went wrong, and the text to show."""

    def __init__(self, what: str, text: str) -> None:
        super().__init__(text)
        self.what = what


class ClosedEarlyError(Exception):
    """The other side ended a WebSocket before its planned end."""


def what_failed(error: BaseException) -> str:
    """One word for an error: refused, reset, closed (before any answer), cut (within it), status, wrong, ..."""
    if isinstance(error, WrongAnswerError):
        return error.what
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, asyncio.CancelledError):
        return "unfinished"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "cut"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "closed"
    if isinstance(error, OSError) and error.errno == errno.ECONNREFUSED:
        return "refused"
    if isinstance(error, OSError) and error.errno in (errno.ECONNRESET, errno.EPIPE):
        return "reset"
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return "status"
    return "other"


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of ``ordered`` that at least ``share`` (0..1) of all do not exceed; 0 of nothing."""
    return ordered[math.ceil(len(ordered) * share) - 1] if ordered else 0.0


def cut_early(ends: Sequence[Mapping[str, float]], reloads: Sequence[float], drain: float) -> list[Mapping[str, float]]:
    """Those of ``ends`` that were cut within their drain time.

    ``ends``: {"opened", "ended"} of WebSockets that the other side ended; ``reloads``: when the configuration was seen
    to change; all in the same seconds. In order is an end ``drain`` seconds after a reload that the WebSocket saw.
    """
    return [
        end
        for end in ends
        if not any(end["opened"] - DRAIN_SLACK <= at <= end["ended"] - drain + DRAIN_SLACK for at in reloads)
    ]


class Second:
    """What happened in one second."""

    def __init__(self) -> None:
        self.sent = 0
        self.failed = 0
        self.late_max = 0.0
        self.latency_max = 0.0
        self.versions: Counter[str] = Counter()


class Account:
    """Everything that is counted. Times are Unix seconds, durations are seconds, latencies milliseconds."""

    def __init__(self, drain: float) -> None:
        self.drain = drain
        self.started = time.time()
        self._clock = time.monotonic()
        self.by_kind: dict[str, Counter[str]] = defaultdict(Counter)
        self.failures: list[dict[str, Any]] = []
        self.latencies: dict[str, list[float]] = defaultdict(list)
        self.late: list[float] = []
        self.seconds: dict[int, Second] = defaultdict(Second)
        self.ends: list[dict[str, float]] = []
        self.reloads: list[dict[str, Any]] = []
        self.in_flight_max = 0

    def now(self) -> float:
        """Unix seconds that never jump."""
        return self.started + time.monotonic() - self._clock

    def second(self) -> Second:
        """The current one."""
        return self.seconds[int(self.now() - self.started)]

    def sent(self, kind: str, late: float) -> None:
        """A request is sent, ``late`` seconds after its planned moment."""
        self.by_kind[kind]["sent"] += 1
        self.late.append(late)
        second = self.second()
        second.sent += 1
        second.late_max = max(second.late_max, late)

    def answered(self, kind: str, latency: float) -> None:
        """A request was answered rightly, ``latency`` seconds later than the best possible."""
        self.by_kind[kind]["answered"] += 1
        self.latencies[kind].append(latency)
        second = self.second()
        second.latency_max = max(second.latency_max, latency)

    def failed(self, kind: str, sent: float, error: BaseException) -> None:
        """A request that was sent at Unix time ``sent`` did not get its answer."""
        what = what_failed(error)
        if kind == IDLE and what in RACES:
            self.by_kind[kind]["raced"] += 1
            return
        self.by_kind[kind]["failed"] += 1
        self.second().failed += 1
        if len(self.failures) < KEPT_FAILURES:
            text = f"{type(error).__name__}: {error}"[:200]
            self.failures.append({"sent": sent, "at": self.now(), "kind": kind, "what": what, "text": text})

    def version(self, headers: Mapping[str, str]) -> None:
        """An answer with ``headers`` came."""
        self.second().versions[f"{headers.get('X-Version', '?')} {headers.get('X-Mode', 'stable')}"] += 1

    def result(self, planned: int) -> dict[str, Any]:
        """The whole account.

        ``failed`` counts all failures; ``failures`` has {"sent", "at", "kind", "what", "text"} of each (the first
        5000); ``kinds`` {kind: {"sent", "answered", "failed", "what": {word: count}, "texts": [first few]}}.
        ``latency`` {"p50_ms", "p99_ms", "max_ms", "over_1s"} and so for each kind; it counts from the planned moment
        to the last byte, less the time that the request asked the service to take. ``schedule`` says whether the load
        was really made. ``seconds`` is what happened over time, with the versions that answered. ``reloads`` are the
        moments at which the watched page was seen to change. ``idle_races`` counts requests on a connection that had
        been idle for seconds and was just being closed, which no server can prevent; they are not in ``failed``.
        ``websockets`` {"completed", "closed" by the other side after the drain time, "cut" within it}.
        """
        used = resource.getrusage(resource.RUSAGE_SELF)
        elapsed = self.now() - self.started
        self.late.sort()
        late = sum(1 for value in self.late if value > LATE_SECONDS)
        cpu = (used.ru_utime + used.ru_stime) / elapsed
        sent = sum(counts["sent"] for counts in self.by_kind.values())
        cuts = cut_early(self.ends, [change["at"] for change in self.reloads], self.drain)
        kinds = {}
        for kind, counts in sorted(self.by_kind.items()):
            mine = [failure for failure in self.failures if failure["kind"] == kind]
            kinds[kind] = {
                **{word: counts[word] for word in ("sent", "answered", "failed")},
                "what": dict(Counter(failure["what"] for failure in mine)),
                "texts": list(dict.fromkeys(failure["text"] for failure in mine))[:TEXTS],
                "latency": summary(self.latencies[kind]),
            }
        return {
            "started": self.started,
            "elapsed_s": round(elapsed, 3),
            "sent": sent,
            "failed": sum(counts["failed"] for counts in self.by_kind.values()),
            "kinds": kinds,
            "failures": self.failures,
            "latency": summary([value for values in self.latencies.values() for value in values]),
            "schedule": {
                "planned": planned,
                "sent": sent,
                "late": late,
                "late_p99_ms": round(percentile(self.late, 0.99) * 1000, 1),
                "late_max_ms": round(percentile(self.late, 1.0) * 1000, 1),
                "cpu_share": round(cpu, 3),
                "in_flight_max": self.in_flight_max,
                "kept": sent >= planned and late <= LATE_SHARE * planned and cpu < CPU_SHARE,
            },
            "websockets": {
                "completed": self.by_kind["websocket"]["answered"] + self.by_kind["websocket_short"]["answered"],
                "closed": len(self.ends) - len(cuts),
                "cut": len(cuts),
                "cuts": cuts,
            },
            "idle_races": self.by_kind[IDLE]["raced"],
            "reloads": self.reloads,
            "seconds": [
                {
                    "t": second,
                    "sent": seen.sent,
                    "failed": seen.failed,
                    "late_max_ms": round(seen.late_max * 1000, 1),
                    "latency_max_ms": round(seen.latency_max * 1000, 1),
                    "versions": dict(seen.versions),
                }
                for second, seen in sorted(self.seconds.items())
            ],
        }


def summary(latencies: Sequence[float]) -> dict[str, float]:
    """P50, P99 and the largest in milliseconds, and how many are above a second."""
    ordered = sorted(latencies)
    return {
        "count": len(ordered),
        "p50_ms": round(percentile(ordered, 0.5) * 1000, 1),
        "p99_ms": round(percentile(ordered, 0.99) * 1000, 1),
        "max_ms": round(percentile(ordered, 1.0) * 1000, 1),
        "over_1s": sum(1 for value in ordered if value > 1),
    }


class Clients:
    """Clients that take turns; each has connections of its own, kept for ``keep`` idle seconds."""

    def __init__(self, count: int, *, keep: float) -> None:
        self.sessions = [session(keep) for _ in range(count)]
        self._turn = 0

    def next(self) -> aiohttp.ClientSession:
        """The client whose turn it is."""
        self._turn = (self._turn + 1) % len(self.sessions)
        return self.sessions[self._turn]


def session(keep: float) -> aiohttp.ClientSession:
    """A client that sends every request once, on a connection idle for ``keep`` seconds at most or on a new one."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=keep) if keep else None
    made = aiohttp.ClientSession(
        connector=connector or aiohttp.TCPConnector(limit=0, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=CONNECT_TIMEOUT),
    )
    # aiohttp repeats an idempotent request on its own when a kept connection was lost; that would hide the loss.
    # There is no public option for it; its own test client does the same.
    if not hasattr(made, "_retry_connection"):
        raise RuntimeError("this aiohttp has no _retry_connection: find out how its retry is turned off")
    made._retry_connection = False
    return made


class Kind(NamedTuple):
    """A kind of request: its share of all, and what sends one and answers the seconds it asked the service to take."""

    share: float
    send: Callable[[], Awaitable[float]]


def header_in(path: str | None) -> dict[str, str]:
    """The header in a file, none where there is no file."""
    return dict([Path(path).read_text().strip().split(": ", 1)]) if path else {}


class Load:
    """The generator for one base URL."""

    def __init__(self, url: str, account: Account, stop: asyncio.Event, seed: int) -> None:
        self.url = url
        self.account = account
        self.stop = stop
        self.chance = random.Random(seed)
        self.fast = Clients(40, keep=KEEP_SECONDS)
        # One request in about three seconds each: longer than nginx surely keeps an idle connection after a reload.
        self.idle = Clients(18, keep=15.0)
        self.posting = Clients(14, keep=KEEP_SECONDS)
        self.waiting = Clients(1, keep=KEEP_SECONDS)
        self.once = Clients(1, keep=0.0)
        self.body = random.Random(0).randbytes(64 * 1024)
        self.kinds: dict[str, Kind] = {
            "keepalive": Kind(38.0, lambda: self.root(self.fast)),
            IDLE: Kind(3.0, lambda: self.root(self.idle)),
            "new_connection": Kind(32.0, lambda: self.root(self.once)),
            "post": Kind(7.0, lambda: self.post(chunked=False)),
            "post_chunked": Kind(7.0, lambda: self.post(chunked=True)),
            "slow": Kind(5.0, self.slow),
            "stream": Kind(6.5, self.stream),
            "long_poll": Kind(0.9, self.poll),
            "websocket": Kind(0.15, lambda: self.websocket(20.0)),
            "websocket_short": Kind(0.45, lambda: self.websocket(2.0)),
        }

    async def close(self) -> None:
        """Close all connections."""
        for clients in (self.fast, self.idle, self.posting, self.waiting, self.once):
            for one in clients.sessions:
                await one.close()

    async def fetch(self, client: aiohttp.ClientSession, method: str, path: str, data: Any = None) -> bytes:
        """The whole body of an answer of 200. Raises what went wrong."""
        async with client.request(method, self.url + path, data=data, allow_redirects=False) as answer:
            body = await answer.read()
            if answer.status != 200:
                raise WrongAnswerError("status", f"HTTP {answer.status} {body[:80]!r}")
            self.account.version(answer.headers)
            return body

    async def root(self, clients: Clients) -> float:
        body = await self.fetch(clients.next(), "GET", "/")
        if b'"version"' not in body:
            raise WrongAnswerError("wrong", f"{body[:80]!r}")
        return 0.0

    async def post(self, *, chunked: bool) -> float:
        size = self.chance.randrange(1, len(self.body))
        sent = self.body[-size:]

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, size, 16 * 1024):
                yield sent[start : start + 16 * 1024]

        body = await self.fetch(self.posting.next(), "POST", "/echo", pieces() if chunked else sent)
        if hashlib.sha256(body).digest() != hashlib.sha256(sent).digest():
            raise WrongAnswerError("wrong", f"sent {size} bytes, got {len(body)} others back")
        return 0.0

    async def slow(self) -> float:
        seconds = self.chance.uniform(1.0, 2.0)
        await self.fetch(self.waiting.next(), "GET", f"/slow?seconds={seconds}")
        return seconds

    async def poll(self) -> float:
        await self.fetch(self.waiting.next(), "GET", "/poll?seconds=3")
        return 3.0

    async def stream(self) -> float:
        chunks = self.chance.randrange(5, 20)
        body = await self.fetch(self.waiting.next(), "GET", f"/stream?chunks={chunks}&seconds=1")
        if body != b"".join(stream_body(chunks)):
            raise WrongAnswerError("cut", f"{len(body)} bytes that end in {body[-20:]!r}")
        return 1.0

    async def websocket(self, life: float) -> float:
        """Ask and be answered twice a second for ``life`` seconds, then close. Raises ClosedEarlyError."""
        began = time.monotonic()
        async with self.once.next().ws_connect(self.url + "/ws") as connection:
            asking = asyncio.create_task(self.ask(connection, began + life))
            try:
                number = 0
                while True:
                    # Always listening, so that an end is noted at its moment.
                    message = await connection.receive(timeout=CONNECT_TIMEOUT)
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        raise ClosedEarlyError(f"{message.type.name} {connection.close_code}")
                    if message.data == LAST_WORD:
                        return time.monotonic() - began
                    number += 1
                    if message.data != str(number):
                        raise WrongAnswerError("wrong", f"sent {number}, got {message.data!r}")
            except (aiohttp.ClientError, ConnectionError) as error:
                raise ClosedEarlyError from error
            finally:
                asking.cancel()

    async def ask(self, connection: aiohttp.ClientWebSocketResponse, until: float) -> None:
        """Send numbers, and at monotonic ``until`` or when stopped the last word."""
        # The other side's end is seen by the one who listens.
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            for number in itertools.count(1):
                if time.monotonic() >= until or self.stop.is_set():
                    await connection.send_str(LAST_WORD)
                    return
                await connection.send_str(str(number))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stop.wait(), 0.5)

    async def one(self, name: str, planned: float) -> None:
        """Send one request of kind ``name`` whose planned moment is ``planned`` on the monotonic clock."""
        sent = self.account.now()
        self.account.sent(name, time.monotonic() - planned)
        try:
            asked = await self.kinds[name].send()
        except ClosedEarlyError:
            self.account.ends.append({"opened": sent, "ended": self.account.now()})
        except (WrongAnswerError, aiohttp.ClientError, OSError, asyncio.CancelledError) as error:
            self.account.failed(name, sent, error)
        else:
            self.account.answered(name, time.monotonic() - planned - asked)

    async def watch(self, path: str, headers: dict[str, str]) -> None:
        """Note each change of the page at ``path``, from a new connection each time."""
        seen = None
        while True:
            sent = self.account.now()
            try:
                async with self.once.next().get(self.url + path, headers=headers) as answer:
                    body = await answer.text()
                    if answer.status != 200:
                        raise WrongAnswerError("status", f"HTTP {answer.status}")
            except (WrongAnswerError, aiohttp.ClientError, OSError) as error:
                self.account.failed("watch", sent, error)
            else:
                if seen not in (None, body):
                    self.account.reloads.append({"at": sent, "text": body})
                seen = body
            await asyncio.sleep(WATCH_INTERVAL)

    async def run(self, rate: float, seconds: float, limit: int) -> int:
        """Send for ``seconds`` or until stopped; how many requests were planned until then."""
        names = list(self.kinds)
        weights = [self.kinds[name].share for name in names]
        tasks: set[asyncio.Task[None]] = set()
        began = time.monotonic()
        number = 0
        while not self.stop.is_set() and number < rate * seconds:
            planned = began + number / rate
            wait = planned - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            name = self.chance.choices(names, weights)[0]
            number += 1
            if len(tasks) >= limit:
                full = WrongAnswerError("not_sent", f"{limit} requests are in flight already")
                self.account.failed(name, self.account.now(), full)
                continue
            task = asyncio.create_task(self.one(name, planned))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            self.account.in_flight_max = max(self.account.in_flight_max, len(tasks))
            if wait <= 0:
                # Behind its schedule: let what is ready go on before the next one is sent.
                await asyncio.sleep(0)
        self.stop.set()
        if tasks:
            _done, unfinished = await asyncio.wait(tasks, timeout=FINISH_SECONDS)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished)
        return number


async def generate(options: argparse.Namespace) -> dict[str, Any]:
    """Run the load that ``options`` ask for; the account of it."""
    # Little work, but at exact moments: a busy machine must not make the load less.
    with contextlib.suppress(PermissionError):
        os.nice(-10)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    account = Account(options.drain)
    load = Load(options.url.rstrip("/"), account, stop, options.seed)
    watcher = asyncio.create_task(load.watch(options.watch, header_in(options.watch_header))) if options.watch else None
    sys.stdout.write(f"started {account.started}\n")
    sys.stdout.flush()
    try:
        planned = await load.run(options.rate, options.seconds, options.connections)
    finally:
        if watcher is not None:
            watcher.cancel()
        await load.close()
    return account.result(planned)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Ends the process with a message when it is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", help="for example http://127.0.0.1:8080")
    parser.add_argument("--output", required=True, type=Path, help="file that takes the result")
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second in all")
    parser.add_argument("--seconds", type=float, default=600.0, help="end after this time, SIGTERM apart")
    parser.add_argument("--connections", type=int, default=1000, help="requests that may be in flight")
    parser.add_argument("--drain", type=float, default=35.0, help="seconds a WebSocket may go on after a reload")
    parser.add_argument(
        "--watch-header", help="file with a header to ask for that page with, as curl -H @FILE takes it"
    )
    parser.add_argument("--watch", default="/_swiftdeploy/routing", help="page that changes with a reload; '' for none")
    parser.add_argument("--seed", type=int, default=1, help="of the mix")
    parser.add_argument("--network", type=ipaddress.ip_network, help="of a test's own hosts, a private /24 or smaller")
    options = parser.parse_args(words)
    host = urllib.parse.urlsplit(options.url).hostname or ""
    own = options.network
    if own is not None and (not own.is_private or own.num_addresses > 256):
        parser.error(f"{own} is no private network of at most 256 addresses")
    try:
        address = ipaddress.ip_address(host)
        allowed = address.is_loopback or (own is not None and address in own)
    except ValueError:
        allowed = False
    if not allowed:
        parser.error(f"{options.url} is no loopback address; load goes to this machine alone, as http://127.0.0.1:PORT")
    return options


def main() -> None:
    """Generate, and write the result whole."""
    options = parse()
    result = asyncio.run(generate(options))
    aside = options.output.with_suffix(".new")
    aside.write_text(json.dumps(result, indent=1) + "\n")
    aside.replace(options.output)


if __name__ == "__main__":
    main()
