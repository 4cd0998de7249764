"""Moving traffic between the slots without failing a request.

The order is the whole point: test the candidate with the nginx that serves, move it into place, reload,
wait until nginx itself says that it runs the new configuration, then wait until the last worker of the old
one is gone. Only then is a slot without traffic idle, since every request to it was held by one of those workers.

One thing needs no reload: while the file ``canary.off`` lies beside nginx.conf, nginx gives a canary nothing,
in every worker, old ones included; and a release that was switched to a moment ago neither, as long as the one before
it is kept warm. So a bad release is off within the time of one file's creation.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Set, Tuple

from . import health, host_key
from .files import read_bytes, write_atomic
from .http import Answer, try_get
from .runtime import Runtime

CONFIG_NAME = "nginx.conf"
CANDIDATE_NAME = "nginx.conf.next"
OFF_NAME = "canary.off"
ROUTING_PATH = "/_swiftdeploy/routing"
LOAD_SECONDS = 10.0
# nginx closes what is left when its own time is over; what waits for it must wait a little longer.
DRAIN_GRACE = 2.0


class RoutingError(Exception):
    """The switch was not made; nginx goes on with what it had. The message says why and what to do."""


class Nginx(NamedTuple):
    """Where this host asks its nginx, and what it proves with that it is this host."""

    base_url: str
    headers: Dict[str, str]

    def get(self, path: str, timeout: float) -> Tuple[Optional[Answer], str]:
        """The answer for ``path``, or (None, why)."""
        return try_get(self.base_url + path, timeout, self.headers)


def nginx_of(options: Dict[str, Any]) -> Nginx:
    """The nginx of a stack; ``options``: {"base_url", "stack_dir"}."""
    return Nginx(options["base_url"], host_key.headers(Path(options["stack_dir"])))


def loaded(nginx: Nginx, timeout: float = 2.0) -> Optional[Dict[str, Any]]:
    """What the running nginx says of its own configuration.

    {"service", "config": hash, "live": slot, "weights": {slot: percent}, "fallback": slot that has all traffic while
    "off" is true, "off": bool}, or None when no nginx of ours answers. Slot and weights are those that
    hold: a release that is off has none.
    """
    answer, _why = nginx.get(ROUTING_PATH, timeout)
    if answer is None or answer.status != 200:
        return None
    try:
        data = json.loads(answer.body)
    except ValueError:
        return None
    if not isinstance(data, dict) or "config" not in data:
        return None
    if not data.get("off"):
        return data
    live = data.get("fallback") or data["live"]
    return {**data, "live": live, "weights": {live: 100}}


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
    """A complete nginx.conf, as it was rendered, and the hash that it reports of itself."""

    text: str
    hash: str


class Moved(NamedTuple):
    """What ``move`` did. ``old_workers`` may still hold requests that were routed the old way. Times in seconds."""

    changed: bool
    old_workers: Set[int]
    introduce_s: float = 0.0
    reload_s: float = 0.0


def turn_off(folder: Path) -> None:
    """Take all traffic from a canary at once, in the workers of every configuration."""
    (folder / OFF_NAME).touch()


def turn_on(folder: Path) -> None:
    """Let a canary have its traffic again. Not before the workers have ended that must not give it any."""
    with contextlib.suppress(FileNotFoundError):
        (folder / OFF_NAME).unlink()


def move(
    runtime: Runtime,
    folder: Path,
    final: Config,
    *,
    base_url: str,
    introduce: Optional[Config] = None,
    slot: Optional[str] = None,
    question: Optional[Dict[str, Any]] = None,
    place_only: bool = False,
    on: bool = False,
) -> Moved:
    """Bring nginx to ``final``.

    ``introduce`` is a configuration that knows ``slot`` but gives it no traffic yet. It is loaded first: nginx has
    then found the slot's address and the slot has answered through it before the first user's request goes there.
    (nginx keeps addresses that it has found over a reload, but is without one for a moment when a name is new.)

    ``on``: what an earlier run had turned off when the slot's release died is on again, since it lives.
    ``question`` says what that answer has to be (see health.py).

    When nginx does not run, or with ``place_only``, the file is only put in place. Raises RoutingError.
    """
    key = host_key.ensure(folder.parent)
    nginx = Nginx(base_url, host_key.headers(folder.parent))
    final = final._replace(text=host_key.fill(final.text, key))
    introduce = introduce and introduce._replace(text=host_key.fill(introduce.text, key))
    path = folder / CONFIG_NAME
    before = read_bytes(path)
    serving = loaded(nginx)
    settled = before == final.text.encode()
    if place_only or not runtime.running().get("nginx"):
        if not settled:
            check(runtime, folder, final.text)
            (folder / CANDIDATE_NAME).replace(path)
        if on:
            turn_on(folder)
        return Moved(not settled, set())
    if settled and serving is not None and serving["config"] == final.hash:
        return Moved(False, set())
    old_workers: Set[int] = set()
    started = time.monotonic()
    if introduce is not None and serving is not None:
        old_workers |= set(runtime.nginx_workers())
        _load(runtime, folder, introduce, nginx)
        if slot is not None:
            _verify(nginx, slot, question or {}, folder.parent)
    introduced = time.monotonic()
    if on:
        turn_on(folder)
    old_workers |= set(runtime.nginx_workers())
    _load(runtime, folder, final, nginx)
    return Moved(True, old_workers, round(introduced - started, 3), round(time.monotonic() - introduced, 3))


def drain(runtime: Runtime, old_workers: Set[int], seconds: float) -> bool:
    """Wait until the workers of every earlier configuration have ended; False when some have not in time.

    ``seconds`` is nginx's own worker_shutdown_timeout: it closes what is left then. Workers that an earlier run
    left shutting down are waited for as well.
    """
    deadline = time.monotonic() + seconds + DRAIN_GRACE
    while True:
        workers = runtime.nginx_workers()
        if not (old_workers & set(workers)) and not any(workers.values()):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def _load(runtime: Runtime, folder: Path, config: Config, nginx: Nginx) -> None:
    """Test ``config``, move it into place and reload; put the old one back when nginx does not take it."""
    path = folder / CONFIG_NAME
    before = read_bytes(path)
    check(runtime, folder, config.text)
    (folder / CANDIDATE_NAME).replace(path)
    signalled = runtime.reload_nginx()
    if signalled.ok and _wait_for(nginx, config.hash):
        return
    if before is not None:
        write_atomic(path, before)
    last = " / ".join(runtime.logs("nginx", 5))
    serves = " and serves" if loaded(nginx) is not None else "; nginx does not answer"
    raise RoutingError(
        "nginx was told to reload but does not serve the new configuration "
        f"({signalled.text or 'it kept the old one'}). "
        f"The old configuration is back in place{serves}. nginx's last lines: {last}"
    )


def _verify(nginx: Nginx, slot: str, question: Dict[str, Any], stack_dir: Path) -> None:
    """Wait until ``slot`` answers through nginx, past the routing. Raises RoutingError."""
    deadline = time.monotonic() + LOAD_SECONDS
    answer, why = None, ""
    while time.monotonic() < deadline:
        # nginx itself puts the host and the scheme of the question in.
        answer, why = nginx.get(f"/_swiftdeploy/slots/{slot}", 5.0)
        if answer is not None and health.accepted(answer.status, question):
            return
        time.sleep(0.02)
    if answer is not None:
        why = health.told(answer, question, stack_dir)
    raise RoutingError(f"the {slot} slot is healthy, but not through nginx ({why}); no traffic was moved")


def _wait_for(nginx: Nginx, config: str) -> bool:
    deadline = time.monotonic() + LOAD_SECONDS
    while time.monotonic() < deadline:
        serving = loaded(nginx)
        if serving is not None and serving["config"] == config:
            return True
        time.sleep(0.02)
    return False
