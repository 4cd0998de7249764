"""What a host remembers of its stack, in ``state.json``.

Shape (schema 1)::

    {"schema": 1, "service": "app", "runtime": "docker" | "process",
     "owner": {"home", "service", "checkout"} | null,     # whose stack it is (ownership.py), null in older files
     "live": "blue" | "green" | null,         # the slot that has the traffic
     "canary": {"slot": "green", "weight": 10} | null,   # a release beside it, with its percent of the traffic
     "settling": {"slot", "from", "last_stable"} | null,   # a switch that is still watched, and the way back from it
     "slots": {"blue": RELEASE | null, "green": RELEASE | null},
     "programs": {"nginx", "nginx_version", "supervisord"} | null,   # of the process runtime: what a rollback uses
     "last_stable": RELEASE | null,           # the last release that had all traffic in stable mode
     "releases": [RELEASE, ...],              # the last KEPT_RELEASES that went live, oldest first
     "rejected": [{"id", "version", "mode", "code", "why", "time"}, ...]}   # what does not come back unasked

    RELEASE = {"id", "version", "image", "mode", "spec", "spec_hash", "slot", "time", "outcome",
               "port",                        # where it listens: in its container, or on loopback
               "proxy",                       # the keys of the manifest's nginx that were its own
               "life"}                        # of its process, which another start would change

``spec`` is all that is needed to start the release again, with the question for its health and the names of its
metrics; it holds no secret values. Records of older versions are without ``port``, ``proxy`` and ``spec.metrics``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, Optional

from .files import read_bytes, write_atomic

SLOTS = ("blue", "green")
SCHEMA = 1
KEPT_RELEASES = 5
KEPT_REJECTED = 20
# Outcomes of a release that nobody goes back to unasked.
BAD = ("rolled_back", "died")
REJECTED = ("rolled_back", "denied", "died")
FILE_NAME = "state.json"

State = Dict[str, Any]
Release = Dict[str, Any]


class StateError(Exception):
    """state.json cannot be used; the message says where it is and what to do."""


def empty(service: str) -> State:
    """The state of a host that has never run ``service``."""
    return {
        "schema": SCHEMA,
        "service": service,
        "owner": None,
        "runtime": None,
        "live": None,
        "canary": None,
        "settling": None,
        "slots": dict.fromkeys(SLOTS),
        "programs": None,
        "last_stable": None,
        "releases": [],
        "rejected": [],
    }


def load(stack_dir: Path, service: str) -> State:
    """The host's state, or the empty one. Raises StateError for a file that is not ours to believe."""
    path = stack_dir / FILE_NAME
    data = read_bytes(path)
    if data is None:
        return empty(service)
    try:
        state = json.loads(data)
    except ValueError as error:
        raise StateError(
            f"{path} is not valid JSON ({error}). It is written whole or not at all, so something else "
            "changed it: restore it, or run teardown.yml and deploy again."
        ) from error
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        raise StateError(f"{path} has an unknown schema; this version reads schema {SCHEMA}.")
    return {**empty(service), **state}


def save(stack_dir: Path, state: State) -> None:
    """Write the state durably, readable by its owner alone."""
    text = json.dumps(state, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomic(stack_dir / FILE_NAME, text.encode(), mode=0o600)


def other(slot: Optional[str]) -> str:
    """The slot that ``slot`` is not; blue for a host without a live slot."""
    return SLOTS[1] if slot == SLOTS[0] else SLOTS[0]


def code_hash(spec: Dict[str, Any]) -> str:
    """What a release is made of, whatever its mode, as twelve hexadecimal digits. Pure."""
    code = {key: value for key, value in spec.items() if key != "mode"}
    return hashlib.sha256(json.dumps(code, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]


def reject(state: State, release: Optional[Release], why: str) -> State:
    """The state in which ``release`` does not come back unasked, since it was ``why`` (one of REJECTED). Pure."""
    if release is None or why not in REJECTED:
        return state
    code = code_hash(release["spec"])
    entry = {**{key: release.get(key) for key in ("id", "version", "mode", "time")}, "code": code, "why": why}
    others = [one for one in state["rejected"] if one["code"] != code]
    return {**state, "rejected": [*others, entry][-KEPT_REJECTED:]}


def rejected(state: State, spec: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """What is held against a release of ``spec`` on this host, None where nothing is. Pure."""
    code = code_hash(spec)
    return next((entry for entry in state.get("rejected") or [] if entry["code"] == code), None)


def commit(state: State, release: Release, runtime: str, leaves: str = "replaced", reject_it: bool = True) -> State:
    """The state after ``release`` got all traffic in its slot. Pure: the argument is not changed.

    ``leaves`` is what becomes of the release that was live, or of a canary beside it: "replaced", or "rolled_back" or
    "died", which keep it from ever being called good again; with ``reject_it`` from coming back unasked too.
    """
    live = {**release, "outcome": "live"}
    present = state["slots"].get(release["slot"])
    if present is not None and present["id"] == live["id"] and present.get("life"):
        # The host knows better than whoever planned the switch.
        live["life"] = present["life"]
    slots = {**state["slots"], release["slot"]: live}
    left = state["slots"].get(state["live"]) if state["live"] else None
    kept = [
        {**entry, "outcome": leaves} if left is not None and entry["id"] == left["id"] else entry
        for entry in state["releases"]
        if entry["id"] != live["id"]
    ]
    gone = [left, state["slots"].get(state["canary"]["slot"]) if state["canary"] else None] if reject_it else []
    for entry in gone:
        if entry is not None and entry["slot"] != live["slot"]:
            state = reject(state, entry, leaves)
    # Somebody asked for it, or it was good all along.
    code = code_hash(live["spec"])
    last_stable = state["last_stable"]
    if leaves in BAD and left is not None and last_stable is not None and last_stable["id"] == left["id"]:
        good = (entry for entry in reversed(kept) if entry["mode"] == "stable" and entry["outcome"] not in BAD)
        last_stable = next(good, None)
    return {
        **state,
        "rejected": [entry for entry in state["rejected"] if entry["code"] != code],
        "runtime": runtime,
        "live": release["slot"],
        "canary": None,
        "settling": None,
        "slots": slots,
        "last_stable": live if live["mode"] == "stable" else last_stable,
        "releases": [*kept, live][-KEPT_RELEASES:],
    }


def settling(before: State, after: State, back: str) -> State:
    """``after``, a switch from ``before``, as long as it may still be taken back to the release in ``back``. Pure."""
    was = before.get("settling") or {}
    last_stable = was["last_stable"] if was.get("slot") == after["live"] else before["last_stable"]
    return {**after, "settling": {"slot": after["live"], "from": back, "last_stable": last_stable}}


def taken_back(state: State) -> State:
    """The state after the release that was still watched has lost all traffic to the one before it. Pure."""
    watched = state["settling"]
    back = commit(state, state["slots"][watched["from"]], state["runtime"], "died")
    return {**back, "last_stable": watched["last_stable"]}


def with_canary(state: State, slot: str, weight: int) -> State:
    """The state while the release in ``slot`` takes ``weight`` percent beside the live one. Pure."""
    placed = state["slots"][slot]
    slots = {**state["slots"], slot: None if placed is None else {**placed, "outcome": "canary"}}
    return {**state, "slots": slots, "canary": {"slot": slot, "weight": weight}}


def without(state: State, slot: str) -> State:
    """The state after the release in ``slot`` was stopped for good: it is no canary and not kept. Pure."""
    canary = state["canary"]
    return {
        **state,
        "canary": None if canary is not None and canary["slot"] == slot else canary,
        "slots": {**state["slots"], slot: None},
    }


def _code(release: Release) -> Dict[str, Any]:
    """What a release is made of, whatever its mode."""
    return {key: value for key, value in release["spec"].items() if key != "mode"}


def health_of(release: Optional[Release], otherwise: Dict[str, Any]) -> Dict[str, Any]:
    """How the health of ``release`` is asked for: what it was started with; ``otherwise`` where there is none. Pure."""
    own: Dict[str, Any] = (release or {}).get("spec", {}).get("healthcheck") or {}
    return {**otherwise, **own}


def metrics_of(release: Optional[Release], otherwise: Dict[str, Any]) -> Dict[str, Any]:
    """Where ``release`` shows its metrics and what they are called; ``otherwise`` where it does not say. Pure."""
    own: Dict[str, Any] = (release or {}).get("spec", {}).get("metrics") or {}
    return {**otherwise, **own}


def ports(state: State, otherwise: Dict[str, int]) -> Dict[str, int]:
    """Slot to the port that its release was started with; ``otherwise`` where none is written down. Pure."""
    held = {slot: (state["slots"].get(slot) or {}).get("port") for slot in SLOTS}
    return {**otherwise, **{slot: int(port) for slot, port in held.items() if port}}


def last_good(state: State) -> Optional[Release]:
    """The release that a rollback goes to.

    While a canary runs that is the live one. Else it is the last one that differs from the live one and was not
    rolled back itself; from a stable release never to the same code in canary mode.
    """
    live = state["slots"].get(state["live"]) if state["live"] else None
    if state["canary"] is not None or live is None:
        return live
    bad = {entry["spec_hash"] for entry in state["releases"] if entry["outcome"] in BAD} | {live["spec_hash"]}
    return next(
        (
            entry
            for entry in reversed(state["releases"])
            if entry["spec_hash"] not in bad
            and not (live["mode"] == "stable" and entry["mode"] == "canary" and _code(entry) == _code(live))
        ),
        None,
    )


def kept(state: State) -> Dict[str, Release]:
    """The releases that a rollback can name, by id, oldest first."""
    return {entry["id"]: entry for entry in state["releases"]}


def reconcile(state: State, serving: Optional[Dict[str, Any]]) -> State:
    """Bring the state in line with what nginx really serves, after a run that was killed. Pure.

    ``serving`` is what nginx says of its loaded configuration, {"live", "weights"}, or None. It is the truth: a
    run may have switched the traffic and died before it could write that down.
    """
    served = serving["live"] if serving is not None else None
    if served not in SLOTS or state["slots"].get(served) is None:
        return state
    watched = state["settling"]
    if watched is not None and watched["slot"] == state["live"] and watched["from"] == served:
        return taken_back(state)
    found = state if served == state["live"] else commit(state, state["slots"][served], state["runtime"])
    beside = other(served)
    if found["slots"].get(beside) is None:
        return {**found, "canary": None}
    weight = int((serving or {}).get("weights", {}).get(beside, 0))
    if weight or found["canary"] is not None:
        return with_canary(found, beside, weight)
    return found
