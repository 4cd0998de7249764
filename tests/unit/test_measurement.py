"""What a measurement is asked for, out of the manifest and of what runs."""

from __future__ import annotations

from typing import Any

import pytest

from swiftdeploy import canary, manifest, measurement

MANIFEST = """
services: {image: "app:1.0", port: 3000, healthcheck: {interval: 4s}%s}
nginx: {image: "nginx:1.31.3", port: 8080}
network: {name: app-net, driver_type: bridge}
"""


def config(metrics: str = "") -> dict[str, Any]:
    return manifest.parse((MANIFEST % metrics).encode(), "manifest.yaml").config


def observed(**spec: Any) -> dict[str, Any]:
    slot = {"address": "127.0.0.1:3000", "upstream": "blue:3000"}
    return {
        "slots": {"blue": slot},
        "state": {"slots": {"blue": {"id": "r1", "spec": spec}}},
        "proxy_log": {"kind": "file", "path": "/log"},
    }


def test_a_service_without_metrics_is_not_asked_for_them() -> None:
    none = config(", metrics: none")
    assert none["services"]["metrics"]["path"] == ""
    asked = measurement.arguments(none, observed(), ["blue"], "http://127.0.0.1:8080")
    assert asked["slots"][0]["url"] == ""
    assert asked["exclude_paths"] == ["/chaos", "/healthz", "/metrics"]
    assert (asked["mark_url"], asked["health_interval"]) == ("http://127.0.0.1:8080/_swiftdeploy/mark/", 4)
    # A release that has metrics keeps them, whatever the manifest says of the next one.
    held = measurement.arguments(none, observed(metrics={"path": "/m"}), ["blue"], "")
    assert held["slots"][0]["url"] == "http://127.0.0.1:3000/m"
    assert measurement.arguments(config(), observed(), ["blue"], "")["slots"][0]["url"].endswith(":3000/metrics")


@pytest.mark.parametrize("text", ["nothing", "None", '""', "[]", "true"])
def test_none_is_the_only_word(text: str) -> None:
    with pytest.raises(manifest.ManifestError) as caught:
        config(f", metrics: {text}")
    assert "or the word none" in str(caught.value)


def test_probes_ask_for_the_path_and_carry_a_mark_that_nobody_can_guess() -> None:
    settings = config()
    one, two = (measurement.probes(settings, "http://127.0.0.1:8080", "run", ["canary"]) for _ in range(2))
    assert (one["url"], one["count"], one["slots"]) == ("http://127.0.0.1:8080/", 20, ["canary"])
    assert one["header_value"].startswith("run-")
    assert one["header_value"] != two["header_value"]
    settings["canary"]["probe_path"] = "/shop"
    settings["services"]["healthcheck"]["host"] = "shop.example.org"
    named = measurement.probes(settings, "", "run", count=3)
    assert (named["url"], named["count"], named["host_header"]) == ("/shop", 3, "shop.example.org")


@pytest.mark.parametrize(("total", "more"), [(0, 0), (1, 1), (20, 2), (5, 1)])
def test_none_means_none_while_more_evidence_is_waited_for(total: int, more: int) -> None:
    assert canary.probes_due(total, 30, 33, total) == more
