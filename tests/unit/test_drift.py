"""What a dry run of a deploy tells of the release that runs, held against the manifest."""

from __future__ import annotations

from typing import Any

import pytest

from swiftdeploy import release

WHEN = "2026-01-02T03:04:05.678Z"


def spec(mode: str = "stable", image_id: str = "sha256:1", **services: Any) -> dict[str, Any]:
    given = {
        **dict.fromkeys(release.SERVICE_KEYS),
        "healthcheck": {},
        "name": "app",
        "image": "app:1",
        "version": "1.0.0",
        "env": {"LEVEL": "info"},
        "secrets": ["TOKEN"],
        "resources": {},
        **services,
    }
    return release.make_spec({"services": given, "network": {"name": "n"}}, mode, "docker", {"image_id": image_id})


def observed(live: dict[str, Any] | None, beside: dict[str, Any] | None = None, weight: int = 10) -> dict[str, Any]:
    slots = {
        "blue": release.make_release(live, "blue", WHEN) if live else None,
        "green": release.make_release(beside, "green", WHEN) if beside else None,
    }
    canary = {"slot": "green", "weight": weight} if beside else None
    return {"state": {"live": "blue" if live else None, "slots": slots, "canary": canary}}


def drift(found: dict[str, Any], wanted: dict[str, Any]) -> tuple[str, dict[str, str] | None]:
    told = release.drift(found, wanted, "web1", "manifest.yaml")
    return told["words"], told["diff"]


def test_what_runs_as_the_manifest_says_is_no_drift() -> None:
    words, diff = drift(observed(spec()), spec())
    assert words.startswith("no drift: runs v1.0.0 (stable), release 20260102T030405Z-")
    assert diff is None


def test_a_canary_of_it_is_on_its_way() -> None:
    words, diff = drift(observed(spec(), spec("canary", version="2.0.0")), spec(version="2.0.0"))
    assert words == "no drift: v2.0.0 (stable) of manifest.yaml is on its way, in green with 10 %"
    assert diff is None


@pytest.mark.parametrize(
    ("wanted", "words", "gone", "new"),
    [
        (spec(version="2.0.0"), "manifest.yaml says v2.0.0 (stable)", "version: 1.0.0", "version: 2.0.0"),
        (spec("canary"), "manifest.yaml says v1.0.0 (canary)", "mode: stable", "mode: canary"),
        (spec(env={"LEVEL": "debug"}), "with another env.LEVEL", "env.LEVEL: info", "env.LEVEL: debug"),
        (
            spec(image_id="sha256:2"),
            "with another artifact.image_id",
            "artifact.image_id: sha256:1",
            "artifact.image_id: sha256:2",
        ),
    ],
)
def test_what_differs_is_told_in_a_line_and_in_a_diff(wanted: dict[str, Any], words: str, gone: str, new: str) -> None:
    found, diff = drift(observed(spec()), wanted)
    assert found.startswith("drift: runs v1.0.0 (stable), release 2026")
    assert words in found
    assert diff is not None
    before, after = diff["before"].splitlines(), diff["after"].splitlines()
    assert (sorted(set(before) - set(after)), sorted(set(after) - set(before))) == ([gone], [new])
    assert diff["before_header"].startswith("web1: release 2026")
    assert diff["after_header"] == "web1: manifest.yaml"


def test_a_host_where_nothing_runs() -> None:
    words, diff = drift(observed(None), spec())
    assert words == "drift: nothing runs, manifest.yaml says v1.0.0 (stable)"
    assert diff is not None
    assert (diff["before"], diff["before_header"]) == ("", "web1: nothing runs")
