"""A fresh copy of the repository, and a way to run its playbooks as a person would."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CACHE = REPOSITORY / ".cache"
FINGERPRINT = REPOSITORY / "molecule" / "shared" / "fingerprint.py"


def free_port() -> int:
    """A TCP port that nobody listens on, with a free one above it for a second slot.

    Below the range that the kernel gives to outgoing connections: those would take it away again.
    """
    while True:
        port = 20000 + secrets.randbelow(10000)
        try:
            for number in (port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("0.0.0.0", number))
        except OSError:
            continue
        return port


def environments(text: str) -> dict[int, dict[str, str]]:
    """Process id to environment, of every process whose environment holds ``text``."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            content = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in content:
            found[int(entry.name)] = dict(pair.split("=", 1) for pair in content.split("\0") if "=" in pair)
    return found


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """The first true answer of ``condition``; a failure that says ``what`` was awaited."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:g} s for {what}")


def copy_repository(target: Path) -> None:
    """The files of the working tree that git tracks or would track, as a fresh clone has them."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, check=True
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        source = REPOSITORY / name
        if not source.exists() and not source.is_symlink():
            continue
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, place, follow_symlinks=False)


class Ran:
    """A finished playbook: status, what it printed, and no traceback in it."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.out = done.stdout
        self.err = done.stderr
        self.text = done.stdout + done.stderr
        assert "Traceback" not in self.text, self.text

    def ok(self) -> Ran:
        """This, having ended well."""
        assert self.status == 0, self.text
        return self

    def failed(self) -> Ran:
        """This, having ended as not done."""
        assert self.status != 0, self.text
        return self


class Workspace:
    """A copy of the repository with a manifest of its own, for one runtime.

    ``check_seconds`` is the interval of its service's health check. The shipped one is 1 s, at which the engine's check
    of each slot takes a tenth of a core, which tests have better use for; a measurement wants what is shipped. For the
    same reason no release is watched after a switch unless ``settle_seconds`` says so; the manifest's default is 5 s.
    """

    def __init__(self, folder: Path, runtime: str, check_seconds: int = 5, settle_seconds: int = 0) -> None:
        self.folder = folder
        self.runtime = runtime
        self.check_seconds = check_seconds
        self.settle_seconds = settle_seconds
        self.name = f"sdtest-{secrets.token_hex(3)}"
        self.port = free_port()
        self.opa_port = free_port()
        self.service_port = 3000 if runtime == "docker" else free_port()
        self.extra: dict[str, Any] = {}
        # What a fixture has seen of `identity` when it was done; nothing is like it before.
        self.settled = ""
        copy_repository(folder)
        self._tolerate_latency()
        self.let_releases_return(True)
        self.write_manifest()

    def _tolerate_latency(self) -> None:
        """Limits of latency that hold however busy the machine is; a fault of a test is far above them."""
        path = self.folder / "policies" / "thresholds" / "data.yaml"
        text = path.read_text()
        for shipped in ("p99_latency_ms: {max: 500}", "p99_latency_increase_ms: {max: 200}"):
            assert shipped in text, f"{path} does not have {shipped} any more"
            text = text.replace(shipped, shipped.partition("{")[0] + "{max: 8000}")
        path.write_text(text)

    def let_releases_return(self, allowed: bool) -> None:
        """Whether a release may come back that this host has taken away; as shipped it may not.

        Tests that share a workspace deploy the same versions one after the other, and take them away.
        """
        path = self.folder / "policies" / "thresholds" / "data.yaml"
        rules = ("may_return: []", "may_return: [rolled_back, denied, died]")
        text = path.read_text()
        assert any(rule in text for rule in rules), f"{path} does not have {rules[0]} any more"
        path.write_text(text.replace(rules[not allowed], rules[allowed]))

    def write_manifest(self, version: str = "1.0.0", mode: str = "stable", **changes: str) -> None:
        """The manifest of this workspace; ``changes`` are extra lines by top-level key."""
        services = changes.get("services", "").splitlines()
        if not any("healthcheck:" in line for line in services):
            check = f"interval: {self.check_seconds}s, settle: {self.settle_seconds}s"
            services.append(f"  healthcheck: {{{check}}}")
        lines = [
            "# a comment of the user",
            "services:",
            f"  name: {self.name}",
            "  image: swift-deploy-1-node:latest",
            f"  port: {self.service_port}",
            f'  version: "{version}"  # the version',
            f"  mode: {mode}",
            f"  log_volume: {self.name}-logs",
            *services,
            "nginx:",
            "  image: nginx:1.31.3",
            f"  port: {self.port}",
            *changes.get("nginx", "").splitlines(),
            "opa:",
            f"  port: {self.opa_port}",
            *changes.get("opa", "").splitlines(),
            "canary:",
            "  window_seconds: 2",
            *changes.get("canary", "").splitlines(),
            f"network: {{name: {self.name}-net, driver_type: bridge}}",
            "",
        ]
        (self.folder / "manifest.yaml").write_text("\n".join(lines))

    @property
    def url(self) -> str:
        """Where nginx answers."""
        return f"http://127.0.0.1:{self.port}"

    def play(self, name: str, *arguments: str, environment: dict[str, str] | None = None, seconds: float = 300) -> Ran:
        """Run ``ansible-playbook NAME.yml`` from the workspace's root as a person would."""
        extra = {"swiftdeploy_runtime": self.runtime, "parts_cache_dir": str(CACHE / "parts"), **self.extra}
        words = [str(Path(sys.executable).parent / "ansible-playbook"), f"{name}.yml", *arguments]
        words += ["-e", json.dumps(extra)]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        done = subprocess.run(
            words,
            cwd=self.folder,
            env={**kept, "NO_COLOR": "1", **(environment or {})},
            capture_output=True,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return Ran(done)

    def clear(self, *arguments: str) -> Ran:
        """Tear down the stack with all that it keeps."""
        return self.play("teardown", "-e", "clean=data", "-e", f"service={self.name}", *arguments)

    @property
    def host_key(self) -> dict[str, str]:
        """The header that proves to nginx that this is its host; empty before the first deploy."""
        path = self.folder / ".swiftdeploy" / self.name / "host-key"
        return dict([path.read_text().strip().split(": ")]) if path.exists() else {}

    def get(self, path: str = "/", **options: Any) -> requests.Response:
        """An answer through nginx; to this host where the path is for it alone."""
        own = self.host_key if path.startswith(("/_swiftdeploy/", "/metrics")) else {}
        headers = {**own, **options.pop("headers", {})}
        return requests.get(self.url + path, timeout=10, headers=headers, **options)

    def history(self) -> list[dict[str, Any]]:
        """All records."""
        path = self.folder / "history.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def last(self, event: str) -> dict[str, Any]:
        """The last record of ``event``."""
        return next(record for record in reversed(self.history()) if record["event"] == event)

    def processes(self) -> dict[int, dict[str, str]]:
        """Process id and environment of what runs of this workspace's stack."""
        return environments(f"SWIFTDEPLOY_STACK={self.folder}/")

    def identity(self) -> str:
        """What a deploy could find changed: manifest, files and processes of the release, a lock, policies."""
        stack = self.folder / ".swiftdeploy" / self.name
        words = [sys.executable, str(FINGERPRINT), str(stack), self.name]
        release = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        places = [self.folder / "policies", *stack.glob("opa/**/policies"), stack / "lock.json"]
        policies = [path for place in places for path in (place, *sorted(place.rglob("*"))) if path.is_file()]
        texts = [f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in policies]
        return "\n".join([release, (self.folder / "manifest.yaml").read_text(), *texts])

    def docker_leftovers(self) -> list[str]:
        """Containers, networks and volumes that carry this workspace's name."""
        found = []
        for words in (["ps", "-a", "--format", "{{.Names}}"], ["network", "ls", "--format", "{{.Name}}"]):
            found += subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.splitlines()
        found += subprocess.run(
            ["docker", "volume", "ls", "--format", "{{.Name}}"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        return [name for name in found if self.name in name]
