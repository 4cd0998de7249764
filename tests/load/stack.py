"""A workspace that runs the traffic service, and the load generator beside it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import requests
import yaml

from support.workspace import REPOSITORY, Ran, Workspace

SUPPORT = REPOSITORY / "tests" / "support"
BUNDLED = "swift-deploy-1-node:latest"
# Above the longest request of the load (3 s), with room for the stalls of a busy machine.
TIMEOUT_SECONDS = 6
# Above two of them, one after the other on a connection; below the life of the load's WebSockets (20 s).
DRAIN_SECONDS = 10
SMALL, LARGE = "1m", "2m"
DOCKERFILE = """\
FROM {base}
COPY lib/ /app/lib/
COPY traffic.py /app/
CMD ["python3", "/app/traffic.py"]
"""


def docker(*words: str) -> str:
    """What the docker program prints, having ended well."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def build_image(name: str, folder: Path) -> None:
    """Make image ``name`` of the traffic service on the bundled service's image, for that image's Python."""
    python = docker("run", "--rm", "--entrypoint", "python3", BUNDLED, "-c", "import sys; print(*sys.version_info[:2])")
    machine = platform.machine()
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    words += ["--target", str(folder / "lib"), "--only-binary", ":all:", "--python-version", python.replace(" ", ".")]
    for kind in ("manylinux2014", "manylinux_2_17", "manylinux_2_28"):
        words += ["--platform", f"{kind}_{machine}"]
    words += [f"aiohttp=={importlib.metadata.version('aiohttp')}"]
    installed = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert installed.returncode == 0, installed.stderr
    shutil.copy2(SUPPORT / "services" / "traffic.py", folder)
    (folder / "Dockerfile").write_text(DOCKERFILE.format(base=BUNDLED))
    docker("build", "--quiet", "--tag", name, str(folder))


class Stack:
    """The traffic service in a workspace, and what is served of it."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.image = f"{workspace.name}-traffic:1"
        self.max_body = SMALL
        self._tolerate_slow_requests()

    def _tolerate_slow_requests(self) -> None:
        """Slow requests, long polls and WebSockets are part of the load, so the P99 of all says nothing of health."""
        path = self.workspace.folder / "policies" / "thresholds" / "data.yaml"
        thresholds = yaml.safe_load(path.read_text())
        thresholds["canary"]["default"]["p99_latency_ms"]["max"] = 600_000
        path.write_text(yaml.safe_dump(thresholds))

    def start(self, version: str, folder: Path) -> None:
        """Deploy ``version``; ``folder`` is an empty one to build in."""
        if self.workspace.runtime == "docker":
            if not docker("image", "ls", "--quiet", BUNDLED):
                self.workspace.play("deploy").ok()
            build_image(self.image, folder)
        self.manifest(version)
        self.workspace.play("deploy").ok()
        assert self.serving() == f"{version} stable"

    def remove(self) -> None:
        """Leave nothing in the engine. The stack must be down."""
        if self.workspace.runtime == "docker":
            subprocess.run(["docker", "image", "rm", "--force", self.image], capture_output=True, check=False)

    def manifest(self, version: str, mode: str = "stable") -> None:
        """Write the manifest."""
        command = [sys.executable, str(SUPPORT / "services" / "traffic.py")]
        self.workspace.write_manifest(
            version=version,
            mode=mode,
            services=f"  command: {json.dumps(command)}" if self.workspace.runtime == "process" else "",
            nginx=f"  proxy_timeout: {TIMEOUT_SECONDS}\n  drain_timeout: {DRAIN_SECONDS}\n  max_body: {self.max_body}",
        )
        path = self.workspace.folder / "manifest.yaml"
        if self.workspace.runtime == "docker":
            path.write_text(path.read_text().replace(BUNDLED, self.image))

    def serving(self) -> str:
        """Version and mode that answer through nginx."""
        answer = self.workspace.get().json()
        return f"{answer['version']} {answer['mode']}"

    def accepts(self) -> str:
        """Which of the two limits of a body nginx has loaded."""
        body = b"x" * (3 * 2**19)
        status = requests.post(f"{self.workspace.url}/echo", data=body, timeout=10).status_code
        assert status in (200, 413), f"HTTP {status}"
        return LARGE if status == 200 else SMALL

    def deploy(self, version: str) -> Ran:
        """Deploy ``version``."""
        self.manifest(version)
        return self.workspace.play("deploy").ok()

    def promote(self, version: str, mode: str) -> Ran:
        """Promote ``version`` to ``mode``."""
        self.manifest(version, "stable" if mode == "canary" else "canary")
        return self.workspace.play("promote", "-e", f"mode={mode}").ok()

    def rollback(self) -> Ran:
        """Go back."""
        return self.workspace.play("rollback").ok()

    @property
    def key_words(self) -> list[str]:
        """What lets the generator watch nginx's routing."""
        return ["--watch-header", str(self.workspace.folder / ".swiftdeploy" / self.workspace.name / "host-key")]

    def change_setting(self, version: str) -> Ran:
        """Give nginx the other limit of a body; the release stays."""
        self.max_body = LARGE if self.max_body == SMALL else SMALL
        return self.deploy(version)


class Generator:
    """The load generator as a process of its own, for the time of a ``with`` block. ``finish`` gives its result."""

    def __init__(self, url: str, folder: Path, seconds: float, *words: str) -> None:
        self.output = folder / f"load-{secrets.token_hex(3)}.json"
        arguments = [sys.executable, str(SUPPORT / "load.py"), url, "--output", str(self.output)]
        self.words = [*arguments, "--seconds", str(seconds), *words]

    def __enter__(self) -> Generator:
        self.process = subprocess.Popen(self.words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("started "), line + self.process.communicate()[1]
        return self

    def finish(self) -> dict[str, Any]:
        """Stop sending, wait for what is in flight; the result of ``Account.result``."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        result: dict[str, Any] = json.loads(self.output.read_text())
        return result

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


class Timeline:
    """Which switch was in progress when."""

    def __init__(self) -> None:
        self.switches: list[dict[str, Any]] = []

    def run(self, kind: str, label: str, switch: Any, *arguments: Any) -> None:
        """Make a switch of ``kind`` to ``label`` (version and mode)."""
        entry = {"kind": kind, "to": label, "started": time.time(), "ended": float("inf")}
        self.switches.append(entry)
        switch(*arguments)
        entry["ended"] = time.time()

    def during(self, since: float, until: float) -> str:
        """The switch that something between two Unix times fell into, as ``kind number``."""
        for number, switch in enumerate(self.switches, 1):
            if switch["started"] <= until and since <= switch["ended"]:
                return f"{switch['kind']} {number}"
        return "between switches"

    def blame(self, result: dict[str, Any]) -> dict[str, list[str]]:
        """{switch: what failed in it} of a result of the generator."""
        found: dict[str, list[str]] = {}
        for failure in result["failures"]:
            place = self.during(failure["sent"], failure["at"])
            found.setdefault(place, []).append(f"{failure['kind']} {failure['what']}: {failure['text']}")
        for end in result["websockets"]["cuts"]:
            age = end["ended"] - end["opened"]
            found.setdefault(self.during(end["ended"], end["ended"]), []).append(f"websocket cut after {age:.1f} s")
        return found


def served(result: dict[str, Any]) -> list[str]:
    """Versions and modes in the order in which they had the traffic."""
    order: list[str] = []
    for second in result["seconds"]:
        most = max(second["versions"], key=second["versions"].get, default=None)
        if most is not None and order[-1:] != [most]:
            order.append(most)
    return order
