"""A release is reached, judged and brought back as it was started, whatever the manifest says by then."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from typing import Any

import requests

from conftest import in_docker
from support.clients import Load
from support.workspace import REPOSITORY, Workspace

SERVICE = REPOSITORY / "tests" / "support" / "services" / "named.py"
SAME = f"  command: [{sys.executable}, {SERVICE}]\n  restart_policy: always"
NAMES = f"""\
  command: [{sys.executable}, -u, {SERVICE}]
  restart_policy: unless-stopped
  env: {{HEALTH_PATH: /up, METRICS_PATH: /stats, REQUESTS: calls_total, DURATION: took, BUSY: busy, STATUS_LABEL: code}}
  resources: {{pids: 400}}
  healthcheck: {{path: /up, interval: 3s, timeout: 3s, start_timeout: 30s}}
  metrics: {{path: /stats, requests: calls_total, duration: took, in_progress: busy, status_labels: [code]}}"""
WIDE = "  max_body: 200k\n  proxy_timeout: 9s\n  drain_timeout: 12s"
NARROW = "  max_body: 1k\n  proxy_timeout: 5s\n  drain_timeout: 6s\n  open_metrics: true\n  open_chaos: true"
CANARY = "  steps: [50]\n  min_requests: 1"


def state(workspace: Workspace) -> dict[str, Any]:
    """What the host remembers."""
    found: dict[str, Any] = json.loads((workspace.folder / ".swiftdeploy" / workspace.name / "state.json").read_text())
    return found


def record(workspace: Workspace) -> dict[str, Any]:
    """The record of the release that is live."""
    seen = state(workspace)
    found: dict[str, Any] = seen["slots"][seen["live"]]
    return found


def upload(workspace: Workspace) -> int:
    """How 100 kB are taken."""
    return requests.post(workspace.url, data=b"x" * 100_000, timeout=10).status_code


def test_whatever_changes_no_request_is_lost_and_the_way_back_is_open(
    make_workspace: Callable[[str], Workspace],
) -> None:
    workspace = make_workspace("process")
    first_port = workspace.service_port
    # A neighbour that took the port moves the release beside it.
    with socket.create_server(("127.0.0.1", first_port)):
        workspace.write_manifest(services=SAME, nginx=WIDE, canary=CANARY)
        workspace.play("deploy").ok()
    first = record(workspace)
    assert first["port"] == first_port + 1
    with Load(workspace.url) as load:
        # Another address, other questions, other names: the canary and what it is held against have each their own.
        workspace.service_port = first_port - 500
        workspace.write_manifest("2.0.0", services=NAMES, nginx=WIDE, canary=CANARY)
        walked = workspace.play("promote", "-e", "mode=canary").ok()
        assert workspace.get().json() == {"version": "2.0.0", "mode": "canary"}
        assert (record(workspace)["port"], record(workspace)["spec"]["metrics"]["path"]) == (
            workspace.service_port,
            "/stats",
        )
        assert workspace.last("promote_step")["policy"]["canary"]["outcome"] == "allowed", walked.text
        status = workspace.play("status", "-e", "once=true").ok()
        assert "cannot be measured" not in status.text
        # The manifest goes on, the release that runs does not: nothing of it is asked in the new way.
        workspace.service_port = first_port + 700
        workspace.write_manifest("3.0.0", mode="canary", services=SAME, nginx=NARROW)
        assert "unhealthy" not in workspace.play("status", "-e", "once=true").ok().text
        assert upload(workspace) == 200
        workspace.play("rollback").ok()
        back = record(workspace)
        assert workspace.get().json() == {"version": "1.0.0", "mode": "stable"}
        assert (back["spec"], back["proxy"]) == (first["spec"], first["proxy"])
        assert [entry["outcome"] for entry in state(workspace)["releases"]][-2:] == ["rolled_back", "live"]

        # Other settings of the proxy, with and without another release.
        workspace.write_manifest("3.0.0", services=SAME, nginx=NARROW)
        workspace.play("deploy").ok()
        assert upload(workspace) == 413
        assert workspace.get("/metrics").status_code == 200
        workspace.play("rollback").ok()
        assert upload(workspace) == 200
        assert record(workspace)["proxy"] == first["proxy"]
    assert load.failed == []
    assert {"1.0.0", "2.0.0", "3.0.0"} == set(load.answers)


@in_docker
def test_a_changed_port_in_containers(deployed: Workspace) -> None:
    with Load(deployed.url) as load:
        deployed.service_port = 4000
        try:
            deployed.write_manifest("1.0.1")
            deployed.play("deploy").ok()
            assert record(deployed)["port"] == 4000
            deployed.play("rollback").ok()
        finally:
            deployed.service_port = 3000
    assert record(deployed)["port"] == 3000
    assert load.failed == []
    assert set(load.answers) == {"1.0.0", "1.0.1"}
