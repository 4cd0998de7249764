"""The host's one HTTP client: bounded in time and size, and asks nobody but our own programs."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swiftdeploy_target import http, supervisor
from swiftdeploy_target.http import FetchError, fetch, gunzip, try_get, unix_url

NOBODY = 65534
PATIENCE = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Listen = Callable[[], socket.socket]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to attack as")


@contextlib.contextmanager
def serving(listener: socket.socket, answer: bytes = OK, drop: bytes = b"") -> Iterator[None]:
    """Answer each connection to ``listener`` with ``answer``, then with ``drop`` again and again."""
    over = threading.Event()

    def serve() -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.recv(65536)
                client.sendall(answer)
                while drop and not over.wait(0.005):
                    client.sendall(drop)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def unix_listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    folder = os.open(path.parent, os.O_RDONLY)
    listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)
    listener.listen()
    return listener


@contextlib.contextmanager
def stranger(listen: Listen) -> Iterator[None]:
    """A server of user nobody on the socket that ``listen`` makes, which answers as a good one would."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            listener = listen()
            os.write(told, b"x")
            while True:
                client = listener.accept()[0]
                client.recv(65536)
                client.sendall(OK)
                client.close()
        os._exit(1)
    os.close(told)
    try:
        assert os.read(ready, 1) == b"x", "the stranger could not listen"
        yield
    finally:
        os.close(ready)
        os.kill(child, 9)
        os.waitpid(child, 0)


@pytest.fixture
def private() -> Iterator[Path]:
    """A folder that only its owner enters, in open ones, deeper than the kernel takes for the path of a socket."""
    with tempfile.TemporaryDirectory(prefix="sdhttp-") as place:
        folder = Path(place) / ("deep " * 20).strip() / ("deeper-" * 10)
        folder.mkdir(parents=True)
        for above in (folder.parent, folder.parent.parent):
            above.chmod(0o755)
        folder.chmod(0o700)
        yield folder


def problem(url: str, seconds: float = PATIENCE) -> FetchError:
    with pytest.raises(FetchError) as caught:
        fetch(url, seconds)
    return caught.value


# --- who answers ----------------------------------------------------------------------------------


def test_a_socket_in_a_private_folder_is_asked_however_deep_it_lies(private: Path) -> None:
    with serving(unix_listener(private / "a.sock")):
        assert fetch(unix_url(private / "a.sock", "/x?y=1"), PATIENCE).body == b"ok"
        # The folder may be open where one around it is not.
        inner = private / "inner"
        inner.mkdir()
        inner.chmod(0o777)
        with serving(unix_listener(inner / "b.sock")):
            assert fetch(unix_url(inner / "b.sock"), PATIENCE).status == 200
    gone = problem(unix_url(private / "none.sock", "/healthz"))
    assert (gone.cause, gone.detail) == ("refused", f"nothing listens at {private}/none.sock /healthz")


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o707, 0o711, 0o1777])
def test_a_folder_that_others_enter_is_not_trusted(private: Path, mode: int) -> None:
    private.chmod(mode)
    with serving(unix_listener(private / "a.sock")):
        found = problem(unix_url(private / "a.sock"))
    assert found.cause == "not_ours"
    assert f"{stat.S_IMODE(mode):04o}" in found.detail


def test_a_link_to_a_private_folder_is_not_followed(private: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(private)
    with serving(unix_listener(private / "a.sock")):
        assert problem(unix_url(tmp_path / "link" / "a.sock")).cause in ("not_ours", "unreachable")


@as_root
def test_a_strangers_folder_is_not_trusted(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    with serving(unix_listener(folder / "a.sock")):
        os.chown(folder, NOBODY, NOBODY)
        found = problem(unix_url(folder / "a.sock"))
    assert found.cause == "not_ours"
    assert f"belongs to user {NOBODY}" in found.detail


@as_root
def test_a_strangers_program_in_our_folder_is_not_asked(private: Path) -> None:
    folder = os.open(private, os.O_RDONLY)

    def listen() -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"/proc/self/fd/{folder}/a.sock")
        listener.listen()
        return listener

    # As if it had been let in once.
    private.chmod(0o777)
    with stranger(listen):
        private.chmod(0o700)
        found = problem(unix_url(private / "a.sock"))
    os.close(folder)
    assert found.cause == "not_ours"
    assert f"runs as user {NOBODY}" in found.detail


@as_root
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_a_stranger_on_a_loopback_port_is_not_asked(family: socket.AddressFamily) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

    def listen() -> socket.socket:
        if family == socket.AF_INET:
            return socket.create_server(("127.0.0.1", port))
        return socket.create_server(("::", port), family=family, dualstack_ipv6=True)

    with stranger(listen):
        found = problem(f"http://127.0.0.1:{port}/healthz")
        answer, why = try_get(f"http://127.0.0.1:{port}/healthz", PATIENCE)
    assert found.cause == "not_ours"
    assert f"port {port} is served by a program of user {NOBODY}" in found.detail
    assert (answer, why) == (None, found.detail)


def test_our_own_loopback_ports_are_asked() -> None:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        listener = socket.create_server((host, 0), family=family, dualstack_ipv6=family == socket.AF_INET6)
        with serving(listener):
            assert fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/", PATIENCE).body == b"ok"


# --- time and size --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b""),
        (b"HTTP/1.1", b"1"),
        (b"HTTP/1.1 200 OK\r\n", b"X"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", b"a"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: a\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 1000),
    ],
    ids=["silent", "status", "headers", "body", "chunks", "trailers", "100 for ever", "no end"],
)
def test_one_deadline_for_all_of_an_exchange(private: Path, start: bytes, drop: bytes) -> None:
    with serving(unix_listener(private / "a.sock"), start, drop) if drop else hanging(private):
        assert problem(unix_url(private / "a.sock"), 0.3).cause == "timeout"


@contextlib.contextmanager
def hanging(folder: Path) -> Iterator[None]:
    """Takes connections and says nothing."""
    with unix_listener(folder / "a.sock"):
        yield


def test_headers_are_bounded(private: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n"
    with serving(unix_listener(private / "a.sock"), answer):
        assert problem(unix_url(private / "a.sock")).cause == "bad_answer"


def test_unpacking_is_linear_and_ends_with_the_deadline() -> None:
    parts = [os.urandom(50) for _ in range(http.MAX_MEMBERS)]
    assert gunzip(b"".join(gzip.compress(part) for part in parts), 1_000_000) == b"".join(parts)
    member = gzip.compress(b"")
    with pytest.raises(FetchError, match="members"):
        gunzip(member * 1_000_000, 1_000_000)
    with pytest.raises(TimeoutError):
        gunzip(gzip.compress(b"a" * 1_000_000), 2_000_000, deadline=time.monotonic())


def test_a_page_of_a_million_members_is_no_answer(private: Path) -> None:
    body = gzip.compress(b"", mtime=0) * 1_000_000
    answer = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with serving(unix_listener(private / "a.sock"), answer):
        assert problem(unix_url(private / "a.sock")).cause == "bad_answer"


# --- supervisord ----------------------------------------------------------------------------------


@as_root
def test_a_strangers_supervisord_is_not_believed(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deep stacks have their socket in a folder below /tmp, whose name anybody can work out."""
    place = private.parent.parent / "swiftdeploy-0-abc"
    monkeypatch.setattr(supervisor, "socket_path", lambda _folder: place / "supervisor.sock")
    os.chown(private.parent.parent, NOBODY, NOBODY)

    def listen() -> socket.socket:
        place.mkdir(mode=0o700)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(place / "supervisor.sock"))
        listener.listen()
        return listener

    with stranger(listen):
        here = supervisor.Supervisor(private, timeout=5)
        assert not here.answers()
        assert here.info() == {}
        with pytest.raises(supervisor.SupervisorError, match=f"belongs to user {NOBODY}"):
            here.load("nginx")
        with pytest.raises(supervisor.SupervisorError, match="is not this user's own"):
            here.start()
