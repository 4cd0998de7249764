"""The main job from the first deploy to the teardown, on real nginx, real OPA and the real service, in containers.

The process runtime's is walked by a newcomer (test_newcomer.py), and on every version (tests/versions).
"""

from __future__ import annotations

import concurrent.futures
import re
import socket
from collections.abc import Callable

import pytest

from support.history_schema import violations
from support.workspace import Workspace


def drive(workspace: Workspace, count: int = 30) -> list[int]:
    """Send ``count`` requests through nginx; their status codes."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _number: workspace.get().status_code, range(count)))


@pytest.mark.docker
def test_the_walk(make_workspace: Callable[[str], Workspace]) -> None:
    """README's walk: deploy, look, canary, chaos, denied, recover, stable, audit, teardown."""
    workspace = make_workspace("docker")
    first = workspace.play("deploy").ok()
    assert re.search(r"Deployment successful  localhost  v1\.0\.0 \(stable\)  [\d.]+ (s|min)", first.out)

    answer = workspace.get()
    assert answer.json()["mode"] == "stable"
    assert answer.json()["version"] == "1.0.0"
    assert answer.headers["X-Deployed-By"] == "swiftdeploy"
    assert "X-Mode" not in answer.headers
    assert "http_requests_total" in workspace.get("/metrics").text
    assert workspace.get("/healthz").json()["status"] == "ok"

    promoted = workspace.play("promote", "-e", "mode=canary").ok()
    assert "Promotion successful  localhost  v1.0.0 (canary)" in promoted.out
    answer = workspace.get()
    assert answer.headers["X-Mode"] == "canary"
    assert answer.json()["mode"] == "canary"
    manifest = (workspace.folder / "manifest.yaml").read_text()
    assert "  mode: canary\n" in manifest
    assert "# a comment of the user" in manifest
    assert "# the version" in manifest

    workspace.play("chaos", "-e", "chaos=error", "-e", "rate=0.5").ok()
    assert 500 in drive(workspace, 60)
    assert workspace.get("/healthz").status_code == 200

    status = workspace.play("status", "-e", "once=true").ok()
    assert re.search(r"✗ policy canary denied: .*error rate is \d+\.\d+ %, maximum is 1\.00 %", status.out, re.DOTALL)
    scrape = workspace.last("status_scrape")
    assert scrape["chaos"] == "error"
    assert scrape["policy"]["canary"]["outcome"] == "denied"
    assert 0 < scrape["error_rate"] < 1

    before = workspace.get("/_swiftdeploy/routing").json()
    denied = workspace.play("promote", "-e", "mode=canary").failed()
    assert re.search(r"DENIED  localhost  .*error rate is \d+\.\d+ %, maximum is 1\.00 %", denied.out)
    assert workspace.get("/_swiftdeploy/routing").json() == before
    blocked = workspace.last("promote_blocked")
    assert blocked["policy"]["canary"]["decision_id"]
    assert "maximum is 1.00 %" in blocked["reason"]

    # Another version must not become stable while it fails, either.
    workspace.write_manifest(version="1.1.0", mode="canary")
    denied = workspace.play("promote", "-e", "mode=stable").failed()
    assert "DENIED  localhost" in denied.out
    assert workspace.get("/_swiftdeploy/routing").json() == before

    workspace.play("chaos", "-e", "chaos=recover").ok()
    assert set(drive(workspace)) == {200}
    stable = workspace.play("promote", "-e", "mode=stable").ok()
    assert "v1.1.0 (stable)" in stable.out
    answer = workspace.get()
    assert answer.json()["version"] == "1.1.0"
    assert "X-Mode" not in answer.headers

    workspace.play("audit").ok()
    report = (workspace.folder / "audit_report.md").read_text()
    for part in ("Timeline", "Mode changes", "Chaos injections", "Policy violations"):
        assert part in report, part
    assert "promote_blocked" in report

    seen = [record["event"] for record in workspace.history()]
    for event in ("deploy", "promote", "chaos", "status_scrape", "promote_blocked"):
        assert event in seen
    assert violations(workspace.folder / "history.jsonl") == []

    workspace.clear().ok()
    assert workspace.docker_leftovers() == []
    for port in (workspace.port, workspace.opa_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert not (workspace.folder / "generated").exists()
    assert not list((workspace.folder / ".swiftdeploy").rglob("*"))
    assert (workspace.folder / "history.jsonl").exists()
    workspace.play("teardown").ok()
