"""The main job on one Python with its Ansible, in the process runtime: deploy, promote, look, go back, report, end.

SWIFTDEPLOY_HOST_PYTHON is the interpreter of the host; without it the host has the same as the controller.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support.history_schema import violations
from support.workspace import Workspace, wait_until

PLAYBOOK = str(Path(sys.executable).parent / "ansible-playbook")
# Each Python has the release of Ansible that is made for it (requirements.txt).
RELEASES = {(3, 11): "2.19.", (3, 12): "2.20.", (3, 13): "2.21."}


def test_the_release_of_ansible_is_that_of_this_python() -> None:
    told = subprocess.run([PLAYBOOK, "--version"], capture_output=True, text=True, check=True).stdout
    assert f"[core {RELEASES[sys.version_info[:2]]}" in told


def test_the_core(make_workspace: Callable[[str], Workspace]) -> None:
    workspace = make_workspace("process")
    python = os.environ.get("SWIFTDEPLOY_HOST_PYTHON") or sys.executable
    # The service's own programs need more than the modules do.
    workspace.extra["parts_python"] = sys.executable
    inventory = workspace.folder / "host.yml"
    inventory.write_text(
        json.dumps({"all": {"hosts": {"web1": {"ansible_connection": "local", "ansible_python_interpreter": python}}}})
    )
    home = workspace.folder / ".swiftdeploy"
    workspace.extra |= {"swiftdeploy_environment": "local", "swiftdeploy_home": str(home)}
    hosts = ("-i", str(inventory))

    dry = workspace.play("deploy", *hosts, "--check", "--diff").ok()
    assert "Would deploy  web1  v1.0.0 (stable)" in dry.out
    assert workspace.history() == []
    first = workspace.play("deploy", *hosts).ok()
    assert "Deployment successful  web1  v1.0.0 (stable)" in first.out
    again = workspace.play("deploy", *hosts, "-v").ok()
    assert "Nothing to change" in again.out
    assert "changed=0 " in again.out

    workspace.write_manifest("2.0.0")
    promoted = workspace.play("promote", *hosts, "-e", "mode=canary").ok()
    assert "Promotion successful  web1  v2.0.0 (canary)" in promoted.out
    answer = workspace.get()
    assert (answer.json()["version"], answer.headers["X-Mode"]) == ("2.0.0", "canary")
    status = workspace.play("status", *hosts, "-e", "once=true").ok()
    assert "policy canary allowed" in status.out
    back = workspace.play("rollback", *hosts).ok()
    assert "Rollback successful  web1  v1.0.0 (stable)" in back.out
    assert workspace.get().json()["version"] == "1.0.0"

    assert "is whole" in workspace.play("audit", *hosts).ok().out
    assert "rollback" in (workspace.folder / "audit_report.md").read_text()
    events = [record["event"] for record in workspace.history()]
    assert events == ["deploy", "deploy", "promote", "status_scrape", "rollback"]
    assert violations(workspace.folder / "history.jsonl") == []

    workspace.clear(*hosts).ok()
    wait_until(lambda: not workspace.processes(), "all processes to be gone")
    for port in (workspace.port, workspace.opa_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert not list(home.rglob("*"))
