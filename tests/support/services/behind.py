"""A service that asks much of the proxy before it: ``python behind.py``.

Standard library alone. HOST, PORT and APP_VERSION are as for every service. It answers

- ``/headers``: the headers it was sent, in order, as a JSON list of pairs; ``/env``: its environment;
- ``/bigheaders?N``: N cookies of 1 KB; ``/download?N``: N megabytes; ``/cut?N``: half of N megabytes that it announced;
- ``/stream``: three pieces without framing, each but the first when ``/next`` was asked;
- ``PUT /upload``: size and SHA-256 of the body, framed either way; ``/asked``: how many requests it has had.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MEGABYTE = b"z" * (1 << 20)
go_on = threading.Semaphore(0)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    timeout = 80

    def log_message(self, *_words: object) -> None:
        """Nothing."""

    def begin(self, status: int, *headers: tuple[str, object]) -> None:
        """Send status and headers."""
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, str(value))
        self.end_headers()

    def answer(self, text: str, *headers: tuple[str, object]) -> None:
        """Send ``text``."""
        self.begin(200, ("Content-Length", len(text.encode())), *headers)
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    def do_PUT(self) -> None:
        """Take a body."""
        size, digest = 0, hashlib.sha256()
        for block in self.body():
            size += len(block)
            digest.update(block)
        self.answer(json.dumps({"size": size, "sha256": digest.hexdigest()}))

    def body(self) -> object:
        """The blocks of the body."""
        if self.headers.get("Transfer-Encoding"):
            while block := self.rfile.read(int(self.rfile.readline(), 16)):
                self.rfile.readline()
                yield block
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            block = self.rfile.read(min(left, 1 << 16))
            left -= len(block)
            yield block

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self.do_GET()

    def do_GET(self) -> None:
        """All the rest."""
        path, _mark, query = self.path.partition("?")
        number = int(query) if query.isdigit() else 1
        if path == "/headers":
            self.answer(json.dumps(list(self.headers.items())))
        elif path == "/env":
            self.answer(json.dumps(dict(os.environ)))
        elif path == "/bigheaders":
            self.answer("ok", *(("Set-Cookie", f"c{index}={'x' * 1000}") for index in range(number)))
        elif path in ("/download", "/cut"):
            self.begin(200, ("Content-Length", number << 20))
            for _ in range(number if path == "/download" else number // 2):
                self.wfile.write(MEGABYTE)
            self.close_connection = path == "/cut"
        elif path == "/stream":
            self.close_connection = True
            self.begin(200, ("Content-Type", "text/event-stream"), ("Connection", "close"))
            for piece in range(3):
                if piece:
                    go_on.acquire(timeout=30)
                self.wfile.write(f"data: {piece}\n\n".encode())
        elif path == "/next":
            go_on.release()
            self.answer("ok")
        else:
            self.answer(os.environ.get("APP_VERSION", "?"))


class Server(ThreadingHTTPServer):
    """Takes a burst of connections."""

    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    Server((os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])), Handler).serve_forever()
