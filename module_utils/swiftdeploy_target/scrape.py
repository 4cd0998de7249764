"""Fetching a page within a total time and size, and scraping many slots at once.

A timeout of a socket bounds one read only, so a server that drips a byte a second would hold a reader for
hours. Here one deadline covers connecting, sending and every read. Nothing is taken from the environment
(no proxies) and a redirect is an answer like any other, never followed.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List, NamedTuple, Optional
from urllib.parse import urlsplit

MAX_BODY = 32 * 1024 * 1024
BLOCK = 64 * 1024
# The classic text first: every service speaks it, and its parser forgives more.
ACCEPT = "text/plain;version=0.0.4;q=1.0,application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3,*/*;q=0.1"


class FetchError(Exception):
    """There is no usable answer.

    ``cause`` is one word for programs: bad_url, refused, timeout, unreachable, bad_answer, incomplete,
    too_large, http_status or not_prometheus. ``detail`` says the same to a person.
    """

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail


class Answer(NamedTuple):
    """An HTTP answer: status code, headers with lower-case names, body with its content encoding undone."""

    status: int
    headers: Dict[str, str]
    body: bytes


class _BoundedReader(io.RawIOBase):
    """Reads of a socket that all end at one deadline (seconds of the monotonic clock)."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._deadline))
        return self._sock.recv_into(buffer)


class _BoundedSocket:
    """The part of a socket that http.client uses. Whoever made the real socket closes it."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: Any) -> None:
        self._sock.settimeout(_left(self._deadline))
        self._sock.sendall(data)

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(_BoundedReader(self._sock, self._deadline))

    def close(self) -> None:
        """Nothing: http.client closes early, while its response is still to be read."""


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    """A connected socket. Tries each address of ``host``; raises OSError of the last one."""
    problem: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left(deadline))
            sock.connect(address)
        except OSError as error:
            sock.close()
            problem = error
        else:
            return sock
    raise problem


def _secure(sock: socket.socket, name: str, deadline: float) -> ssl.SSLSocket:
    # The page is this host's own, its certificate names the public host, and nothing secret is sent.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    sock.settimeout(_left(deadline))
    return context.wrap_socket(sock, server_hostname=name)


def _read_all(response: http.client.HTTPResponse, limit: int) -> bytes:
    """The body as it was sent. Raises FetchError when it is longer than ``limit`` or was cut short."""
    blocks: List[bytes] = []
    size = 0
    while True:
        block = response.read(BLOCK)
        if not block:
            break
        size += len(block)
        if size > limit:
            raise FetchError("too_large", f"the answer is larger than {limit} bytes")
        blocks.append(block)
    if response.length:  # read() does not say so by itself
        raise FetchError("incomplete", f"the answer ended {response.length} bytes early")
    return b"".join(blocks)


def gunzip(data: bytes, limit: int) -> bytes:
    """Undo gzip (also of several members). Never makes more than ``limit`` bytes; raises FetchError."""
    out: List[bytes] = []
    size = 0
    try:
        while data:
            member = zlib.decompressobj(31)
            block = member.decompress(data, limit - size + 1)
            size += len(block)
            if size > limit:
                raise FetchError("too_large", f"the answer unpacks to more than {limit} bytes")
            if not member.eof:
                raise FetchError("incomplete", "the gzip data of the answer end early")
            out.append(block)
            data = member.unused_data
    except zlib.error as error:
        raise FetchError("bad_answer", f"the answer says gzip but is not: {error}") from None
    return b"".join(out)


def _decoded(body: bytes, headers: Dict[str, str], limit: int) -> bytes:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding in ("gzip", "x-gzip"):
        return gunzip(body, limit)
    raise FetchError("bad_answer", f"the answer is encoded as {encoding[:40]!r}, which was not asked for")


def fetch(url: str, timeout: float, headers: Optional[Dict[str, str]] = None, limit: int = MAX_BODY) -> Answer:
    """GET ``url`` within ``timeout`` seconds in all. Raises FetchError, nothing else."""
    deadline = time.monotonic() + timeout
    sock: Optional[socket.socket] = None
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FetchError("bad_url", f"{url} is not an http or https address")
        sent = {"Connection": "close", "Accept-Encoding": "gzip", **(headers or {})}
        sock = _connect(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80), deadline)
        if parts.scheme == "https":
            sock = _secure(sock, sent.get("Host", parts.hostname).rsplit(":", 1)[0], deadline)
        connection = http.client.HTTPConnection(parts.hostname, parts.port)
        connection.sock = _BoundedSocket(sock, deadline)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers=sent)
        response = connection.getresponse()
        body = _read_all(response, limit)
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, _decoded(body, named, limit))
    except (socket.timeout, TimeoutError):  # one and the same since Python 3.10
        raise FetchError("timeout", f"no complete answer from {url} within {timeout:g} s") from None
    except ConnectionRefusedError:
        raise FetchError("refused", f"nothing listens at {url}") from None
    except http.client.IncompleteRead:
        raise FetchError("incomplete", f"the answer of {url} ended early") from None
    except http.client.HTTPException as error:
        said = f"{type(error).__name__} {error}".strip()[:200]
        raise FetchError("bad_answer", f"{url} does not answer in HTTP: {said}") from None
    except OSError as error:
        raise FetchError("unreachable", f"no answer from {url}: {error}") from None
    except ValueError as error:  # also a host name that cannot be encoded
        raise FetchError("bad_url", f"{url} cannot be asked: {error}") from None
    finally:
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()


def scrape(slot: str, url: str, timeout: float, clock: Callable[[], float]) -> Dict[str, Any]:
    """One sample of a slot's metrics.

    ``clock`` answers unix seconds. {"slot", "at", "body", "content_type"}, where ``at`` is the moment of
    asking, or {"slot", "at", "cause", "detail"} when there is nothing to read.
    """
    at = clock()
    try:
        answer = fetch(url, timeout, {"Accept": ACCEPT, "User-Agent": "swiftdeploy"})
        if answer.status != 200:
            raise FetchError("http_status", f"{url} answers {answer.status}, expected 200")
        framed = "content-length" in answer.headers or "transfer-encoding" in answer.headers
        if not framed and answer.body and not answer.body.endswith(b"\n"):
            # Ended by closing alone: a cut number would still be a number.
            raise FetchError("incomplete", f"the answer of {url} ends in the middle of a line")
        body = answer.body.decode("utf-8")
    except UnicodeDecodeError:
        return {"slot": slot, "at": at, "cause": "not_prometheus", "detail": f"{url} answers no UTF-8 text"}
    except FetchError as problem:
        return {"slot": slot, "at": at, "cause": problem.cause, "detail": problem.detail}
    return {"slot": slot, "at": at, "body": body, "content_type": answer.headers.get("content-type", "")}


def scrape_all(slots: List[Dict[str, Any]], timeout: float, clock: Callable[[], float]) -> List[Dict[str, Any]]:
    """A sample of each of ``slots`` ({"slot", "url"}), asked at the same time; in the order given."""
    with ThreadPoolExecutor(max_workers=max(1, len(slots))) as pool:
        return list(pool.map(lambda one: scrape(one["slot"], one["url"], timeout, clock), slots))
