"""A real OPA server, started by a test the way a deploy starts it, and its decision log."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from support.workspace import REPOSITORY
from swiftdeploy import policies
from swiftdeploy_target.http import connect_unix, unix_url

# What the shipped thresholds allow of a host in production.
GOOD_FACTS = {
    "disk_free_gb": 40.5,
    "inodes_free_percent": 90,
    "engine_disk_free_gb": 40.5,
    "cpu_load_1m": 0.2,
    "cpu_load_per_cpu": 0.1,
    "mem_free_percent": 60,
}
POLICIES = REPOSITORY / "policies"
SECONDS = 20.0  # for what answers; the machine may be busy
RENDER = yaml.safe_load((REPOSITORY / "roles" / "render" / "defaults" / "main.yml").read_text())
# The shipped arguments; the policies and the configuration stand elsewhere here.
ARGUMENTS = [word for word in RENDER["render_opa_arguments"] if "opa/" not in word and word != "--bundle"]

# Questions that OPA must refuse: method, path, body.
REFUSED: list[tuple[str, str, str | None]] = [
    ("GET", "/v1/data", None),
    ("POST", "/v1/data", "{}"),
    ("GET", "/v1/data/thresholds", None),
    ("POST", "/v1/data/thresholds", "{}"),
    ("GET", "/v1/data/system/bundles", None),
    ("GET", "/v1/data/swiftdeploy/canary/decision", None),
    ("POST", "/v1/data/swiftdeploy/canary", "{}"),
    ("POST", "/v1/data/swiftdeploy/canary/reasons", "{}"),
    ("POST", "/v1/data/swiftdeploy/canary/decision/allow", "{}"),
    ("POST", "/v1/data/swiftdeploy/lib/decision", "{}"),
    ("POST", "/v1/data/system/authz/allow", "{}"),
    ("POST", "/v1/data/system/log/mask", "{}"),
    *(
        ("POST", f"/v1/data/swiftdeploy/canary/decision?{more}", "{}")
        for more in (
            "explain=full",
            "explain=notes",
            "explain",
            "pretty",
            "pretty=true",
            "metrics=true",
            "instrument=true",
            "provenance",
            "provenance=true&explain=full",
            "provenance=true&provenance=true",
            "strict-builtin-errors=true",
        )
    ),
    ("POST", "/v0/data/swiftdeploy/canary/decision", "{}"),
    ("PUT", "/v1/data/thresholds", "{}"),
    ("PATCH", "/v1/data/thresholds", "[]"),
    ("DELETE", "/v1/data/thresholds", None),
    ("PUT", "/v1/data/swiftdeploy/canary/decision", "{}"),
    ("GET", "/v1/policies", None),
    ("GET", "/v1/policies/opa/policies/authz/authz.rego", None),
    ("PUT", "/v1/policies/mine", "package mine"),
    ("PUT", "/v1/policies/opa/policies/authz/authz.rego", "package system.authz\n\nallow := true"),
    ("DELETE", "/v1/policies/opa/policies/authz/authz.rego", None),
    ("POST", "/v1/compile", "{}"),
    ("POST", "/v1/compile/swiftdeploy/canary/decision", "{}"),
    ("POST", "/v1/query", '{"query": "data"}'),
    ("GET", "/v1/query?q=data", None),
    ("GET", "/v1/config", None),
    ("GET", "/v1/status", None),
    ("GET", "/metrics", None),
    ("GET", "/debug/pprof/heap", None),
    ("GET", "/health/live", None),
    ("POST", "/health", "{}"),
    ("POST", "/", "{}"),
    ("GET", "/", None),
]


class Opa:
    """A running OPA server: where it listens, its process, and what it has logged."""

    def __init__(self, process: subprocess.Popen[bytes], place: Path, log: Path) -> None:
        self.process = process
        self.socket = place
        self.url = unix_url(place)
        self._log = log

    def request(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        """Status and text of one answer."""
        return request(self.socket, method, path, body)

    def logged(self, decision_id: str) -> dict[str, Any]:
        """The entry of a decision in the decision log."""
        return logged(self._log.parent, decision_id)

    def pause(self) -> None:
        """Stop its threads. Its socket still takes connections, as a machine that is stuck does."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)


def logged(folder: Path, decision_id: str) -> dict[str, Any]:
    """The one entry of a decision in the decision logs of ``folder``."""
    lines = [line for path in folder.glob("decisions*.jsonl") for line in path.read_text().splitlines()]
    (entry,) = (entry for entry in map(json.loads, lines) if entry.get("decision_id") == decision_id)
    return dict(entry)


def request(place: Path, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    """Status and text of one answer of the OPA at the socket ``place``."""
    connection = http.client.HTTPConnection("localhost", timeout=SECONDS)
    connection.sock = connect_unix(place, time.monotonic() + SECONDS)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read().decode()


def listens(place: Path) -> bool:
    """Whether anything takes connections at the socket."""
    try:
        connect_unix(place, time.monotonic() + SECONDS).close()
    except OSError:
        return False
    return True


def write_bundle(source: Path, target: Path) -> str:
    """Put the policies of ``source`` into ``target`` as a host gets them; answers their revision."""
    files = policies.policy_files(source)
    for entry in policies.bundle(files):
        path = target / entry["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(entry["content"])
    return policies.revision(files)


@contextlib.contextmanager
def running_opa(binary: str, tree: Path, *options: str, health: bool = True) -> Iterator[Opa]:
    """OPA with the policies of ``tree``, as a bundle with their revision. Ends it afterwards."""
    with tempfile.TemporaryDirectory(prefix="sdopa-") as place:
        folder = Path(place)
        write_bundle(tree, folder / "opa" / "policies")
        log = folder / "decisions.jsonl"
        command = [binary, "run", "--server", "--addr=unix://opa.sock", *ARGUMENTS]
        command += ["--set=decision_logs.plugin=file_logger", f"--set=plugins.file_logger.path={log}"]
        command += [*options, "--bundle", "opa/policies"]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        opa = Opa(process, folder / "opa.sock", log)
        try:
            until = time.monotonic() + 30
            while not listens(opa.socket) or (health and opa.request("GET", "/health")[0] != 200):
                assert process.poll() is None, "OPA ended while starting"
                assert time.monotonic() < until, "OPA is not ready after 30 s"
                time.sleep(0.02)
            yield opa
        finally:
            process.kill()
            process.wait()
