"""Looking at a host's stack: what should run, what runs, what nginx serves, who has the ports."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Set

from . import routing, secret_values, state
from .health import unhealthy
from .runtime import Engine, Runtime
from .supervisor import marked_processes


def choose_runtime(wanted: str, present: Optional[str], engine: Engine) -> Dict[str, Any]:
    """Which runtime to use: {"runtime", "reason", "problem"}.

    ``wanted`` is auto, docker or process. A stack that exists stays in its runtime: an engine that comes or
    goes must not start a second stack on the same ports.
    """
    if wanted != "auto":
        runtime, reason = wanted, "asked for"
    elif present is not None:
        runtime, reason = present, "the stack is in it"
    else:
        runtime, reason = "docker" if engine.usable else "process", engine.detail
    problem = None
    if present not in (None, runtime):
        problem = f"the stack runs in the {present} runtime; run teardown.yml before changing to {runtime}."
    elif runtime == "docker" and not engine.usable:
        problem = (
            f"the docker runtime cannot be used: {engine.detail}. Start Docker (with the compose plugin) and let "
            "this user use it, or take the process runtime with swiftdeploy_runtime."
        )
    return {"runtime": runtime, "reason": reason, "problem": problem}


def next_port(port: int, taken: Set[int], usable: Callable[[int], bool]) -> Optional[int]:
    """Loopback port of a release that starts in the process runtime: the first from ``port`` on that can be had."""
    return next((number for number in _candidates(port, taken) if usable(number)), None)


def _candidates(port: int, taken: Set[int]) -> List[int]:
    return [number for number in [*range(port, 65536), *range(port - 1, 1023, -1)] if number not in taken]


def known_ports(remembered: Dict[str, Any], runtime: str, taken: Set[int]) -> Dict[str, int]:
    """Slot to the port of the release in it. A record of an older version has none of its own: it was derived then."""
    found = {}
    for slot in state.SLOTS:
        release = remembered["slots"].get(slot)
        if release is None:
            continue
        port = int(release["spec"]["port"])
        if runtime == "process":
            port = dict(zip(state.SLOTS, _candidates(port, taken)))[slot]
        found[slot] = port
    return state.ports(remembered, found)


def ours(port: int, stack_dir: Path) -> bool:
    """Whether a program of the stack in ``stack_dir`` listens on ``port``, also one that has lost its parent."""
    owners = listeners(port)
    return bool(owners) and owners.keys() <= {pid for pid, _words in marked_processes(stack_dir)}


# Where a program that listens on all addresses is asked.
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def answers(address: str, port: int) -> bool:
    """Whether something takes connections at ``port`` of this host."""
    try:
        with socket.create_connection((LOOPBACK.get(address, address), port), 1.0):
            return True
    except OSError:
        return False


def listeners(port: int) -> Dict[int, str]:
    """Process id to name of the processes that listen on ``port``, where this user may see them."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    found = {}
    for entry in Path("/proc").iterdir() if inodes else []:
        if not entry.name.isdigit():
            continue
        try:
            held = {str(link.readlink()) for link in (entry / "fd").iterdir()}
            if held & inodes:
                found[int(entry.name)] = (entry / "comm").read_text().strip()
        except OSError:
            continue
    return found


def healthy(address: Optional[str], health: Dict[str, Any], stack_dir: Path) -> Optional[str]:
    """None when the slot answers as a healthy one, else why not."""
    if address is None:
        return "it has no address"
    return unhealthy(f"http://{address}{health['path']}", health, float(health["timeout"]), stack_dir) or None


def take_back(observed: Dict[str, Any], stack_dir: Path) -> bool:
    """Give the traffic back to the slot that is still warm, where a run was killed that watched the other one.

    True when a release died that nobody watched any more: the stack is then to be looked at again.
    """
    watched, serving = observed["state"]["settling"], observed["serving"] or {}
    if watched is None or serving.get("fallback") != watched["from"] or serving.get("live") != watched["slot"]:
        return False
    if observed["slots"][watched["slot"]]["healthy"] or not observed["slots"][watched["from"]]["healthy"]:
        return False
    routing.turn_off(stack_dir / "config")
    return True


def _restarts(runtime: Runtime, slot: str, release: Optional[Dict[str, Any]], counted: Dict[str, int]) -> int:
    """How often a release was started again by itself, as far as that is known; 1 where it was and nobody counts."""
    if slot in counted or not release or not release.get("life"):
        return counted.get(slot, 0)
    return int(runtime.life(slot) not in (None, release["life"]))


def observe(runtime: Runtime, stack_dir: Path, options: Dict[str, Any]) -> Dict[str, Any]:
    """The stack as it is. Reads only.

    ``options``: {"service", "base_url", "health": how a slot without a release of its own is asked}. Answers {"state",
    "live", "free", "serving": nginx's own words or None, "running": {program: bool}, "slots": {slot: {"running",
    "healthy", "problem", "address", "upstream_host", "upstream", "port", "restarts", "release"}}, "proxy",
    "images": {program: id}, "superseded", "proxy_log", "secrets": {release: names whose values are kept here},
    "stack_dir"}.
    Raises StateError.
    """
    remembered = state.load(stack_dir, options["service"])
    serving = routing.loaded(routing.nginx_of(options))
    if serving is not None and serving.get("service") != options["service"]:
        serving = None
    current = state.reconcile(remembered, serving)
    running = runtime.running()
    restarts = runtime.restarts()
    slots: Dict[str, Any] = {}
    for slot in state.SLOTS:
        runs = running.get(slot, False)
        address = runtime.address(slot) if runs else None
        health = state.health_of(current["slots"][slot], options["health"])
        problem = healthy(address, health, stack_dir) if runs else "not running"
        slots[slot] = {
            "running": runs,
            "healthy": problem is None,
            "problem": problem,
            "address": address,
            "upstream_host": runtime.upstream_host(slot),
            "upstream": runtime.upstream(slot),
            "port": runtime.ports[slot],
            "restarts": _restarts(runtime, slot, current["slots"][slot], restarts),
            "release": current["slots"][slot],
        }
    return {
        "state": current,
        "live": current["live"],
        "free": state.other(current["live"]),
        "serving": serving,
        "running": running,
        "slots": slots,
        "proxy": runtime.proxy(),
        "images": runtime.images(),
        "superseded": runtime.superseded(),
        "proxy_log": runtime.proxy_log(),
        "secrets": secret_values.kept_names(stack_dir, state.kept(current)),
        "stack_dir": str(stack_dir),
    }
