"""Every key that the manifest documents is shown for real by a test that is named here."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from support.workspace import REPOSITORY

RECORDS = "integration/test_records.py::test_whatever_changes_no_request_is_lost_and_the_way_back_is_open"
BOUNDS = "integration/test_proxy.py::test_the_proxy_bounds_no_application"
PORT = "integration/test_deploy.py::test_a_taken_port_is_named_before_anything_starts"
SLOWEST = "load/test_no_lost_request.py::test_no_request_is_lost"
WALK = "integration/test_walk.py::test_the_walk"
CANARY = "integration/test_canary.py::test_a_canary_"
POLICY = "fault/test_policy_engine.py::test_"
LOGIN = "integration/test_fleet_ssh.py::test_a_registry_that_wants_a_password"

# A key, or all keys below one, to a test that runs the real programs with it. Where it matters how a key comes and goes
# (at the first deploy, added later, removed later), that test does all three, in both runtimes.
SHOWN_BY = {
    "services.name": WALK,
    "services.image": WALK,
    "services.port": PORT,
    "services.version": WALK,
    "services.mode": WALK,
    "services.restart_policy": BOUNDS,
    "services.log_volume": BOUNDS,
    "services.command": BOUNDS,
    "services.env": BOUNDS,
    "services.secrets": "integration/test_deploy.py::test_secrets_reach_the_service_and_nothing_else",
    "services.healthcheck": BOUNDS,
    "services.resources": BOUNDS,
    "services.metrics": RECORDS,
    "nginx.image": WALK,
    "nginx.port": PORT,
    "nginx.proxy_timeout": SLOWEST,
    "nginx.drain_timeout": SLOWEST,
    "nginx.max_body": BOUNDS,
    "nginx.tls": BOUNDS,
    "nginx.real_ip": BOUNDS,
    "nginx.open_metrics": BOUNDS,
    "nginx.open_chaos": BOUNDS,
    "opa.image": "integration/test_opa_deployed.py::test_opa_is_bounded",
    "opa.port": "integration/test_opa_deployed.py::test_only_nginx_listens_beyond_loopback",
    "opa.timeout": POLICY + "an_engine_that_hangs_is_unavailable",
    "opa.failure_policy": POLICY + "the_failure_policies_the_other_way_round",
    "canary.weight": CANARY + "gets_its_percentage_and_then_all",
    "canary.steps": CANARY + "walks_its_steps_with_a_decision_at_each",
    "canary.window_seconds": CANARY + "walks_its_steps_with_a_decision_at_each",
    "canary.deadline_seconds": CANARY + "without_enough_evidence_waits_and_then_goes_back",
    "canary.min_requests": CANARY + "without_enough_evidence_waits_and_then_goes_back",
    "canary.probe_path": "integration/test_bent_evidence.py::test_a_service_is_judged_by_what_there_is",
    "canary.probe_requests": CANARY + "without_enough_evidence_waits_and_then_goes_back",
    "canary.sticky.cookie": "integration/test_canary.py::test_a_client_with_a_cookie_stays_with_its_release",
    "canary.sticky.header": "integration/test_canary.py::test_a_client_with_a_header_stays_with_its_release",
    "images.source": "integration/test_images.py::test_pull_alone_never_builds",
    "images.docker_config": "integration/test_images.py::test_a_folder_of_the_host_with_credentials_opens_a_registry",
    "images.login": LOGIN,
    "network": "integration/test_opa_deployed.py::test_no_way_to_opa_from_inside",
    "contact": BOUNDS,
}


def keys(part: Mapping[str, Any], schema: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every key that a manifest can have and that has a value of its own."""
    part = {**schema["$defs"][part["$ref"].rpartition("/")[2]], **part} if "$ref" in part else part
    if not part.get("properties"):
        yield ".".join(path)
    for name, below in part.get("properties", {}).items():
        yield from keys(below, schema, (*path, name))


def named_in(name: str) -> set[str]:
    """The tests in a file below tests/."""
    tree = ast.parse((REPOSITORY / "tests" / name).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_key_has_a_test_that_shows_it() -> None:
    schema = json.loads((REPOSITORY / "manifest.schema.json").read_text())
    documented = set(keys(schema, schema))
    assert len(documented) > 50
    shown = {key for key in documented if any(key == one or key.startswith(one + ".") for one in SHOWN_BY)}
    assert documented == shown, "add them to SHOWN_BY, each with a test that tries it in real programs"
    of_no_key = {one for one in SHOWN_BY if not any(key == one or key.startswith(one + ".") for key in documented)}
    assert not of_no_key, "the manifest has no such keys any more"


@pytest.mark.parametrize("shown_by", sorted(set(SHOWN_BY.values())))
def test_each_of_these_tests_is_there(shown_by: str) -> None:
    file, _separator, name = shown_by.partition("::")
    assert name in named_in(file)


def test_no_key_stands_twice_in_the_schema() -> None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _value in pairs]
        assert len(names) == len(set(names)), f"twice: {names}"
        return dict(pairs)

    json.loads((REPOSITORY / "manifest.schema.json").read_text(), object_pairs_hook=once)
