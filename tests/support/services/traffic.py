"""A service with every kind of request that a switch could break: ``python traffic.py``.

| endpoint | answer |
|---|---|
| GET / | version and mode as JSON |
| GET /healthz | 200 |
| GET /metrics | Prometheus text |
| POST /echo | the body it was sent |
| GET /slow?seconds=1.5 | after that time |
| GET /stream?chunks=10&seconds=1 | ``stream_body(chunks)``, a chunk at a time, without a length |
| GET /poll?seconds=3 | after that time, nothing to tell |
| GET /ws | WebSocket that echoes |

Every answer carries X-Version, and X-Mode in canary mode. HOST, PORT, APP_VERSION and MODE come from the environment.
On SIGTERM it stops accepting, closes WebSockets with 1001 (going away), finishes what is in flight and ends.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

from aiohttp import WSCloseCode, web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

LONGEST = 60.0
# Longer than any proxy keeps an idle connection to a service, so that none is closed under a request.
KEEP_ALIVE_SECONDS = 120.0
GRACE_SECONDS = 30.0
UNCOUNTED = ("/healthz", "/metrics")
SOCKETS: web.AppKey[set[web.WebSocketResponse]] = web.AppKey("sockets")


def stream_body(chunks: int) -> list[bytes]:
    """What /stream answers, a piece each; the last one tells that it was the last."""
    return [*(f"chunk {number} of {chunks}\n".encode() for number in range(chunks)), b"end\n"]


def seconds_of(request: web.Request) -> float:
    """The query's ``seconds``, 0 to 60. Raises HTTPBadRequest."""
    try:
        return min(max(float(request.query.get("seconds", "1")), 0.0), LONGEST)
    except ValueError:
        raise web.HTTPBadRequest(text="seconds must be a number\n") from None


def counting(registry: CollectorRegistry) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Middleware that keeps the three families a deployer reads."""
    requests = Counter(
        "http_requests_total", "Requests answered.", ["method", "path", "status_code"], registry=registry
    )
    duration = Histogram("http_request_duration_seconds", "Time to answer.", ["method", "path"], registry=registry)
    in_progress = Gauge("http_requests_in_progress", "Requests being answered.", registry=registry)

    @web.middleware
    async def count(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path in UNCOUNTED:
            return await handler(request)
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "<unmatched>"
        started = time.perf_counter()
        status = 500
        in_progress.inc()
        try:
            answer = await handler(request)
            status = answer.status
        except web.HTTPException as refusal:
            status = refusal.status
            raise
        else:
            return answer
        finally:
            in_progress.dec()
            requests.labels(request.method, path, str(status)).inc()
            duration.labels(request.method, path).observe(time.perf_counter() - started)

    return count


async def slow(request: web.Request) -> web.Response:
    await asyncio.sleep(seconds_of(request))
    return web.Response(text="slow\n")


async def poll(request: web.Request) -> web.Response:
    await asyncio.sleep(seconds_of(request))
    return web.json_response({"events": []})


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read(), content_type="application/octet-stream")


async def stream(request: web.Request) -> web.StreamResponse:
    pieces = stream_body(min(max(int(request.query.get("chunks", "10")), 1), 1000))
    pause = seconds_of(request) / len(pieces)
    answer = web.StreamResponse()
    answer.enable_chunked_encoding()
    await answer.prepare(request)
    for piece in pieces:
        await answer.write(piece)
        await asyncio.sleep(pause)
    await answer.write_eof()
    return answer


async def socket(request: web.Request) -> web.WebSocketResponse:
    answer = web.WebSocketResponse()
    await answer.prepare(request)
    request.app[SOCKETS].add(answer)
    try:
        async for message in answer:
            await answer.send_str(message.data)
    finally:
        request.app[SOCKETS].discard(answer)
    return answer


async def close_sockets(app: web.Application) -> None:
    """A WebSocket has no end of its own to wait for."""
    sockets = app[SOCKETS]
    for open_socket in list(sockets):
        await open_socket.close(code=WSCloseCode.GOING_AWAY, message=b"the service ends")


def make(version: str, mode: str) -> web.Application:
    """The application as ``version`` in ``mode``."""
    registry = CollectorRegistry()

    async def root(request: web.Request) -> web.Response:
        return web.json_response({"version": version, "mode": mode})

    async def healthz(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "version": version, "mode": mode})

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def mark(request: web.Request, answer: web.StreamResponse) -> None:
        answer.headers["X-Version"] = version
        if mode == "canary":
            answer.headers["X-Mode"] = mode

    app = web.Application(middlewares=[counting(registry)], client_max_size=64 * 2**20)
    app[SOCKETS] = set()
    app.on_response_prepare.append(mark)
    app.on_shutdown.append(close_sockets)
    app.add_routes(
        [
            web.get("/", root),
            web.get("/healthz", healthz),
            web.get("/metrics", metrics),
            web.get("/slow", slow),
            web.get("/poll", poll),
            web.get("/stream", stream),
            web.get("/ws", socket),
            web.post("/echo", echo),
        ]
    )
    return app


def main() -> None:
    """Serve until SIGTERM."""
    web.run_app(
        make(os.environ.get("APP_VERSION", "unknown"), os.environ.get("MODE", "stable")),
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ.get("PORT", "3000")),
        access_log=None,
        print=None,
        shutdown_timeout=GRACE_SECONDS,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
    )


if __name__ == "__main__":
    main()
