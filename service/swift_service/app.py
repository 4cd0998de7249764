"""The web application."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, jsonify, request
from flask.globals import request_ctx
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge, ServiceUnavailable

from .chaos import NONE, Chaos, ChaosError, ChaosFile, parse_chaos
from .metrics import UNMATCHED, Metrics, ServiceCollector
from .settings import Settings, most_delayed

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LARGEST_BODY = 4096
# Fault injection leaves these alone, or whoever watches would go blind exactly when it matters.
UNTOUCHED = frozenset({"/healthz", "/metrics", "/chaos"})
_ROUTE = "swift_service.route"

log = logging.getLogger("service")


def create_app(
    settings: Settings, chaos: ChaosFile, metrics: Metrics, facts: ServiceCollector, delayed: int | None = None
) -> Flask:
    """Build the application of one worker. `delayed`: how many requests may be held back at once."""
    app = Flask("swift_service", static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    # A body sent in chunks is cut at the limit without a word: the byte more shows that it was too large.
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY + 1
    disturb = Disturbance(most_delayed(settings) if delayed is None else delayed)

    @app.before_request
    def before() -> Response | None:
        route = request.environ[_ROUTE] = route_template()
        if not settings.canary or route in UNTOUCHED:
            return None
        return disturb(chaos.read())

    @app.get("/")
    def index() -> Response:
        return jsonify(
            message=f"Welcome to {settings.name}",
            mode=settings.mode,
            version=settings.version,
            timestamp=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        )

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(
            status="ok",
            mode=settings.mode,
            version=settings.version,
            uptime_seconds=round(facts.uptime(), 3),
        )

    @app.get("/metrics")
    def scrape() -> Response:
        accept, encoding = (request.headers.get(name, "") for name in ("Accept", "Accept-Encoding"))
        body, headers = metrics.render(accept, encoding)
        return Response(body, headers=headers)

    @app.post("/chaos", provide_automatic_options=False)
    def inject() -> Response:
        if not settings.canary:
            return failure(403, "chaos is only possible in canary mode, this service runs in stable mode")
        body = request.get_data()
        if len(body) > LARGEST_BODY:
            raise RequestEntityTooLarge
        try:
            wanted = parse_chaos(body)
        except ChaosError as problem:
            return failure(400, str(problem))
        try:
            chaos.write(wanted)
        except OSError as problem:
            return failure(500, f"the chaos state cannot be stored, nothing changed: {problem.strerror}")
        log.warning("chaos %s", json.dumps(wanted.describe()))
        return jsonify(chaos=wanted.describe())

    @app.errorhandler(HTTPException)
    def problem(error: HTTPException) -> Response:
        response = failure(error.code or 500, str(error.name))
        if isinstance(error, MethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
        return response

    counted = Counted(app.wsgi_app, metrics, {"X-Mode": "canary"} if settings.canary else {})
    app.wsgi_app = counted  # type: ignore[method-assign]
    return app


def failure(code: int, reason: str) -> Response:
    """An error as every error of the service looks."""
    response = jsonify(error=reason, code=code)
    response.status_code = code
    return response


def route_template() -> str:
    """The template of the route that the request's path belongs to, whatever its method."""
    if request.url_rule is not None:
        return request.url_rule.rule
    error = request.routing_exception
    adapter = request_ctx.url_adapter
    if isinstance(error, MethodNotAllowed) and error.valid_methods and adapter is not None:
        rule, _ = adapter.match(method=next(iter(error.valid_methods)), return_rule=True)
        return rule.rule
    return UNMATCHED


class Disturbance:
    """Makes a request slow or fail, as the chaos state says.

    A delayed request holds its thread. At most `places` do so at once and gunicorn has that many threads more
    than it needs, so the rest of the service stays quick; a request beyond is refused, as an overloaded
    service would.
    """

    def __init__(self, places: int) -> None:
        self._places = threading.Semaphore(places)

    def __call__(self, chaos: Chaos) -> Response | None:
        if chaos == NONE:
            return None
        if chaos.mode == "error":
            # random() is below 1, so rate 1 fails every request.
            hit = random.random() < chaos.rate  # noqa: S311  a dice, not a secret
            return failure(500, "injected failure (chaos)") if hit else None
        if not self._places.acquire(blocking=False):
            response = failure(ServiceUnavailable.code, "too many requests are being delayed (chaos)")
            response.headers["Retry-After"] = "1"
            return response
        try:
            time.sleep(chaos.duration)
        finally:
            self._places.release()
        return None


class Counted:
    """WSGI wrapper that counts every request before its answer leaves, and puts `headers` on every answer.

    So a client that has its answer finds it in the figures, even if the worker is killed right after.
    """

    def __init__(self, app: WSGIApplication, metrics: Metrics, headers: dict[str, str]) -> None:
        self._app = app
        self._metrics = metrics
        self._headers = list(headers.items())

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status = "500"

        def start(line: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
            nonlocal status
            status = line[:3]
            return start_response(line, [*headers, *self._headers], *rest)

        scrape = environ.get("PATH_INFO") == "/metrics"  # would always find itself in progress
        began = time.perf_counter()
        if not scrape:
            self._metrics.started()
        try:
            return self._app(environ, start)
        finally:
            seconds = time.perf_counter() - began
            if not scrape:
                self._metrics.finished()
            self._metrics.count(environ["REQUEST_METHOD"], environ.get(_ROUTE, UNMATCHED), status, seconds)
