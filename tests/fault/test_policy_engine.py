"""A policy engine that is stopped, hangs or talks nonsense: the right outcome, in words, in time, recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.workspace import Workspace

FAKE = '''#!{python}
"""Stands in for OPA: passes the check of the policies, and serves what ANSWER says."""
import http.server, sys, time
if sys.argv[1] == "check":
    sys.exit(0)
port = int(next(word for word in sys.argv if word.startswith("--addr=")).rpartition(":")[2])
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        if self.path == "/health":
            status, body = 200, b"{{}}"
        else:
            status, body = {status}, {body!r}
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer()
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer()
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
'''

ANSWERS = {
    "not JSON": (200, b"<html>proxy login</html>", "not JSON"),
    "server error": (500, b'{"code": "internal_error"}', "500"),
    "undefined": (200, b"{}", "has no decision"),
    "a text for a truth": (200, b'{"result": {"allow": "true", "reasons": []}}', "allow"),
}


def fake(folder: Path, status: int, body: bytes) -> Path:
    """A program that answers every question with ``body``."""
    program = folder / "opa"
    program.write_text(FAKE.format(python=sys.executable, status=status, body=body))
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("kind", ANSWERS)
def test_nonsense_is_unavailable(kind: str, make_workspace: Callable[[str], Workspace], tmp_path: Path) -> None:
    status, body, words = ANSWERS[kind]
    workspace = make_workspace("process")
    workspace.extra["opa_program"] = str(fake(tmp_path, status, body))
    # opa.failure_policy.deploy is ignore: an emergency deploy must not hang on the policy engine.
    deployed = workspace.play("deploy").ok()
    assert "WARNING: NO DECISION from the policy engine" in deployed.out
    record = workspace.last("policy_unavailable")
    assert record["policy"]["infrastructure"]["outcome"] == "unavailable"
    assert words in record["reason"]
    # opa.failure_policy.promote is fail.
    refused = workspace.play("promote", "-e", "mode=canary").failed()
    assert "DENIED  localhost" in refused.out
    assert words in refused.out
    assert workspace.last("promote_blocked")["policy"]["canary"]["outcome"] == "unavailable"
    assert workspace.get().json()["mode"] == "stable"


def test_an_engine_that_hangs_is_unavailable(workspace: Workspace) -> None:
    workspace.write_manifest(opa="  timeout: 1\n  failure_policy: {deploy: fail}")
    workspace.play("deploy").ok()
    workspace.write_manifest(version="2.0.0", opa="  timeout: 1\n  failure_policy: {deploy: fail}")
    if workspace.runtime == "docker":
        container = f"swiftdeploy-{workspace.name}-opa"
        subprocess.run(["docker", "pause", container], check=True, capture_output=True)
    else:
        pid = next(pid for pid in workspace.processes() if b"/opa\0run" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(pid, signal.SIGSTOP)
    try:
        refused = workspace.play("deploy").failed()
        assert "no answer within 1" in refused.out.replace("did not answer within", "no answer within")
        assert workspace.last("deploy_blocked")["policy"]["infrastructure"]["outcome"] == "unavailable"
        assert workspace.get().json()["version"] == "1.0.0"
    finally:
        if workspace.runtime == "docker":
            subprocess.run(["docker", "unpause", container], check=True, capture_output=True)
        else:
            os.kill(pid, signal.SIGCONT)
    workspace.play("deploy").ok()
    assert workspace.get().json()["version"] == "2.0.0"


def test_an_engine_that_was_stopped_is_started_again(workspace: Workspace) -> None:
    workspace.play("deploy").ok()
    if workspace.runtime == "docker":
        subprocess.run(["docker", "rm", "-f", f"swiftdeploy-{workspace.name}-opa"], check=True, capture_output=True)
    else:
        pid = next(pid for pid in workspace.processes() if b"/opa\0run" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(pid, signal.SIGKILL)
    promoted = workspace.play("promote", "-e", "mode=canary").ok()
    assert "policy: canary allowed" in promoted.out
