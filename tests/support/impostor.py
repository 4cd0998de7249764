"""What may listen on OPA's socket instead of OPA, and the ways in which it is no OPA."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swiftdeploy_target.http import unix_url

SHORT = 0.5  # seconds, for what never answers

Handler = Callable[[socket.socket, threading.Event], None]

ALLOW: dict[str, Any] = {
    "result": {
        "allow": True,
        "insufficient": False,
        "reasons": [],
        "domain": "canary",
        "checked": {},
        "thresholds": {},
    }
}


class Impostor:
    """A server on a socket of its own that treats each connection as the handler says."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._over = threading.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="sdimp-")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self._folder.name}/opa.sock")
        self._listener.listen()
        self.url = unix_url(Path(self._folder.name) / "opa.sock")
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._over.is_set():
                client.close()
                return
            self.connections += 1
            with client, contextlib.suppress(OSError):
                self._handler(client, self._over)

    def stop(self) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self._folder.cleanup()


def read_request(client: socket.socket) -> bytes:
    """One whole request, so that closing afterwards does not reset the connection."""
    text = b""
    while b"\r\n\r\n" not in text:
        text += client.recv(65536)
    head, _, body = text.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split()[0])
    while len(body) < length:
        body += client.recv(65536)
    return head


def http_answer(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def answers(raw: bytes) -> Handler:
    def handler(client: socket.socket, _: threading.Event) -> None:
        read_request(client)
        client.sendall(raw)

    return handler


def drips(raw: bytes, start: int) -> Handler:
    """A good answer, byte by byte from ``start`` on: each byte is soon enough, all of them are far too late."""

    def handler(client: socket.socket, over: threading.Event) -> None:
        read_request(client)
        client.sendall(raw[:start])
        for place in range(start, len(raw)):
            if over.wait(SHORT / 5):
                return
            client.sendall(raw[place : place + 1])

    return handler


def hangs(client: socket.socket, over: threading.Event) -> None:
    over.wait()


def reads_and_hangs(client: socket.socket, over: threading.Event) -> None:
    read_request(client)
    over.wait()


def resets(client: socket.socket, _: threading.Event) -> None:
    read_request(client)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def closes(client: socket.socket, _: threading.Event) -> None:
    read_request(client)


def never_ends(client: socket.socket, over: threading.Event) -> None:
    read_request(client)
    client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not over.is_set():
        client.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")


def says_hundred_forever(client: socket.socket, over: threading.Event) -> None:
    read_request(client)
    while not over.wait(0.01):
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


GOOD = http_answer(json.dumps(ALLOW).encode())
# What a Go server that expects TLS, as OPA is, answers to plain HTTP.
GO_TLS = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
HTML = b"<html><body><h1>Welcome to nginx!</h1></body></html>"
