"""What strangers, clients and a service itself do to the evidence of a canary, and what the gate makes of it.

A canary beside the stable release, both with half of the traffic; the real log of the real nginx, measured as a step
measures it and decided by the shipped policies.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

from conftest import in_process
from integration.test_canary import TO_CANARY, host_ports, host_state, set_chaos
from integration.test_metrics import Playbook
from support.workspace import Workspace
from swiftdeploy import measurement

WINDOW = 2.5
POLICIES = Path(__file__).resolve().parents[2] / "policies"


class Gate:
    """Measures the canary of a deployed stack, and asks what the policies say of it."""

    def __init__(self, workspace: Workspace, folder: Path, opa: str) -> None:
        self.workspace, self.opa = workspace, opa
        self.playbook = Playbook(folder)
        state, ports = host_state(workspace), host_ports(workspace)
        self.canary, self.stable = state["canary"]["slot"], state["live"]
        self.addresses = {slot: f"127.0.0.1:{ports[slot]}" for slot in (self.canary, self.stable)}
        (self.log,) = (workspace.folder / ".swiftdeploy").glob("*/logs/nginx.log")
        manifest = {"canary": {"probe_path": "/", "probe_requests": 20}, "services": {"healthcheck": {}}}
        self.probes = measurement.probes(manifest, workspace.url, "run", ["canary", "stable"])

    def decide(self, probes: int = 20, patience: float = 10) -> tuple[dict[str, Any], dict[str, Any]]:
        """The canary's evidence over one window, and the decision on it."""
        call = {
            "slots": [
                {"slot": slot, "url": f"http://{self.addresses[slot]}/metrics", "match": [self.addresses[slot], slot]}
                for slot in (self.canary, self.stable)
            ],
            "window_seconds": WINDOW,
            "probes": {**self.probes, "count": probes, "timeout": patience},
            "proxy_log": {"kind": "file", "path": str(self.log)},
            "mark_url": f"{self.workspace.url}/_swiftdeploy/mark/",
        }
        (measured,) = self.playbook.measure(call)
        evidence = measured["evidence"]
        question = {
            "evidence": evidence[self.canary],
            "baseline": evidence[self.stable],
            "min_requests": 20,
            "partial": False,
        }
        words = [self.opa, "eval", "--data", str(POLICIES), "--stdin-input", "--format", "raw"]
        done = subprocess.run(
            [*words, "data.swiftdeploy.canary.decision"],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            check=True,
        )
        return evidence[self.canary], json.loads(done.stdout)


@contextlib.contextmanager
def using(*clients: Callable[[], object], pause: float = 0.01) -> Iterator[None]:
    """Each client in a thread of its own, again and again."""
    end = threading.Event()

    def go_on(client: Callable[[], object]) -> None:
        while not end.wait(pause):
            with contextlib.suppress(requests.RequestException):
                client()

    threads = [threading.Thread(target=go_on, args=(one,)) for one in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()


@in_process
def test_nobody_bends_the_evidence_of_a_canary(deployed: Workspace, tmp_path: Path, opa_binary: str) -> None:
    deployed.write_manifest("2.0.0", canary="  weight: 50")
    deployed.play("promote", "-e", "mode=canary").ok()
    gate = Gate(deployed, tmp_path, opa_binary)
    url = deployed.url

    def user() -> None:
        requests.get(url, timeout=10)

    with using(user, lambda: requests.post(f"{url}/", timeout=10)):
        good, decision = gate.decide()
    assert decision["allow"], decision["reasons"]
    assert (good["proxy_truncated"], good["views_gap"], good["probes_failed_rate"]) == (False, 0, 0)
    assert good["probes_sent"] == 20
    # POST / is 405 at both: nothing that is there, so nothing that is missed, and no evidence.
    assert good["unexercised"] == []
    assert good["proxy_client_error_rate"] > 0.2

    # A canary that fails one in five, and strangers who would have it look well.
    set_chaos(deployed, TO_CANARY, mode="error", rate=0.2)
    flood = [
        lambda: requests.get(f"{url}/nowhere", headers=TO_CANARY, timeout=10),
        lambda: requests.get(f"{url}/nowhere", timeout=10),
        lambda: requests.get(f"{url}/x", headers={**TO_CANARY, "X-SwiftDeploy-Probe": "mine"}, timeout=10),
    ]
    with using(user, *flood):
        bent, decision = gate.decide()
    assert bent["proxy_forced"] > 50
    assert bent["proxy_error_rate"] > 0.05
    assert bent["error_rate"] > 0.05
    assert not decision["allow"]
    assert not decision["insufficient"]

    # Clients give up, and so do our own probes.
    set_chaos(deployed, TO_CANARY, mode="recover")
    set_chaos(deployed, TO_CANARY, mode="slow", duration=0.5)

    def impatient() -> None:
        with contextlib.suppress(requests.RequestException):
            requests.get(url, timeout=0.1)

    with using(impatient, impatient):
        left, decision = gate.decide(patience=0.3)
    assert left["abandoned_rate"] > 0.5
    assert left["probes_failed_rate"] == 1
    assert not decision["allow"]
    assert not decision["insufficient"]
    assert any("left without an answer" in reason for reason in decision["reasons"])
    assert any("of our own probes had no answer" in reason for reason in decision["reasons"])
    set_chaos(deployed, TO_CANARY, mode="recover")

    # Nobody came, and no probe was sent.
    quiet, decision = gate.decide(probes=0)
    assert (quiet["proxy_requests"], quiet["probes_sent"], quiet["proxy_probes"]) == (0, 0, 0)
    assert decision["insufficient"]
    assert decision["reasons"][-1].startswith("at the proxy, 0 requests in ")

    # Traffic past the proxy: figures that it knows nothing of.
    with using(lambda: requests.get(f"http://{gate.addresses[gate.canary]}/", timeout=10), pause=0):
        invented, decision = gate.decide()
    assert invented["views_gap"] > 0.5
    assert decision["insufficient"]
    assert any("apart" in reason for reason in decision["reasons"])

    # A log that lost the begin of the window. Ours is emptied; a rotation loses it the same way.
    def empty() -> None:
        while b"/_swiftdeploy/mark/" not in gate.log.read_bytes():
            time.sleep(0.05)
        time.sleep(0.5)
        gate.log.write_bytes(b"")

    gate.log.write_bytes(b"")
    losing = threading.Thread(target=empty)
    losing.start()
    lost, decision = gate.decide()
    losing.join()
    assert lost["proxy_truncated"] is True
    assert decision["insufficient"]
    assert any("at the proxy, nothing is known" in reason for reason in decision["reasons"])


SERVICE = """
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
counts = {}
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/healthz": return self.answer(200, b"ok")
        if self.path == "/metrics" and os.environ["METRICS"] == "none": return self.answer(404, b"no such page")
        if self.path == "/metrics": return self.answer(200, self.page().encode())
        if self.path != "/shop": return self.answer(404, b"not here")
        if os.environ.get("FAULT") == "hang": time.sleep(60)
        self.answer(200, json.dumps({"version": os.environ["APP_VERSION"]}).encode())
        counts["200"] = counts.get("200", 0) + 1
    def page(self):
        name, lines = "http_server_request_duration_seconds", ["# TYPE x gauge_histogram"]
        bounds = ["0.05", "5", "+Inf"]
        for code, n in counts.items():
            label = f'http_response_status_code="{code}"'
            lines += [f'{name}_bucket{{{label},le="{le}"}} {n}' for le in bounds]
            lines += [f"{name}_count{{{label}}} {n}", f"{name}_sum{{{label}}} {n}"]
        return "\\n".join([f"# TYPE {name} histogram", *lines, ""])
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
class Server(ThreadingHTTPServer):
    daemon_threads = True
Server((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


def test_a_service_is_judged_by_what_there_is(make_workspace: Callable[[str], Workspace], tmp_path: Path) -> None:
    """Without metrics, with a histogram alone, with probes that are refused, and where nobody is answered."""
    workspace = make_workspace("process")
    program = tmp_path / "service.py"
    program.write_text(SERVICE)
    run = f"  command: [{json.dumps(sys.executable)}, {json.dumps(str(program))}]"
    otel = "  metrics: {duration: http_server_request_duration_seconds}"
    steps = "  steps: [50]\n  deadline_seconds: 2"
    shop = steps + "\n  probe_path: /shop"
    brief = "  proxy_timeout: 1"

    def manifest(version: str, kind: str, metrics: str, canary: str, fault: str = "") -> None:
        environment = f"  env: {{METRICS: {kind}, FAULT: '{fault}'}}"
        workspace.write_manifest(version, services="\n".join([run, metrics, environment]), canary=canary, nginx=brief)

    def promoted() -> tuple[str, dict[str, Any]]:
        out = workspace.play("promote", "-e", "mode=canary").ok().out
        return out, workspace.last("promote_step")["evidence"]

    manifest("1.0.0", "none", "  metrics: none", shop)
    workspace.play("deploy").ok()
    manifest("1.1.0", "none", "  metrics: none", shop)
    out, evidence = promoted()
    assert "at the proxy alone (the service has no metrics)" in out
    assert (evidence["rests_on"], evidence["requests"], evidence["probe_share"]) == (["proxy"], 20, 1)

    manifest("1.2.0", "otel", otel, shop)
    out, evidence = promoted()
    assert (evidence["rests_on"], evidence["error_rate"], evidence["untold"]) == (["service", "proxy"], 0, {})
    assert evidence["counted_by"] == "http_server_request_duration_seconds_count"

    # Its root is no page: the gate says what to change instead of taking refusals for answers.
    manifest("1.3.0", "otel", otel, steps)
    refused = workspace.play("promote", "-e", "mode=canary").failed()
    assert "20 of 20 probes were answered 400 to 499" in refused.text
    assert "canary.probe_path" in refused.text

    manifest("1.4.0", "otel", otel, shop, fault="hang")
    denied = workspace.play("promote", "-e", "mode=canary").failed()
    assert "DENIED" in denied.text
    assert "of our own probes had no answer or an error" in denied.text
    assert workspace.get("/shop").json()["version"] == "1.2.0"
