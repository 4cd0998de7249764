"""Moving traffic from one slot to the other without failing a request.

The order is the whole point: test the candidate with the nginx that serves, move it into place, reload,
wait until nginx itself says that it runs the new configuration, then wait until the last worker of the old
one is gone. Only then is the old slot idle, since every request to it was held by one of those workers.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional

from .files import read_bytes, write_atomic
from .http import try_get
from .runtime import Runtime

CONFIG_NAME = "nginx.conf"
CANDIDATE_NAME = "nginx.conf.next"
ROUTING_PATH = "/_swiftdeploy/routing"
LOAD_SECONDS = 10.0


class RoutingError(Exception):
    """The switch was not made; nginx goes on with what it had. The message says why and what to do."""


def loaded(base_url: str, timeout: float = 2.0) -> Optional[Dict[str, Any]]:
    """What the running nginx says of its own configuration.

    {"service", "config": hash, "live": slot, "weights": {slot: percent}}, or None when no nginx of ours
    answers at ``base_url``.
    """
    answer, _why = try_get(base_url + ROUTING_PATH, timeout)
    if answer is None or answer.status != 200:
        return None
    try:
        data = json.loads(answer.body)
    except ValueError:
        return None
    return data if isinstance(data, dict) and "config" in data else None


def check(runtime: Runtime, folder: Path, text: str) -> None:
    """Let the real nginx judge ``text`` without loading it. Raises RoutingError with nginx's words."""
    candidate = folder / CANDIDATE_NAME
    write_atomic(candidate, text.encode())
    tested = runtime.test_nginx(folder, CANDIDATE_NAME)
    if not tested.ok:
        candidate.unlink()
        raise RoutingError(
            "nginx refuses the rendered configuration, so it was not loaded; what served before still does. "
            f"nginx says: {tested.text}"
        )


class Config(NamedTuple):
    """A complete nginx.conf and the hash that it reports of itself."""

    text: str
    hash: str


def switch(
    runtime: Runtime,
    folder: Path,
    final: Config,
    *,
    base_url: str,
    drain: float,
    introduce: Optional[Config],
    slot: str,
    place_only: bool = False,
) -> Dict[str, Any]:
    """Bring nginx to ``final``, which routes to ``slot``, and wait for the old workers' end.

    ``introduce`` is a configuration that knows ``slot`` but gives it no traffic yet. It is loaded first: nginx has
    then found the slot's address and the slot has answered through it before the first user's request goes there.
    (nginx keeps addresses that it has found over a reload, but is without one for a moment when a name is new.)

    Answers {"changed", "drained", "introduce_s", "reload_s", "drain_s"}. ``drained`` is False when workers were
    still busy after ``drain`` seconds. When nginx does not run, or with ``place_only``, the file is only put in place.
    Raises RoutingError.
    """
    path = folder / CONFIG_NAME
    before = read_bytes(path)
    serving = loaded(base_url)
    result: Dict[str, Any] = {"changed": True, "drained": True, "introduce_s": 0.0, "reload_s": 0.0, "drain_s": 0.0}
    if before == final.text.encode() and serving is not None and serving["config"] == final.hash:
        return {**result, "changed": False}
    if place_only or not runtime.running().get("nginx"):
        check(runtime, folder, final.text)
        (folder / CANDIDATE_NAME).replace(path)
        return {**result, "changed": before != final.text.encode()}
    if introduce is not None and serving is not None:
        started = time.monotonic()
        _load(runtime, folder, introduce, base_url)
        _verify(base_url, slot)
        result["introduce_s"] = round(time.monotonic() - started, 3)
    old_workers = runtime.nginx_workers()
    started = time.monotonic()
    _load(runtime, folder, final, base_url)
    result["reload_s"] = round(time.monotonic() - started, 3)
    started = time.monotonic()
    while old_workers & runtime.nginx_workers():
        if time.monotonic() - started > drain:
            result["drained"] = False
            break
        time.sleep(0.02)
    result["drain_s"] = round(time.monotonic() - started, 3)
    return result


def _load(runtime: Runtime, folder: Path, config: Config, base_url: str) -> None:
    """Test ``config``, move it into place and reload; put the old one back when nginx does not take it."""
    path = folder / CONFIG_NAME
    before = read_bytes(path)
    check(runtime, folder, config.text)
    (folder / CANDIDATE_NAME).replace(path)
    signalled = runtime.reload_nginx()
    if signalled.ok and _wait_for(base_url, config.hash):
        return
    if before is not None:
        write_atomic(path, before)
    last = " / ".join(runtime.logs("nginx", 5))
    raise RoutingError(
        "nginx was told to reload but does not serve the new configuration "
        f"({signalled.text or 'it kept the old one'}). "
        f"The old configuration is back in place and serves. nginx's last lines: {last}"
    )


def _verify(base_url: str, slot: str) -> None:
    """Wait until ``slot`` answers through nginx, past the routing. Raises RoutingError."""
    deadline = time.monotonic() + LOAD_SECONDS
    why = ""
    while time.monotonic() < deadline:
        answer, why = try_get(f"{base_url}/_swiftdeploy/slots/{slot}", 5.0)
        if answer is not None and 200 <= answer.status < 300:
            return
        why = why if answer is None else f"HTTP {answer.status}"
        time.sleep(0.02)
    raise RoutingError(f"the {slot} slot is healthy, but nginx does not reach it ({why}); no traffic was moved")


def _wait_for(base_url: str, config: str) -> bool:
    deadline = time.monotonic() + LOAD_SECONDS
    while time.monotonic() < deadline:
        serving = loaded(base_url)
        if serving is not None and serving["config"] == config:
            return True
        time.sleep(0.02)
    return False
