"""A policy engine that is stopped, hangs or talks nonsense: the right outcome, in words, in time, recorded."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from support.impostor import ALLOW, GO_TLS, HTML, Impostor, answers, drips, http_answer, reads_and_hangs
from support.opa_server import POLICIES, Opa, running_opa
from support.workspace import Workspace
from swiftdeploy_target.http import shown
from swiftdeploy_target.opa import MAX_ANSWER_BYTES

FAKE = '''#!{python}
"""Stands in for OPA: passes the check of the policies, and serves what ANSWER says."""
import contextlib, http.server, os, socketserver, sys
if sys.argv[1] == "check":
    sys.exit(0)
place = next(word for word in sys.argv if word.startswith("--addr=unix://")).partition("://")[2]
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        if self.path.startswith("/health"):
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
    def address_string(self):
        return "unix"
with contextlib.suppress(FileNotFoundError):
    os.unlink(place)
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    pass
Server(place, Handler).serve_forever()
'''


def fake(folder: Path, status: int, body: bytes) -> Path:
    """A program that answers every question with ``body``."""
    program = folder / "opa"
    program.write_text(FAKE.format(python=sys.executable, status=status, body=body))
    program.chmod(0o755)
    return program


def test_without_a_decision_deploy_goes_on_and_promote_stops(
    make_workspace: Callable[[str], Workspace], tmp_path: Path
) -> None:
    workspace = make_workspace("process")
    workspace.extra["opa_program"] = str(fake(tmp_path, 500, b'{"code": "internal_error"}'))
    # opa.failure_policy.deploy is ignore: an emergency deploy must not hang on the policy engine.
    deployed = workspace.play("deploy").ok()
    assert "WARNING: NO DECISION from the policy engine" in deployed.out
    record = workspace.last("policy_unavailable")
    assert record["policy"]["infrastructure"]["outcome"] == "unavailable"
    assert record["policy"]["infrastructure"]["cause"] == "http_status"
    assert "HTTP 500" in record["reason"]
    # opa.failure_policy.promote is fail.
    refused = workspace.play("promote", "-e", "mode=canary").failed()
    assert "DENIED  localhost" in refused.out
    assert "HTTP 500" in refused.out
    assert workspace.last("policy_unavailable")["policy"]["canary"]["cause"] == "http_status"
    assert workspace.last("promote_blocked")["policy"]["canary"]["outcome"] == "unavailable"
    assert workspace.get().json()["mode"] == "stable"


def test_no_gate_is_lost_by_an_engine_that_cannot_be_started(
    make_workspace: Callable[[str], Workspace], tmp_path: Path
) -> None:
    workspace = make_workspace("process")
    program = tmp_path / "opa"
    program.write_text('#!/bin/sh\n[ "$1" = check ] && exit 0\necho "open opa/policies: permission denied"\nexit 1\n')
    program.chmod(0o755)
    workspace.extra["opa_program"] = str(program)
    # opa.failure_policy.deploy is ignore, which is about an engine that gives no answer.
    refused = workspace.play("deploy").failed()
    assert "the policy engine cannot be started" in refused.out
    assert "open opa/policies: permission denied" in refused.out
    assert "started v1.0.0" not in refused.out
    assert workspace.last("deploy_failed")["reason"].startswith("the policy engine cannot be started")


def test_the_failure_policies_the_other_way_round(make_workspace: Callable[[str], Workspace], tmp_path: Path) -> None:
    workspace = make_workspace("process")
    turned = "  failure_policy: {deploy: fail, promote: ignore}"
    workspace.write_manifest(opa=turned)
    workspace.play("deploy").ok()
    workspace.write_manifest(version="2.0.0", opa=turned)
    workspace.extra["opa_program"] = str(fake(tmp_path, 200, b'{"result": {"allow": "true", "reasons": []}}'))
    refused = workspace.play("deploy").failed()
    words = """'allow' is "true", not true or false"""
    assert "DENIED  localhost" in refused.out
    assert words in refused.out
    assert workspace.last("deploy_blocked")["policy"]["infrastructure"]["cause"] == "malformed"
    assert workspace.get().json()["version"] == "1.0.0"
    promoted = workspace.play("promote", "-e", "mode=canary").ok()
    assert "going on because opa.failure_policy.promote is ignore" in promoted.out
    assert words in workspace.last("policy_unavailable")["reason"]
    assert workspace.last("promote")["policy"]["canary"]["outcome"] == "unavailable"
    assert (workspace.get().json()["mode"], workspace.get().json()["version"]) == ("canary", "2.0.0")


def test_an_engine_that_hangs_is_unavailable(make_workspace: Callable[[str], Workspace]) -> None:
    workspace = make_workspace("process")
    workspace.write_manifest(opa="  timeout: 1\n  failure_policy: {deploy: fail}")
    workspace.play("deploy").ok()
    workspace.write_manifest(version="2.0.0", opa="  timeout: 1\n  failure_policy: {deploy: fail}")
    pid = next(pid for pid in workspace.processes() if b"/opa\0run" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(pid, signal.SIGSTOP)
    try:
        refused = workspace.play("deploy").failed()
        assert "no answer within 1" in refused.out.replace("did not answer within", "no answer within")
        assert workspace.last("deploy_blocked")["policy"]["infrastructure"]["outcome"] == "unavailable"
        assert workspace.get().json()["version"] == "1.0.0"
    finally:
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


# --- every fault, against both failure policies ---------------------------------------------------

TIMEOUT = 1.0  # opa.timeout of the matrix, in seconds
IN_TIME_MS = 4000.0  # what a busy machine may make of it

# Fault -> (cause, words). Those of a real OPA, and those of an impostor on its socket.
FAULTS = {
    "stopped": ("refused", "refused the connection"),
    "paused": ("timeout", "gave no answer within 1 s"),
    "refused": ("http_status", "HTTP 401"),
    "evaluation_error": ("http_status", "HTTP 500"),
    "undefined": ("undefined", "has no decision for domain infrastructure"),
    "tls": ("connection", "TLS"),
    "slow": ("timeout", "gave no answer within 1 s"),
    "trickle": ("timeout", "gave no answer within 1 s"),
    "500": ("http_status", "HTTP 500: boom"),
    "not_json": ("not_json", "not JSON: <html>"),
    "empty": ("not_json", "an empty answer"),
    "wrong_type": ("malformed", """'allow' is "true", not true or false"""),
    "missing_reasons": ("malformed", "it has no 'reasons'"),
    "denied_without_reasons": ("malformed", "denies without a reason"),
    "huge": ("too_large", "more than 1048576 bytes"),
    "cut_short": ("connection", "closed the connection"),
}
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
YES = {**ALLOW["result"], "domain": "infrastructure"}
GOOD_ANSWER = http_answer(json.dumps({"result": YES}).encode())
IMPOSTORS = {
    "slow": reads_and_hangs,
    "trickle": drips(GOOD_ANSWER, 30),
    "tls": answers(GO_TLS),
    "500": answers(http_answer(b'{"code": "internal_error", "message": "boom"}', "500 Oops")),
    "not_json": answers(http_answer(HTML)),
    "empty": answers(http_answer(b"")),
    "wrong_type": answers(http_answer(json.dumps({"result": {**YES, "allow": "true"}}).encode())),
    "missing_reasons": answers(
        http_answer(json.dumps({"result": {key: YES[key] for key in YES if key != "reasons"}}).encode())
    ),
    "denied_without_reasons": answers(http_answer(json.dumps({"result": {**YES, "allow": False}}).encode())),
    "huge": answers(http_answer(b" " * MAX_ANSWER_BYTES + b"{}")),
    "cut_short": answers(GOOD_ANSWER[:-1]),
    "none": answers(GOOD_ANSWER),
}


def policies_with(folder: Path, text: str) -> Path:
    """A folder of policies in which nothing but the authorisation and ``text`` stands."""
    shutil.copytree(POLICIES / "authz", folder / "authz")
    (folder / "infrastructure.rego").write_text(text)
    return folder


@contextlib.contextmanager
def all_faults(opa_binary: str, folder: Path) -> Iterator[dict[str, str]]:
    """Something faulty on a socket of its own for each fault, and one that has none."""
    package = "package swiftdeploy.infrastructure\n\n"
    conflict = package + "decision := 1 if input.facts\n\ndecision := 2 if input.facts\n"
    refusing = folder / "refusing"
    shutil.copytree(POLICIES, refusing)
    authz = refusing / "authz" / "authz.rego"
    asked = authz.read_text()
    authz.write_text(asked.replace(', "infrastructure"}', "}"))
    assert authz.read_text() != asked
    with contextlib.ExitStack() as started:

        def start(tree: Path, *options: str, health: bool = True) -> Opa:
            return started.enter_context(running_opa(opa_binary, tree, *options, health=health))

        urls = {}
        for name, handler in IMPOSTORS.items():
            server = Impostor(handler)
            started.callback(server.stop)
            urls[name] = server.url
        paused, stopped = start(POLICIES), start(POLICIES)
        paused.pause()
        stopped.process.kill()
        stopped.process.wait()
        urls |= {
            "paused": paused.url,
            "stopped": stopped.url,
            "refused": start(refusing).url,
            "undefined": start(policies_with(folder / "undefined", package + "other := 1\n")).url,
            "evaluation_error": start(policies_with(folder / "conflict", conflict)).url,
        }
        yield urls


def test_every_fault_against_both_failure_policies(
    opa_binary: str, make_workspace: Callable[[str], Workspace], tmp_path: Path
) -> None:
    workspace = make_workspace("process")
    (tmp_path / "faults").mkdir()
    with all_faults(opa_binary, tmp_path / "faults") as urls:
        assert urls.keys() == FAULTS.keys() | {"none"}
        hosts = {name: {"url": url, "timeout": TIMEOUT, **LOCAL} for name, url in urls.items()}
        (workspace.folder / "faults.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
        ran = workspace.play("tests/support/gate", "-i", "faults.yml").ok()
    said = {(case["name"], case["policy"]): case for case in json.loads((workspace.folder / "gate.json").read_text())}
    recorded = {(record["service"], record["version"]): record for record in workspace.history()}
    assert len(said) == 2 * len(FAULTS) + 2
    # The same impostor without a fault is taken, so it is the fault that makes the difference.
    for policy in ("ignore", "fail"):
        assert said["none", policy]["decision"]["outcome"] == "allowed"
        assert not said["none", policy]["stopped"]
    assert recorded.keys() == said.keys() - {("none", "ignore"), ("none", "fail")}
    for (name, policy), case in said.items():
        if name == "none":
            continue
        cause, words = FAULTS[name]
        decision, record = case["decision"], recorded[name, policy]
        assert (decision["outcome"], decision["allow"], decision["cause"]) == ("unavailable", False, cause), name
        (reason,) = decision["reasons"]
        assert reason.startswith(f"OPA at {shown(case['url'])} "), name
        assert words in reason, name
        assert decision["duration_ms"] <= IN_TIME_MS, name
        assert case["stopped"] == (policy == "fail"), name
        assert (reason in case["message"]) == (policy == "fail"), name
        assert record["event"] == "policy_unavailable"
        assert record["reason"] == reason
        assert record["policy"] == {"infrastructure": decision}
    goes_on = "WARNING: NO DECISION from the policy engine; going on because opa.failure_policy.promote is ignore"
    assert ran.out.count(goes_on) == len(FAULTS)
