"""A workspace whose hosts are reached over SSH, each with an engine of its own and no image but what it is sent."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import requests

from load.stack import BUNDLED, SUPPORT, Generator, build_image
from support.hosts import Host, Hosts, docker
from support.workspace import Ran, Workspace
from swiftdeploy_target import names

# A host can make a version of this service never turn healthy: by a file in the volume of the service's logs.
REFUSING = """\
FROM {base}
CMD ["sh", "-c", "test ! -e /var/log/swiftdeploy/refuse-$APP_VERSION || exec sleep 600; exec python3 /app/traffic.py"]
"""
START_TIMEOUT = 20


def service_image(workspace: Workspace) -> str:
    """The image of the traffic service on this machine's engine, built when it is not there yet."""
    with Path("/tmp/swiftdeploy-test-traffic.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not docker("image", "ls", "--quiet", BUNDLED):
            # A deploy on this machine builds or pulls all three images.
            workspace.play("deploy").ok()
            workspace.clear().ok()
        made_of = [docker("image", "inspect", "--format", "{{.Id}}", BUNDLED), REFUSING]
        made_of.append((SUPPORT / "services" / "traffic.py").read_text())
        name = f"swiftdeploy-test/traffic:{hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]}"
        if not docker("image", "ls", "--quiet", name):
            with tempfile.TemporaryDirectory() as folder:
                build_image(f"{name}-plain", Path(folder))
                (Path(folder) / "Dockerfile").write_text(REFUSING.format(base=f"{name}-plain"))
                docker("build", "--quiet", "--tag", name, folder)
        return name


class Begun:
    """A playbook that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.text = ""

    def until(self, text: str) -> Begun:
        """This, once it has printed a line with ``text``."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line
            if text in line:
                return self
        raise AssertionError(f"{text!r} was never printed:\n{self.text}")

    def end(self) -> Ran:
        """How it ended."""
        assert self.process.stdout is not None
        self.text += self.process.stdout.read()
        return Ran(subprocess.CompletedProcess([], self.process.wait(300), self.text, ""))


class Fleet:
    """Hosts, and a controller that deploys the traffic service to them."""

    def __init__(self, workspace: Workspace, hosts: Hosts) -> None:
        self.workspace = workspace
        self.hosts = hosts
        self.image = service_image(workspace)
        self.archives = Path(workspace.folder) / ".cache" / "images"
        self.inventory = hosts.inventory({"swiftdeploy_environment": "local"})

    def canary_first(self) -> None:
        """Let web2 be the host that comes first."""
        self.inventory = self.hosts.inventory({"swiftdeploy_environment": "local"}, canary=["web2"])

    def second(self, folder: Path) -> Fleet:
        """Another controller of the same hosts: a clone of its own, with a history of its own."""
        workspace = Workspace(folder, self.workspace.runtime)
        for name in ("name", "port", "opa_port", "service_port"):
            setattr(workspace, name, getattr(self.workspace, name))
        workspace.extra = dict(self.workspace.extra)
        # What it would save again is the same file.
        shutil.copytree(self.archives, workspace.folder / ".cache" / "images")
        return Fleet(workspace, self.hosts)

    def manifest(self, version: str, mode: str = "stable", source: str = "archive", **changes: str) -> None:
        """Write the manifest."""
        check = f"{{interval: {self.workspace.check_seconds}s, settle: 0, start_timeout: {START_TIMEOUT}}}"
        services = f"  healthcheck: {check}\n" + changes.pop("services", "")
        nginx = "  drain_timeout: 10\n" + changes.pop("nginx", "")
        self.workspace.write_manifest(version, mode, services=services, nginx=nginx, **changes)
        path = self.workspace.folder / "manifest.yaml"
        text = path.read_text().replace(BUNDLED, changes.get("image", self.image))
        path.write_text(text if "images:" in text else f"{text}images: {{source: {source}}}\n")

    def play(self, name: str, *words: str, **options: Any) -> Ran:
        """Run a playbook on the hosts."""
        return self.workspace.play(name, "-i", str(self.inventory), *words, **{"seconds": 600, **options})

    def bootstrap(self) -> Ran:
        """Make bare hosts ready, with what the distribution has."""
        settings = {
            "bootstrap_docker": "distribution",
            "bootstrap_authorized_keys": [self.hosts.key.with_suffix(".pub").read_text().strip()],
        }
        return self.play("bootstrap", "-e", json.dumps(settings)).ok()

    def deploy(self, version: str, *words: str, **changes: str) -> Ran:
        """Write the manifest for a version and deploy it."""
        self.manifest(version, **changes)
        return self.play("deploy", *words)

    def url(self, host: Host) -> str:
        """Where nginx answers on a host."""
        return f"http://{host.address}:{self.workspace.port}"

    def serves(self, host: Host) -> str:
        """Version and mode that answer on a host."""
        try:
            answered = requests.get(self.url(host), timeout=5)
        except requests.RequestException:
            return "no answer"
        if answered.status_code != 200:
            return f"HTTP {answered.status_code}"
        answer = answered.json()
        return f"{answer['version']} {answer['mode']}"

    def serving(self) -> dict[str, str]:
        """What answers on each host."""
        return {host.name: self.serves(host) for host in self.hosts}

    def refuse(self, host: Host, version: str) -> None:
        """Let a version never turn healthy on this host."""
        volume = names.volume(f"{self.workspace.name}-logs", self.workspace.name)
        host.shell(f"touch /var/lib/docker/volumes/{volume}/_data/refuse-{version}")

    def load(self, host: Host, folder: Path, seconds: float, rate: float) -> Generator:
        """Load on a host, for the time of a ``with`` block."""
        network = f"{self.hosts.subnet}.0/24"
        words = ["--network", network, "--rate", str(rate), "--drain", "10", "--watch", ""]
        return Generator(self.url(host), folder, seconds, *words)

    def record(self, event: str, host: str) -> dict[str, Any]:
        """The last record of ``event`` of a host; ``*`` is the run."""
        return next(one for one in reversed(self.workspace.history()) if (one["event"], one["host"]) == (event, host))

    def begin(self, name: str, *words: str) -> Begun:
        """Begin a playbook on the hosts, and go on while it runs."""
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            f"{name}.yml",
            "-i",
            str(self.inventory),
            *words,
        ]
        command += ["-e", json.dumps({"swiftdeploy_runtime": self.workspace.runtime, **self.workspace.extra})]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        return Begun(
            subprocess.Popen(
                command,
                cwd=self.workspace.folder,
                env={**environment, "NO_COLOR": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        )

    def sent(self, before: dict[str, int] | None = None) -> dict[str, int]:
        """Bytes that each host has received over its network, since ``before``."""
        # The interface has another name once it was cut off and is back.
        total = "cat /sys/class/net/eth*/statistics/rx_bytes | paste -sd+ | sed 's/^/echo $((/; s/$/))/' | sh"
        now = {host.name: int(host.shell(total)) for host in self.hosts}
        return {name: value - (before or {}).get(name, 0) for name, value in now.items()}
