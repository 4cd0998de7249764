"""The one HTTP client for questions to this host's own programs: health, metrics, OPA, nginx, probes.

A timeout of a socket bounds one read only, so a server that drips a byte a second would hold a reader for
hours. Here one deadline covers connecting, sending, every read and unpacking. Nothing is taken from the environment
(no proxies) and a redirect is an answer like any other, never followed.

A program is asked over TCP (``http://127.0.0.1:3000/healthz``) or over a Unix socket, whose path is the host of the
address (``http+unix://%2Fhome%2Fme%2Frun%2Fnginx.sock/metrics``, see ``unix_url``). Whoever answers must be ours. A
Unix socket lies in a folder that only its owner enters, and its listener runs as this user, or as the user of the
containers where this is root. A loopback port is served by this user or by root: a port of a program that is down is
anybody's to take.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import os
import queue
import socket
import ssl
import stat
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, NoReturn, Optional, Set, Tuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

MAX_BODY = 32 * 1024 * 1024
BLOCK = 64 * 1024
# What is unpacked at once. Small, since the rest of a block is copied for each gzip member that ends in it.
UNPACK_BLOCK = 4 * 1024
# A page is one member; some servers write one for each part of it.
MAX_MEMBERS = 1000
# Whom containers of root's stacks run as; the user owns nothing else.
CONTAINER_UID = 65532
UNIX_SCHEME = "http+unix"
_PEER = struct.Struct("3i")
_LISTENING = "0A"
_BUSY_PAUSE = 0.01


class FetchError(Exception):
    """There is no usable answer.

    ``cause`` is one word for programs: bad_url, refused, timeout, unreachable, not_ours, bad_answer, incomplete,
    too_large, http_status or not_prometheus. ``detail`` says the same to a person.
    """

    def __init__(self, cause: str, detail: str, said: str = "") -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail
        # The same without the address.
        self.said = said or detail


class NotOursError(OSError):
    """Somebody else has the socket or the port; the message says who and what to do."""


class Answer(NamedTuple):
    """An HTTP answer: status code, headers with lower-case names, body with its content encoding undone."""

    status: int
    headers: Dict[str, str]
    body: bytes


# --- addresses ------------------------------------------------------------------------------------


def unix_url(path: Path, target: str = "") -> str:
    """The address of ``target`` (a path, or empty for a base address) at the Unix socket ``path``."""
    return f"{UNIX_SCHEME}://{quote(str(path), safe='')}{target}"


def shown(url: str) -> str:
    """``url`` as a person is told it: a Unix socket by its path."""
    parts = urlsplit(url)
    if parts.scheme != UNIX_SCHEME:
        return url
    return f"{unquote(parts.netloc)}{' ' if parts.path else ''}{parts.path}"


# --- who answers ----------------------------------------------------------------------------------


def ours() -> Set[int]:
    """User ids that the programs of a stack of this user run as."""
    me = os.geteuid()
    return {0, CONTAINER_UID} if me == 0 else {me}


def connect_unix(path: Path, deadline: float) -> socket.socket:
    """A socket connected to ``path``, proven to be ours. Raises NotOursError, OSError; TimeoutError at ``deadline``.

    The folder is opened once and the socket reached through it, so that the folder that was judged is the one that is
    used. That also serves paths longer than the 107 bytes that the kernel takes.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _check_private(path.parent, folder)
        while True:
            sock.settimeout(_left(deadline))
            try:
                sock.connect(f"/proc/self/fd/{folder}/{path.name}")
                break
            except BlockingIOError:  # its queue is full
                time.sleep(min(_BUSY_PAUSE, _left(deadline)))
        _pid, uid, _gid = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid not in ours():
            raise NotOursError(f"the program that listens at {path} runs as user {uid}, not as this stack's user")
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock


def _check_private(path: Path, folder: int) -> None:
    """Raise NotOursError unless other users are kept out of ``folder`` (open, at ``path``), by it or one around it.

    Containers of root's stack run as another user, so what they write to is open, inside a folder that is not.
    """
    here = os.dup(folder)
    try:
        found = os.fstat(here)
        mode = stat.S_IMODE(found.st_mode)
        while True:
            if found.st_uid not in ours():
                break
            if not stat.S_IMODE(found.st_mode) & 0o077:
                return
            around = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = around
            above = os.fstat(here)
            if os.path.samestat(above, found):
                break
            found = above
    finally:
        os.close(here)
    owner = os.fstat(folder).st_uid
    if owner not in ours():
        raise NotOursError(f"{path} belongs to user {owner}, not to this stack's user: remove it and run again")
    raise NotOursError(f"{path} is open to other users (mode {mode:04o}): chmod 700 it or a folder around it")


def _check_loopback(sock: socket.socket) -> None:
    """Raise NotOursError where another user's program has taken this connection to a port of this host.

    The kernel says whose the other end is. One that is not in its table was led elsewhere by the packet filter, which
    is root's (Docker without its userland proxy).
    """
    here, there = sock.getsockname()[:2], sock.getpeername()[:2]
    if not ipaddress.ip_address(there[0].partition("%")[0]).is_loopback:
        return
    trusted = {0, os.geteuid()}
    listening: List[int] = []
    for local, remote, state, uid, inode in _tcp_table():
        if local[1] != there[1]:
            continue
        if state == _LISTENING:
            listening.append(uid)
        elif local == there and remote == here and inode:
            if uid not in trusted:
                raise _stranger(there[1], uid)
            return
    # Nobody has accepted it yet: it is still with whoever listens.
    for uid in listening:
        if uid not in trusted:
            raise _stranger(there[1], uid)


def _stranger(port: int, uid: int) -> NotOursError:
    return NotOursError(
        f"port {port} is served by a program of user {uid}, not of this stack's user: stop that program "
        "or change the port in the manifest"
    )


def _tcp_table() -> Iterator[Tuple[Tuple[str, int], Tuple[str, int], str, int, int]]:
    """Local and remote end, state, user id and inode of every TCP socket of this host (RFC: proc(5), /proc/net/tcp)."""
    for name in ("tcp", "tcp6"):
        try:
            text = Path(f"/proc/self/net/{name}").read_text()
        except FileNotFoundError:  # no IPv6
            continue
        for line in text.splitlines()[1:]:
            fields = line.split()
            yield _end(fields[1]), _end(fields[2]), fields[3], int(fields[7]), int(fields[9])


def _end(text: str) -> Tuple[str, int]:
    """An address and port of /proc/net/tcp: 32-bit words in the host's order. An IPv4 address in IPv6 is that one."""
    address, _, port = text.partition(":")
    words = [struct.pack("=I", int(address[at : at + 8], 16)) for at in range(0, len(address), 8)]
    found = ipaddress.ip_address(b"".join(words))
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found), int(port, 16)


# --- one exchange ---------------------------------------------------------------------------------


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


class BoundedSocket:
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


def _resolve(host: str, port: int, deadline: float) -> List[Any]:
    """As getaddrinfo, which knows no timeout: a name is looked up in a thread that is not waited for any longer."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host.partition("%")[0])
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    found: queue.Queue[Any] = queue.Queue()

    def look_up() -> None:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.put(error)

    threading.Thread(target=look_up, daemon=True).start()
    try:
        answer = found.get(timeout=_left(deadline))
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return list(answer)


def _connect_tcp(host: str, port: int, deadline: float) -> socket.socket:
    """A connected socket. Tries each address of ``host``; raises OSError of the last one, NotOursError."""
    problem: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in _resolve(host, port, deadline):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left(deadline))
            sock.connect(address)
            _check_loopback(sock)
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
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


def _connect(parts: SplitResult, name: str, deadline: float) -> socket.socket:
    if parts.scheme == UNIX_SCHEME:
        return connect_unix(Path(unquote(parts.netloc)), deadline)
    host = parts.hostname or ""
    sock = _connect_tcp(host, parts.port or (443 if parts.scheme == "https" else 80), deadline)
    if parts.scheme != "https":
        return sock
    try:
        return _secure(sock, name or host, deadline)
    except BaseException:
        sock.close()
        raise


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


def gunzip(data: bytes, limit: int, deadline: Optional[float] = None) -> bytes:
    """Undo gzip (also of several members) in linear time. Never makes more than ``limit`` bytes.

    Raises FetchError; TimeoutError at ``deadline`` (seconds of the monotonic clock).
    """
    out: List[bytes] = []
    size, members, at = 0, 0, 0
    member, rest = None, b""
    try:
        while rest or at < len(data):
            if deadline is not None:
                _left(deadline)
            if not rest:
                rest, at = data[at : at + UNPACK_BLOCK], at + UNPACK_BLOCK
            if member is None:
                members += 1
                if members > MAX_MEMBERS:
                    raise FetchError("bad_answer", f"the gzip data of the answer have more than {MAX_MEMBERS} members")
                member = zlib.decompressobj(31)
            block = member.decompress(rest, limit - size + 1)
            size += len(block)
            if size > limit:
                raise FetchError("too_large", f"the answer unpacks to more than {limit} bytes")
            out.append(block)
            rest = member.unused_data if member.eof else member.unconsumed_tail
            member = None if member.eof else member
    except zlib.error as error:
        raise FetchError("bad_answer", f"the answer says gzip but is not: {error}") from None
    if member is not None:
        raise FetchError("incomplete", "the gzip data of the answer end early")
    return b"".join(out)


def _decoded(body: bytes, headers: Dict[str, str], limit: int, deadline: float) -> bytes:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding in ("gzip", "x-gzip"):
        return gunzip(body, limit, deadline)
    raise FetchError("bad_answer", f"the answer is encoded as {encoding[:40]!r}, which was not asked for")


def fetch(
    url: str,
    timeout: float,
    headers: Optional[Dict[str, str]] = None,
    limit: int = MAX_BODY,
    *,
    post: Optional[bytes] = None,
) -> Answer:
    """GET ``url``, or POST ``post`` to it, within ``timeout`` seconds in all. Raises FetchError, nothing else.

    ``limit`` bounds the body as it is sent and as it is once unpacked; http.client bounds the number and length of
    headers.
    """
    deadline = time.monotonic() + timeout
    sock: Optional[socket.socket] = None
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", UNIX_SCHEME) or not parts.hostname:
            raise FetchError("bad_url", f"{url} is not an http or https address")
        sent = {"Connection": "close", "Accept-Encoding": "gzip", **(headers or {})}
        sock = _connect(parts, sent.get("Host", "").rsplit(":", 1)[0], deadline)
        unix = parts.scheme == UNIX_SCHEME
        connection = http.client.HTTPConnection("localhost" if unix else parts.hostname, None if unix else parts.port)
        connection.sock = BoundedSocket(sock, deadline)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET" if post is None else "POST", target, post, sent)
        response = connection.getresponse()
        body = _read_all(response, limit)
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, _decoded(body, named, limit, deadline))
    except FetchError:
        raise
    except Exception as error:  # noqa: BLE001  whatever an answer can do to the standard library is one kind of no answer
        _explain(shown(url), error, timeout)
    finally:
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()


def _explain(url: str, error: Exception, timeout: float) -> NoReturn:
    """Raise what went wrong as a FetchError."""
    if isinstance(error, (socket.timeout, TimeoutError)):  # one and the same since Python 3.10
        raise FetchError("timeout", f"no complete answer from {url} within {timeout:g} s") from error
    if isinstance(error, NotOursError):
        raise FetchError("not_ours", f"{url} was not asked: {error}", str(error)) from error
    if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
        raise FetchError("refused", f"nothing listens at {url}") from error
    if isinstance(error, http.client.IncompleteRead):
        raise FetchError("incomplete", f"the answer of {url} ended early") from error
    if isinstance(error, http.client.HTTPException):
        said = f"{type(error).__name__} {error}".strip()[:200]
        raise FetchError("bad_answer", f"{url} does not answer in HTTP: {said}") from error
    if isinstance(error, OSError):
        raise FetchError("unreachable", f"no answer from {url}: {error}") from error
    if isinstance(error, ValueError):  # also a host name that cannot be encoded
        raise FetchError("bad_url", f"{url} cannot be asked: {error}") from error
    raise error


def try_get(url: str, timeout: float, headers: Optional[Dict[str, str]] = None) -> Tuple[Optional[Answer], str]:
    """Like fetch, but answers (None, why) where there is no answer."""
    try:
        return fetch(url, timeout, headers), ""
    except FetchError as problem:
        return None, problem.detail
