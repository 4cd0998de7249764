"""One refresh of the status of one host: what is recorded of it, and the view that every output is made from.

A view is plain JSON; its keys are documented in docs/status.md, and ``SCHEMA`` counts their changes. Nothing here
compares a figure with a threshold: that a figure is too high is said by the policies' decisions alone.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

SCHEMA = 1
SLOTS = ("blue", "green")
# What a host can be, the worst first: the order in which hosts are shown.
STATES = ("bad", "unanswered", "attention", "empty", "waiting", "ok")
FIGURES = ("req_per_sec", "error_rate", "p99_latency_ms")
# How a host took a release away.
LEFT = {"rolled_back": "was rolled back", "denied": "was denied as a canary", "died": "died with the traffic"}
SLOT_FIGURES = (
    "window_seconds",
    "requests",
    "req_per_sec",
    "error_rate",
    "p50_latency_ms",
    "p95_latency_ms",
    "p99_latency_ms",
    "proxy_error_rate",
    "proxy_p99_latency_ms",
    "probe_share",
    "chaos",
    "uptime_seconds",
)

View = dict[str, Any]
Problem = dict[str, Any]


def now() -> str:
    """This moment, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event(
    host: str, observed: Mapping[str, Any], evidence: Mapping[str, Any], policy: Mapping[str, Any]
) -> dict[str, Any]:
    """The ``status_scrape`` event of one host: the figures of its live slot and what each policy says of them.

    Where a canary runs beside it, its own figures are in ``canary``.
    """
    live, beside = observed["live"], _beside(observed)
    release = (observed["state"]["slots"].get(live) if live else None) or {}
    figures = evidence.get(live) or {}
    found = {
        "event": "status_scrape",
        "host": host,
        "service": observed["state"]["service"],
        "mode": release.get("mode"),
        "version": release.get("version"),
        "release": release.get("id"),
        **{name: figures.get(name) for name in FIGURES},
        "probe_share": figures.get("probe_share"),
        "chaos": figures.get("chaos"),
        "policy": dict(policy),
        "reason": figures.get("detail"),
        "answered": True,
    }
    if beside:
        theirs = evidence.get(beside["slot"]) or {}
        found["canary"] = {**beside, **{name: theirs.get(name) for name in FIGURES}}
    return found


def unanswered_event(host: str, service: str, why: str) -> dict[str, Any]:
    """The ``status_scrape`` event of a host that gave no answer: no figures, and why."""
    names = ("mode", "version", "release", *FIGURES, "probe_share", "chaos")
    return {
        "event": "status_scrape",
        "host": host,
        "service": service,
        **dict.fromkeys(names),
        "policy": {},
        "reason": f"no answer: {why}",
        "answered": False,
    }


def view(
    host: str,
    at: str,
    seen: Mapping[str, Any],
    evidence: Mapping[str, Any],
    policy: Mapping[str, Any],
    *,
    manifest: Mapping[str, Any],
    limit: str = "",
) -> View:
    """What one refresh of ``host`` found, and what is wrong with it.

    ``seen``: what swiftdeploy_stack answered. ``limit`` is added to every command that is proposed.
    """
    observed = seen["observed"]
    live = observed["live"]
    release = (observed["state"]["slots"].get(live) if live else None) or {}
    wanted = {"version": str(manifest["services"]["version"]), "mode": str(manifest["services"]["mode"])}
    shown: View = {
        "host": host,
        "at": at,
        "answered": True,
        "state": "ok",
        "service": observed["state"]["service"],
        "wanted": wanted,
        "live": live,
        "version": release.get("version"),
        "mode": release.get("mode"),
        "release": release.get("id"),
        "drift": _drift(observed, wanted),
        "canary": _beside(observed),
        "slots": [
            _slot(name, observed, evidence.get(name) or {}) for name in SLOTS if observed["state"]["slots"].get(name)
        ],
        "policy": {
            domain: {"outcome": decision["outcome"], "reasons": list(decision["reasons"])}
            for domain, decision in policy.items()
        },
        "unanswered": None,
        "problems": [],
    }
    # The worst first; otherwise in the order of what to look at first.
    shown["problems"] = sorted(_problems(shown, seen, limit), key=lambda problem: problem["level"] != "bad")
    levels = {problem["level"] for problem in shown["problems"]}
    if not shown["slots"]:
        shown["state"] = "empty"
    elif levels:
        shown["state"] = "bad" if "bad" in levels else "attention"
    return shown


def unanswered(host: str, at: str, service: str | None, why: str, limit: str = "") -> View:
    """The view of a host that gave no answer."""
    return {
        "host": host,
        "at": at,
        "answered": False,
        "state": "unanswered",
        "service": service,
        "wanted": None,
        "live": None,
        "version": None,
        "mode": None,
        "release": None,
        "drift": None,
        "canary": None,
        "slots": [],
        "policy": {},
        "unanswered": {"why": why, "since": at},
        "problems": [
            {
                "level": "bad",
                "what": f"no answer: {why}",
                "next": f"ansible {shlex.quote(host)} -m ansible.builtin.ping"
                if limit
                else "ansible all -m ansible.builtin.ping",
                "does": "tests the connection",
            }
        ],
    }


def waiting(host: str) -> View:
    """The view of a host that has not answered yet, and need not have."""
    return {**unanswered(host, "", None, ""), "state": "waiting", "unanswered": None, "problems": []}


def engine_problem(seen: Mapping[str, Any]) -> str | None:
    """Why nothing can be known of a deployed host whose container engine gives no answer; None where it does."""
    observed = seen["observed"]
    alive = observed.get("serving") is not None or any((observed.get("running") or {}).values())
    if seen["options"].get("runtime") != "docker" or not observed["live"] or alive:
        return None
    return next(iter(seen.get("problems") or []), None)


def broken(shown: View) -> str | None:
    """What does not run, in words, for the record; what the policies say is in it by itself."""
    bad = [one["what"] for one in shown["problems"] if one["level"] == "bad" and not one["what"].startswith("policy ")]
    return "; ".join(bad) or None


def ordered(views: Iterable[View]) -> list[View]:
    """The views, the worst first, then by name."""
    return sorted(views, key=lambda one: (STATES.index(one["state"]), one["host"]))


def document(views: Iterable[View], at: str) -> dict[str, Any]:
    """The one JSON document of a run that looks once."""
    shown = ordered(views)
    return {
        "schema": SCHEMA,
        "at": at,
        "asked": len(shown),
        "answered": sum(one["answered"] for one in shown),
        "hosts": shown,
    }


def refusal(output: str, once: bool, interval: int, hosts: int, forks: int) -> str | None:
    """Why a run cannot show the status as it is asked to, in a sentence; None when it can."""
    if output not in ("text", "json"):
        return f"format is {output!r}, allowed are text and json."
    if not 1 <= interval <= 3600:
        return f"interval is {interval}, allowed is 1 to 3600 seconds."
    if hosts > forks and not once:
        return (
            f"{hosts} hosts are asked for, and each takes one fork of Ansible for as long as it is watched, but there "
            f"are {forks}. Take fewer with --limit, allow more with --forks {hosts}, or look once with -e once=true."
        )
    return None


# --- what is in a view ------------------------------------------------------------------------------------


def _beside(observed: Mapping[str, Any]) -> dict[str, Any] | None:
    canary = observed["state"].get("canary")
    return {"slot": canary["slot"], "weight": canary["weight"]} if canary else None


def _drift(observed: Mapping[str, Any], wanted: Mapping[str, str]) -> str | None:
    """How what runs differs from the manifest. A canary of what the manifest says is on its way, and no drift."""
    beside, live = _beside(observed), observed["live"]
    releases = [observed["state"]["slots"].get(name) for name in (live, beside and beside["slot"]) if name]
    running = [(str(one["version"]), str(one["mode"])) for one in releases if one]
    if not running or (wanted["version"], wanted["mode"]) in running:
        return None
    version, mode = running[0]
    if version == wanted["version"]:
        return f"manifest {wanted['mode']}, runs {mode}"
    if mode == wanted["mode"]:
        return f"manifest {wanted['version']}, runs {version}"
    return f"manifest {wanted['version']} ({wanted['mode']}), runs {version} ({mode})"


def _slot(name: str, observed: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    slot = observed["slots"][name]
    release = observed["state"]["slots"].get(name) or {}
    live = observed["live"] == name
    beside = _beside(observed) or {}
    if not slot["running"]:
        state = "down" if live or beside.get("slot") == name else "stopped"
    elif not slot["healthy"]:
        state = "unhealthy"
    else:
        state = "live" if live else "canary" if beside.get("slot") == name else "running"
    return {
        "slot": name,
        "state": state,
        "live": live,
        "problem": None if state in ("live", "canary", "running", "stopped") else slot["problem"],
        "mode": release.get("mode"),
        "version": release.get("version"),
        "release": release.get("id"),
        "weight": (observed.get("serving") or {}).get("weights", {}).get(name, 0),
        "restarts": slot.get("restarts", 0),
        **{key: figures.get(key) for key in SLOT_FIGURES},
        "detail": figures.get("detail") if state != "stopped" else None,
    }


def _problem(level: str, what: str, command: str | None = None, does: str | None = None) -> Problem:
    return {"level": level, "what": what, "next": command, "does": does}


def _problems(shown: View, seen: Mapping[str, Any], limit: str) -> Iterable[Problem]:
    """What is wrong: {"level": bad or attention, "what", "next": a command or null, "does"}."""
    if not shown["slots"]:
        yield _problem(
            "attention", "nothing is deployed here", f"ansible-playbook deploy.yml{limit}", "deploys the manifest"
        )
        return
    yield from _broken(shown, seen, limit)
    yield from _judged(shown, limit)
    if shown["drift"]:
        yield _drifts(shown, seen["observed"]["state"], limit)


def _drifts(shown: View, state: Mapping[str, Any], limit: str) -> Problem:
    """How the manifest differs, and the way there; none to what this host has taken away, nor past a canary's gate."""
    wanted, words = shown["wanted"], f"drift: {shown['drift']}"
    why = next((one["why"] for one in state.get("rejected") or [] if str(one["version"]) == wanted["version"]), None)
    if why:
        words += f"; {wanted['version']} {LEFT.get(why, why)} here: name a version that is mended in the manifest"
        return _problem("attention", words)
    same = any(slot["live"] and slot["version"] == wanted["version"] for slot in shown["slots"])
    by_promotion = same or wanted["mode"] == "canary"
    command = f"promote.yml -e mode={wanted['mode']}" if by_promotion else "deploy.yml"
    return _problem("attention", words, f"ansible-playbook {command}{limit}", "brings what the manifest says")


def _broken(shown: View, seen: Mapping[str, Any], limit: str) -> Iterable[Problem]:
    observed = seen["observed"]
    again = f"ansible-playbook deploy.yml{limit}"
    back = f"ansible-playbook rollback.yml{limit}"
    for slot in shown["slots"]:
        name = f"{slot['slot']} ({'live' if slot['live'] else 'canary'})"
        if slot["state"] == "down" and slot["live"]:
            yield _problem("bad", f"{name} is down", again, "starts it again")
        elif slot["state"] == "down":
            yield _problem("bad", f"{name} is down", back, "goes back")
        elif slot["state"] == "unhealthy":
            yield _problem("bad", f"{name} is unhealthy: {slot['problem']}", back, "goes back")
        if slot["restarts"] and slot["state"] != "stopped":
            times = "" if slot["restarts"] == 1 else f" {slot['restarts']} times"
            yield _problem("bad", f"{name} ended by itself and was started again{times}", back, "goes back")
    if observed["live"] and observed.get("serving") is None:
        words = f"nginx does not answer at {seen['options']['base_url']}"
        yield _problem("bad", words, again, "starts it again")
    for words in seen.get("problems") or []:
        yield _problem("bad", words)
    for slot in shown["slots"]:
        if slot["detail"]:
            yield _problem("attention", f"{slot['slot']} cannot be measured: {slot['detail']}")


def _judged(shown: View, limit: str) -> Iterable[Problem]:
    back = f"ansible-playbook rollback.yml{limit}"
    chaos = [slot for slot in shown["slots"] if slot["chaos"] not in (None, "none") and slot["state"] != "stopped"]
    recover = f"ansible-playbook chaos.yml -e chaos=recover{limit}"
    for slot in chaos:
        yield _problem("attention", f"chaos {slot['chaos']} is on in {slot['slot']}", recover, "ends it")
    for domain, decision in shown["policy"].items():
        outcome = decision["outcome"]
        words = f"policy {domain} {outcome}"
        if outcome == "unavailable":
            yield _problem("attention", words, f"ansible-playbook deploy.yml{limit}", "starts the policy engine")
        elif outcome == "denied" and domain == "canary":
            yield _problem("bad", words, None if chaos and not shown["canary"] else back, "goes back")
        elif outcome == "denied":
            yield _problem("attention", words)
