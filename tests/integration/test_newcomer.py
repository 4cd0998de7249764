"""A newcomer's first minutes: a fresh clone, `make deploy` as an ordinary user, and the walk of the README."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from support.workspace import CACHE, REPOSITORY, copy_repository, environments, free_port, wait_until

USER = "sdtest-newcomer"


class Newcomer:
    """An ordinary user with a home, a clone in it, and nothing else."""

    def __init__(self, home: Path, name: str | None) -> None:
        self.home = home
        self.name = name
        self.folder = home / "swift-deploy"
        self.port = free_port()

    def run(self, command: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a command line as this user, from the clone, with nothing of ours in the environment."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if key.startswith("PIP_") or key.endswith(("_CERT", "_BUNDLE", "_CERT_FILE", "_CERT_DIR", "_proxy"))
        }
        environment = {**kept, "HOME": str(self.home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
        words = ["env", "-i", *(f"{key}={value}" for key, value in environment.items()), "sh", "-c", command]
        if self.name:
            words = ["setpriv", f"--reuid={self.name}", f"--regid={self.name}", "--clear-groups", *words]
        return subprocess.run(
            words,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def ok(self, command: str) -> str:
        """The same, having ended well."""
        done = self.run(command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def newcomer() -> Iterator[Newcomer]:
    """An account made for the test where we may make one, else the present user, who is an ordinary one then."""
    name = USER if os.geteuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="sdn-"))
    if name:
        subprocess.run(["useradd", "--no-create-home", "--home-dir", str(home), name], check=True)
    person = Newcomer(home, name)
    try:
        copy_repository(person.folder)
        # Fetching OPA takes a minute and is proved by the tests of the parts; here it is taken as fetched.
        if (CACHE / "parts").is_dir():
            shutil.copytree(CACHE / "parts", person.folder / ".cache" / "parts")
        manifest = person.folder / "manifest.yaml"
        text = manifest.read_text()
        text = text.replace("port: 8080", f"port: {person.port}").replace("port: 3000", f"port: {free_port()}")
        manifest.write_text(text + f"\ncanary: {{window_seconds: 2}}\nopa: {{port: {free_port()}}}\n")
        if name:
            account = pwd.getpwnam(name)
            for path in [home, *home.rglob("*")]:
                os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
        yield person
    finally:
        person.run("[ -x .venv/bin/ansible-playbook ] && .venv/bin/ansible-playbook teardown.yml -e clean=true")
        if name:
            subprocess.run(["userdel", name], check=True)
        shutil.rmtree(home)


def test_two_commands_and_the_walk(newcomer: Newcomer) -> None:
    # What pip, Python and the terminal are told elsewhere is not for .venv.
    elsewhere = f"PIP_USER=1 PIP_TARGET={newcomer.home}/elsewhere PYTHONPATH=/nowhere PYTHONWARNINGS=error LC_ALL=C"
    first = newcomer.ok(f"{elsewhere} make deploy")
    assert not (newcomer.home / "elsewhere").exists()
    url = f"http://localhost:{newcomer.port}/"
    assert "process runtime (no Docker engine answers" in first
    assert re.search(r"Deployment successful  localhost  v1\.0\.0 \(stable\)  [\d.]+ (s|min)", first)
    assert f"look: {url}  next: ansible-playbook status.yml" in first
    assert requests.get(url, timeout=5).json()["mode"] == "stable"

    play = ". .venv/bin/activate && ansible-playbook"
    assert "Promotion successful" in newcomer.ok(f"{play} promote.yml -e mode=canary")
    assert requests.get(url, timeout=5).headers["X-Mode"] == "canary"
    newcomer.ok(f"{play} chaos.yml -e chaos=error -e rate=0.5")
    assert "✗ policy canary denied" in newcomer.ok(f"{play} status.yml -e once=true")
    # Looked at until the second refresh, however busy the machine is; then Ctrl-C.
    shown = newcomer.run(
        ". .venv/bin/activate; ansible-playbook status.yml -e interval=1 -e probes=2 > shown 2>&1 & pid=$!; "
        "for _ in $(seq 600); do [ $(grep -c 'policy infrastructure allowed' shown) -ge 2 ] && break; sleep 0.2; done; "
        "kill -INT $pid; wait $pid; ended=$?; cat shown; rm shown; exit $ended"
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    refreshes = shown.stdout.count("policy infrastructure allowed")
    assert refreshes >= 2, shown.stdout + shown.stderr
    assert "Traceback" not in shown.stdout + shown.stderr
    recorded = (newcomer.folder / "history.jsonl").read_text().count('"event":"status_scrape"')
    assert recorded == refreshes + 1

    denied = newcomer.run(f"{play} promote.yml -e mode=canary")
    assert denied.returncode != 0
    assert re.search(r"DENIED  localhost  .*error rate is", denied.stdout)
    newcomer.ok(f"{play} chaos.yml -e chaos=recover")
    assert "(stable)" in newcomer.ok(f"{play} promote.yml -e mode=stable")
    newcomer.ok(f"{play} audit.yml")
    report = (newcomer.folder / "audit_report.md").read_text()
    for part in ("Timeline", "Mode changes", "Chaos injections", "Policy violations"):
        assert part in report
    newcomer.ok(f"{play} teardown.yml -e clean=data -e service=app")
    mark = f"SWIFTDEPLOY_STACK={newcomer.folder}/"
    wait_until(lambda: not environments(mark), "all processes to be gone")
    with pytest.raises(OSError, match="refused"):
        requests.get(url, timeout=5)
    assert (newcomer.folder / "history.jsonl").exists()
    # Nothing was written beside the clone but pip's own cache.
    beside = {path.name for path in newcomer.home.iterdir()} - {"swift-deploy", ".cache", ".ansible", ".config"}
    assert beside == set()


def test_the_readme_names_only_commands_that_exist() -> None:
    text = (REPOSITORY / "README.md").read_text()
    for name in set(re.findall(r"ansible-playbook (?:-\S+ \S+ )?(\w+)\.yml", text)):
        assert (REPOSITORY / f"{name}.yml").is_file(), name
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (REPOSITORY / link).exists(), link
