"""What swiftdeploy_metrics is asked for: which slots, where they show their metrics, what is no evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Where a slot that has no address is asked: nothing answers there, and the evidence says so.
NOWHERE = "127.0.0.1:9"
# Health, metrics and fault injection are not what users feel.
NO_EVIDENCE = ("/chaos", "/healthz", "/metrics")


def arguments(manifest: Mapping[str, Any], observed: Mapping[str, Any], slots: Iterable[str]) -> dict[str, Any]:
    """The arguments of swiftdeploy_metrics that follow from the manifest and from what swiftdeploy_stack saw."""
    services = manifest["services"]
    health, metrics = services["healthcheck"], services["metrics"]
    return {
        "slots": [
            {
                "slot": name,
                "url": f"http://{observed['slots'][name]['address'] or NOWHERE}{metrics['path']}",
                "match": [
                    where
                    for where in (observed["slots"][name]["address"], observed["slots"][name]["upstream"], name)
                    if where
                ],
            }
            for name in slots
        ],
        "timeout": health["timeout"],
        "names": dict(metrics),
        "exclude_paths": sorted({*NO_EVIDENCE, health["path"], metrics["path"]}),
        "proxy_log": dict(observed["proxy_log"]),
    }
