"""What a set of decisions means for a run."""

from __future__ import annotations

from typing import Any

import pytest

from swiftdeploy import decisions, words
from swiftdeploy_target.images import whole_name

ALLOWED: dict[str, Any] = {"outcome": "allowed", "reasons": [], "checked": {}, "thresholds": {}}
DENIED = ALLOWED | {"outcome": "denied", "reasons": ["frozen by weekend"]}
SILENT = ALLOWED | {"outcome": "unavailable", "reasons": ["OPA refused the connection"], "cause": "refused"}
OVERRIDE = {"accepted": True, "reason": "the shop is down", "actor": "ada@c1", "overridden": ["frozen by weekend"]}
REFUSED = OVERRIDE | {"accepted": False, "overridden": []}


def test_what_was_not_asked_of_a_silent_engine_is_unavailable_too() -> None:
    assert decisions.unasked({"change": SILENT}, ["change", "canary"]) == {"canary": SILENT}
    assert decisions.unasked({"change": ALLOWED, "canary": SILENT}, ["change", "canary"]) == {}


def test_what_was_not_asked_after_a_denial_has_no_outcome() -> None:
    assert decisions.unasked({"change": DENIED}, ["change", "canary"]) == {}
    assert decisions.unasked({}, ["canary"]) == {}


def test_an_override_is_put_together_over_the_domains() -> None:
    infrastructure = ALLOWED | {"override": OVERRIDE | {"overridden": ["disk is full", "load is high"]}}
    found = decisions.overridden(
        {"change": ALLOWED | {"override": OVERRIDE}, "infrastructure": infrastructure, "canary": ALLOWED}
    )
    assert found == {
        "reason": "the shop is down",
        "actor": "ada@c1",
        "overridden": {"change": ["frozen by weekend"], "infrastructure": ["disk is full", "load is high"]},
    }
    assert decisions.loud(found).splitlines() == [
        "WARNING: OVERRIDE by ada@c1: the shop is down",
        "change: frozen by weekend",
        "infrastructure: disk is full",
        "infrastructure: load is high",
    ]
    assert decisions.summary(found) == (
        "the shop is down (went past change: frozen by weekend; infrastructure: disk is full, load is high)"
    )


def test_a_refused_override_is_none() -> None:
    assert decisions.overridden({"change": DENIED | {"override": REFUSED}, "canary": ALLOWED}) == {}


def test_decisions_in_one_line_say_what_is_behind_an_allowed() -> None:
    bare = ALLOWED | {
        "checked": {"not_applicable": {"engine_disk_free_gb": "no engine", "inodes_free_percent": "btrfs"}}
    }
    asked = {"change": ALLOWED | {"override": OVERRIDE}, "infrastructure": bare, "canary": DENIED}
    assert words.decisions(asked) == (
        "policy: change allowed (by override), "
        "infrastructure allowed (not applicable: engine_disk_free_gb, inodes_free_percent), "
        "canary denied (frozen by weekend)"
    )
    # The reasons end the run, and are not told twice.
    assert words.decisions({"canary": DENIED}, stops=True) == "policy: canary denied"


def test_a_dry_decision_tells_reasons_and_each_figure_with_its_limit() -> None:
    held = {
        "checked": {"disk_free_gb": 4.20, "cpu_load_1m": 0.5, "inodes_free_percent": None, "disk_path": "/"},
        "thresholds": {
            "disk_free_gb": {"min": 10},
            "cpu_load_1m": {"min": 0, "max": 2.0},
            "inodes_free_percent": {"min": 5},
            "not_measured": {"max": 1},
            "floating": {"allowed": False},
            "environment": "local",
        },
    }
    asked = {"change": ALLOWED | {"override": OVERRIDE}, "infrastructure": DENIED | held}
    assert words.dry_decisions(asked, "deploy", "web1").splitlines() == [
        "web1  the policy would say to deploy now:",
        "  change allowed (by override)",
        "  infrastructure denied",
        "    frozen by weekend",
        "    cpu_load_1m 0.5 (min 0, max 2)",
        "    disk_free_gb 4.2 (min 10)",
        "    inodes_free_percent not measured (min 5)",
    ]


IMAGES = {
    "service": {"name": "app:1", "id": "sha256:a"},
    "nginx": {"name": "nginx:1", "id": "sha256:b"},
    "opa": {"name": "opa:1", "id": "sha256:c"},
}


def test_an_image_that_runs_in_its_place_is_not_new() -> None:
    running = {"blue": "sha256:a", "nginx": "sha256:b", "opa": "sha256:c"}
    assert decisions.new_images(IMAGES, running) == []
    assert decisions.new_images(IMAGES, {"green": "sha256:a", "nginx": "sha256:b", "opa": "sha256:c"}) == []
    assert decisions.new_images(IMAGES, running | {"nginx": "sha256:a"}) == ["nginx"]
    assert decisions.new_images(IMAGES, {}) == ["service", "nginx", "opa"]
    assert decisions.new_images(IMAGES | {"opa": {"name": "opa:1", "id": None}}, running) == ["opa"]
    assert decisions.new_images({}, running) == []


DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("name", "registry", "repository", "tag", "digest"),
    [
        ("nginx", "docker.io", "library/nginx", "", ""),
        ("nginx:1.31.3", "docker.io", "library/nginx", "1.31.3", ""),
        ("library/nginx:1", "docker.io", "library/nginx", "1", ""),
        ("docker.io/nginx", "docker.io", "library/nginx", "", ""),
        ("index.docker.io/library/nginx", "docker.io", "library/nginx", "", ""),
        ("docker.io/acme/app:2", "docker.io", "acme/app", "2", ""),
        ("acme/app", "docker.io", "acme/app", "", ""),
        ("ghcr.io/acme/team/app:2", "ghcr.io", "acme/team/app", "2", ""),
        ("localhost/app", "localhost", "app", "", ""),
        ("localhost:5000/app:2", "localhost:5000", "app", "2", ""),
        ("registry.example.com:5000/team/app", "registry.example.com:5000", "team/app", "", ""),
        ("Registry.Example.com/app", "registry.example.com", "app", "", ""),
        (f"nginx@{DIGEST}", "docker.io", "library/nginx", "", DIGEST),
        (f"ghcr.io/acme/app:2@{DIGEST}", "ghcr.io", "acme/app", "2", DIGEST),
    ],
)
def test_a_name_as_the_registry_knows_it(name: str, registry: str, repository: str, tag: str, digest: str) -> None:
    assert whole_name(name) == {
        "name": name,
        "registry": registry,
        "repository": repository,
        "tag": tag,
        "digest": digest,
    }


@pytest.mark.parametrize("name", ["", "Nginx", "nginx:", "nginx:la test", "https://ghcr.io/app", "nginx@sha256:0"])
def test_what_is_no_image_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not an image name"):
        whole_name(name)
