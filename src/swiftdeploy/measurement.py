"""What swiftdeploy_metrics is asked for: which slots, where they show their metrics, what is no evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from swiftdeploy_target import state
from swiftdeploy_target.samples import FILE_NAME

# Where a slot that has no address is asked: nothing answers there, and the evidence says so.
NOWHERE = "127.0.0.1:9"
# Health, metrics and fault injection are not what users feel.
NO_EVIDENCE = ("/chaos", "/healthz", "/metrics")
# A kept sample is a first scrape until it is this many windows old. More would let an old calm hide a fault.
KEPT_WINDOWS = 2


def arguments(manifest: Mapping[str, Any], observed: Mapping[str, Any], slots: Iterable[str]) -> dict[str, Any]:
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
                "url": f"http://{observed['slots'][name]['address'] or NOWHERE}{metrics[name]['path']}",
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
        "exclude_paths": sorted({*NO_EVIDENCE, *(one["path"] for one in (*health.values(), *metrics.values()))}),
        "proxy_log": dict(observed["proxy_log"]),
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
    words = f"{requests:.0f} request{'' if requests == 1 else 's'} in {window:.1f} s"
    if evidence.get("first_sample") == "kept":
        words += " up to now"
    share = evidence.get("probe_share")
    if share is None:
        return words
    probes, seen = evidence["proxy_probes"], evidence["proxy_requests"]
    return f"{words}, {probes} of {seen} at the proxy were probes ({100 * share:.0f} %)"
