"""What swiftdeploy_metrics is asked for: which slots, where they show their metrics, what is no evidence."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from swiftdeploy_target import state
from swiftdeploy_target.access_log import MARKS
from swiftdeploy_target.samples import FILE_NAME

# Where a slot that has no address is asked: nothing answers there, and the evidence says so.
NOWHERE = "127.0.0.1:9"
# Health, metrics and fault injection are not what users feel.
NO_EVIDENCE = ("/chaos", "/healthz", "/metrics")
# A kept sample is a first scrape until it is this many windows old. More would let an old calm hide a fault.
KEPT_WINDOWS = 2


def arguments(
    manifest: Mapping[str, Any], observed: Mapping[str, Any], slots: Iterable[str], base_url: str
) -> dict[str, Any]:
    """The arguments of swiftdeploy_metrics that follow from the manifest and from what swiftdeploy_stack saw.

    A slot is asked as its release was when it was started; the manifest says what comes next.
    """
    services, slots = manifest["services"], list(slots)
    held = {name: observed["state"]["slots"].get(name) for name in slots}
    health = {name: state.health_of(release, services["healthcheck"]) for name, release in held.items()}
    metrics = {name: state.metrics_of(release, services["metrics"]) for name, release in held.items()}
    return {
        "slots": [
            {
                "slot": name,
                "url": f"http://{observed['slots'][name]['address'] or NOWHERE}{metrics[name]['path']}"
                if metrics[name]["path"]
                else "",
                "names": metrics[name],
                "match": [
                    where
                    for where in (observed["slots"][name]["address"], observed["slots"][name]["upstream"], name)
                    if where
                ],
            }
            for name in slots
        ],
        "timeout": max(question["timeout"] for question in health.values()),
        "exclude_paths": sorted(
            {*NO_EVIDENCE, *(one["path"] for one in (*health.values(), *metrics.values()) if one["path"])}
        ),
        "health_interval": min(float(question["interval"]) for question in health.values()),
        "proxy_log": dict(observed["proxy_log"]),
        "mark_url": base_url + MARKS,
        "stack_dir": observed.get("stack_dir"),
    }


def probes(
    manifest: Mapping[str, Any], base_url: str, run_id: str, words: Iterable[str] = (), count: int | None = None
) -> dict[str, Any]:
    """Option probes of swiftdeploy_metrics: requests of our own through nginx, with a mark that nobody can guess."""
    settings = manifest["canary"]
    return {
        "url": base_url + settings["probe_path"],
        "count": int(settings["probe_requests"]) if count is None else count,
        "header_value": f"{run_id}-{secrets.token_hex(8)}",
        "slots": list(words),
        # An application that insists on its own name refuses every other one.
        **({"host_header": host} if (host := manifest["services"]["healthcheck"].get("host")) else {}),
    }


def kept(manifest: Mapping[str, Any], observed: Mapping[str, Any], stack_dir: str, use: bool) -> dict[str, Any]:
    """Option kept of swiftdeploy_metrics: which samples the host keeps, and whether one may be the first scrape."""
    window = float(manifest["canary"]["window_seconds"])
    slots = observed["state"]["slots"]
    return {
        "path": f"{stack_dir}/{FILE_NAME}",
        "releases": {name: release["id"] for name, release in slots.items() if release},
        "window_seconds": window,
        "max_age": KEPT_WINDOWS * window,
        "min_requests": int(manifest["canary"]["min_requests"]),
        "use": use,
    }


def told(evidence: Mapping[str, Any]) -> str:
    """What a decision rests on, in one line for a person; empty where nothing was measured."""
    if evidence.get("status") != "measured":
        return ""
    requests, window = evidence["requests"], evidence["window_seconds"]
    words = f"{requests:.15g} request{'' if requests == 1 else 's'} in {window:.1f} s"
    if evidence.get("first_sample") == "kept":
        words += " up to now"
    if evidence.get("rests_on") == ["proxy"]:
        words += " at the proxy alone (the service has no metrics)"
    share = evidence.get("probe_share")
    if share is not None:
        seen = evidence["proxy_probes"] / share if share else evidence["proxy_requests"]
        words += f", {evidence['proxy_probes']} of {seen:.0f} at the proxy were probes ({100 * share:.0f} %)"
    return "; ".join([words, *_remarks(evidence)])


def _remarks(evidence: Mapping[str, Any]) -> Iterator[str]:
    """What a person should know of the evidence beyond how much of it there is."""
    if str(evidence.get("counted_by") or "").endswith("_count"):
        yield f"counted by {evidence['counted_by']}"
    for figure, why in (evidence.get("untold") or {}).items():
        yield f"{_FIGURES.get(figure, figure)} by the proxy alone ({why})"
    for figure, words in _COUNTS.items():
        number = evidence.get(figure)
        if number:
            yield words.format(number)
    share = evidence.get("proxy_client_error_rate")
    if share:
        yield f"{100 * share:.2g} % of the answers were of 400 to 499 and do not count"
    share = evidence.get("largest_source_share")
    if share is not None and 0.5 < share < 1:
        yield f"one address sent {100 * share:.0f} % of the clients' requests"
    methods = evidence.get("proxy_methods") or {}
    if evidence.get("probe_share") == 1 and len(methods) == 1:
        yield f"nothing but {next(iter(methods))} was tried"
    missed = [f"{one['route']} ({one['requests']})" for one in evidence.get("unexercised") or []]
    if missed:
        more = f" and {len(missed) - _NAMED} more" if len(missed) > _NAMED else ""
        yield f"not exercised: {', '.join(missed[:_NAMED])}{more}"


_FIGURES = {"error_rate": "errors", "p99_latency_ms": "P99"}
_COUNTS = {
    "proxy_abandoned": "{} left without an answer",
    "proxy_broken": "{} answers were broken off",
    "proxy_left": "{} left in the middle of an answer",
    "proxy_forced": "{} whose client chose the slot do not count",
    "probes_failed": "{} probes failed",
}
# Routes that are named in a line.
_NAMED = 3
