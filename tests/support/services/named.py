"""A service whose every name is told by its environment, and that dies when it is told to: ``python named.py``.

Standard library alone. HOST, PORT, APP_VERSION and MODE are as for every service. HEALTH_PATH and METRICS_PATH are its
paths; REQUESTS, DURATION, BUSY and STATUS_LABEL are what its metrics are called. DIES_AFTER seconds after its start it
prints a line and ends as if it had crashed; DIES_IN_STABLE=1 does so in stable mode alone. POST / answers the size of
the body it was sent.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENV = os.environ
HEALTH_PATH, METRICS_PATH = ENV.get("HEALTH_PATH", "/healthz"), ENV.get("METRICS_PATH", "/metrics")
REQUESTS = ENV.get("REQUESTS", "http_requests_total")
DURATION = ENV.get("DURATION", "http_request_duration_seconds")
BUSY = ENV.get("BUSY", "http_requests_in_progress")
STATUS_LABEL = ENV.get("STATUS_LABEL", "status")
VERSION, MODE = ENV.get("APP_VERSION", "?"), ENV.get("MODE", "?")

lock = threading.Lock()
counts = {"answered": 0, "busy": 0}


def page() -> str:
    """The metrics, whose every request took no time."""
    with lock:
        answered, busy = counts["answered"], counts["busy"]
    lines = [f"# TYPE {REQUESTS} counter", f'{REQUESTS}{{{STATUS_LABEL}="200"}} {answered}']
    lines += [f"# TYPE {DURATION} histogram", f'{DURATION}_bucket{{le="0.01"}} {answered}']
    lines += [f'{DURATION}_bucket{{le="+Inf"}} {answered}', f"{DURATION}_sum 0", f"{DURATION}_count {answered}"]
    lines += [f"# TYPE {BUSY} gauge", f"{BUSY} {busy}"]
    return "\n".join(lines) + "\n"


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    timeout = 80

    def log_message(self, *_words: object) -> None:
        """Nothing: what it prints is what a test looks for."""

    def answer(self, status: int, body: str, kind: str = "application/json") -> None:
        """Send ``body``."""
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        """Health, metrics, or the page that clients ask for."""
        path = self.path.partition("?")[0]
        if path == HEALTH_PATH:
            return self.answer(200, "{}")
        if path == METRICS_PATH:
            return self.answer(200, page(), "text/plain; version=0.0.4")
        if path != "/":
            return self.answer(404, "{}")
        with lock:
            counts["busy"] += 1
        time.sleep(0.005)
        self.answer(200, json.dumps({"version": VERSION, "mode": MODE}))
        with lock:
            counts["busy"] -= 1
            counts["answered"] += 1
        return None

    def do_POST(self) -> None:
        """The size of the body."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(200, json.dumps({"size": len(body), "version": VERSION}))


def die(seconds: float) -> None:
    """End as a crash does."""
    time.sleep(seconds)
    print(f"named {VERSION} ran out of luck", flush=True)
    os._exit(3)


def main() -> None:
    """Serve until something ends it."""
    after = ENV.get("DIES_AFTER", "")
    if after and (MODE == "stable" or ENV.get("DIES_IN_STABLE") != "1"):
        threading.Thread(target=die, args=(float(after),), daemon=True).start()
    server = ThreadingHTTPServer((ENV.get("HOST", "127.0.0.1"), int(ENV["PORT"])), Handler)
    print(f"named {VERSION} listens on {ENV['PORT']}", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
