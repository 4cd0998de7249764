"""Hosts over SSH: containers with systemd, sshd and, where asked for, a Docker engine of their own.

    with Hosts(folder, ["web1", "web2"], variant="engine") as hosts:
        workspace.play("deploy", "-i", str(hosts.inventory({"swiftdeploy_environment": "local"})))
        hosts["web1"].kill()

``bare`` has Python, sshd, systemd and sudo; ``engine`` also docker.io and the compose plugin. In both, ``root`` and
``deploy`` (sudo without a password; in the group docker where there is one) let the key in. What a test may install
with apt (docker.io, iptables, python3-venv) lies in the hosts' /var/cache/apt/archives.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from support.workspace import REPOSITORY, wait_until

LABEL = "sdtest.owner"
# --privileged is refused where the machine itself is a guest; this is what systemd and an engine need of it.
FLAGS = [
    *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--cgroupns", "private"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--security-opt", "systempaths=unconfined", "--device-cgroup-rule", "a *:* rwm"),
    *("--tmpfs", "/run:exec", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec"),
]
START_SECONDS = 60.0


def run(*words: str, seconds: float = 120, check: bool = True, feed: str | None = None) -> str:
    """What a program prints, having ended well."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False, input=feed)
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def docker(*words: str, seconds: float = 120, check: bool = True) -> str:
    """What the docker program prints, having ended well."""
    return run("docker", *words, seconds=seconds, check=check).strip()


def image(variant: str, release: str) -> str:
    """The image of a variant with a release of Debian, built when it is not there yet."""
    return run(str(REPOSITORY / "tests" / "hosts" / "build.sh"), variant, release, seconds=1800).strip()


class Host:
    """One host."""

    def __init__(self, hosts: Hosts, name: str, address: str) -> None:
        self.hosts = hosts
        self.name = name
        self.address = address
        self.container = f"{hosts.network}-{name}"

    def create(self, picture: str, *options: str) -> None:
        """Start the container; it answers a little later."""
        words = ["run", "--detach", "--name", self.container, "--hostname", self.name, *FLAGS]
        words += ["--network", self.hosts.network, "--ip", self.address, "--label", f"{LABEL}={_owner(os.getpid())}"]
        words += ["--volume", "/var/lib/docker", *options, picture]
        docker(*words)

    def ready(self) -> None:
        """Wait until root can log in, and the engine answers where there is one; note the host's key."""
        key = wait_until(self._host_key, f"the host key of {self.name}", START_SECONDS)
        with self.hosts.known_hosts.open("a") as known:
            known.write(f"{self.address} {key}\n")
        wait_until(self._answers, f"sshd of {self.name}", START_SECONDS)
        if self.hosts.variant == "engine":
            wait_until(self._has_engine, f"the engine of {self.name}", START_SECONDS)

    def _host_key(self) -> str:
        return " ".join(self.run("cat", "/etc/ssh/ssh_host_ed25519_key.pub", check=False).split()[:2])

    def _answers(self) -> bool:
        return subprocess.run(self.hosts.ssh(self, "true"), capture_output=True, check=False).returncode == 0

    def _has_engine(self) -> bool:
        return "Server" in self.run("docker", "version", check=False)

    def run(self, *words: str, check: bool = True, seconds: float = 120) -> str:
        """What a program prints that runs on the host as root, past SSH."""
        return docker("exec", self.container, *words, check=check, seconds=seconds)

    def shell(self, script: str, check: bool = True, seconds: float = 120) -> str:
        """What a shell's script prints that runs on the host as root, past SSH."""
        return self.run("sh", "-c", script, check=check, seconds=seconds)

    def read(self, path: str) -> str:
        """A file of the host's; empty when there is none."""
        return self.run("cat", path, check=False)

    def fetch(self, path: str, target: Path) -> Path:
        """Copy a file or folder of the host's here."""
        docker("cp", f"{self.container}:{path}", str(target))
        return target

    def put(self, source: Path, path: str) -> None:
        """Copy a file or folder to the host."""
        docker("cp", str(source), f"{self.container}:{path}")

    def stop(self) -> None:
        """Shut the host down in good order."""
        docker("stop", "--time", "30", self.container)

    def kill(self) -> None:
        """Pull the plug."""
        docker("kill", self.container)

    def start(self) -> None:
        """Switch it on again after ``stop`` or ``kill``; same address, same host key."""
        docker("start", self.container)
        wait_until(self._answers, f"sshd of {self.name}", START_SECONDS)
        if self.hosts.variant == "engine":
            wait_until(self._has_engine, f"the engine of {self.name}", START_SECONDS)

    def cut(self) -> None:
        """Take the host off the network; it goes on working."""
        docker("network", "disconnect", self.hosts.network, self.container)

    def mend(self) -> None:
        """Bring it back to the network at its address."""
        docker("network", "connect", "--ip", self.address, self.hosts.network, self.container)
        wait_until(self._answers, f"sshd of {self.name}", START_SECONDS)


class Hosts:
    """Some hosts on a network of their own, with the keys to reach them.

    ``options`` are more words for docker run, ``release`` is that of Debian.
    """

    def __init__(
        self,
        folder: Path,
        names: Iterable[str],
        variant: str = "engine",
        user: str = "deploy",
        options: Iterable[str] = (),
        release: str = "bookworm",
    ) -> None:
        self.variant = variant
        self.release = release
        self.user = user
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.network = f"sdtest-{secrets.token_hex(3)}"
        self.key = folder / "id_ed25519"
        self.known_hosts = folder / "known_hosts"
        self.subnet = ""
        self._options = list(options)
        self._names = list(names)
        self._hosts: dict[str, Host] = {}

    def __enter__(self) -> Hosts:
        remove_orphans()
        picture = image(self.variant, self.release)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.network, "-f", str(self.key))
        try:
            self._make_network()
            for place, name in enumerate(self._names):
                self._hosts[name] = Host(self, name, f"{self.subnet}.{place + 10}")
                self._hosts[name].create(picture, *self._options)
            for host in self:
                self._admit(host)
            for host in self:
                host.ready()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def _make_network(self) -> None:
        # An address of the test's choice, so that a host that was off comes back to its own.
        for _ in range(20):
            self.subnet = f"10.{231 + secrets.randbelow(20)}.{secrets.randbelow(256)}"
            done = subprocess.run(
                ["docker", "network", "create", "--subnet", f"{self.subnet}.0/24"]
                + ["--label", f"{LABEL}={_owner(os.getpid())}", self.network],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                return
        raise AssertionError(f"no network could be made: {done.stderr}")

    def _admit(self, host: Host) -> None:
        key = self.key.with_suffix(".pub").read_text().strip()
        host.shell(
            "for user in root deploy; do home=$(getent passwd $user | cut -d: -f6); mkdir -p $home/.ssh;"
            f" echo '{key}' >$home/.ssh/authorized_keys; chown -R $user: $home/.ssh; chmod 700 $home/.ssh; done"
        )

    def remove(self) -> None:
        """Leave nothing behind: connections, containers with their volumes, network."""
        # The masters of kept connections outlive the playbook by a minute.
        for control in Path("/tmp").glob(f"{self.network}-*"):
            words = ["ssh", "-o", f"ControlPath={control}", "-O", "exit", "any"]
            subprocess.run(words, capture_output=True, check=False)
        for host in self:
            docker("rm", "--force", "--volumes", host.container, check=False)
        docker("network", "rm", self.network, check=False)

    def ssh_args(self, known_hosts: Path | None = None) -> str:
        """Options of ssh for these hosts."""
        return (
            "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=2 -o ServerAliveCountMax=3"
            f" -o UserKnownHostsFile={known_hosts or self.known_hosts} -o GlobalKnownHostsFile=/dev/null"
            " -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
        )

    def ssh(self, host: Host, *words: str, user: str = "root") -> list[str]:
        """The command line that runs ``words`` on a host over SSH, without a kept connection."""
        options = [f"-oUserKnownHostsFile={self.known_hosts}", "-oGlobalKnownHostsFile=/dev/null", "-oConnectTimeout=5"]
        options += ["-oBatchMode=yes", "-oIdentitiesOnly=yes", "-oStrictHostKeyChecking=yes"]
        return ["ssh", "-i", str(self.key), *options, f"{user}@{host.address}", *words]

    def inventory(
        self,
        variables: Mapping[str, Any] | None = None,
        hosts: Mapping[str, Mapping[str, Any]] | None = None,
        canary: Iterable[str] = (),
        path: Path | None = None,
    ) -> Path:
        """Write an inventory: ``variables`` of all hosts, ``hosts`` of one; the hosts of ``canary`` come first."""
        place = path or self.folder / "hosts.yml"
        single = hosts or {}
        data = {
            "all": {
                "hosts": {host.name: {"ansible_host": host.address, **single.get(host.name, {})} for host in self},
                "children": {"canary_hosts": {"hosts": dict.fromkeys(canary)}},
                "vars": {
                    "ansible_user": self.user,
                    "ansible_ssh_private_key_file": str(self.key),
                    "ansible_python_interpreter": "/usr/bin/python3",
                    "ansible_ssh_args": self.ssh_args(),
                    # Short, as the path of a socket may have no more than 107 characters.
                    "ansible_control_path": f"/tmp/{self.network}-%%C",
                    **(variables or {}),
                },
            }
        }
        place.write_text(yaml.safe_dump(data))
        return place


def _owner(pid: int) -> str:
    """A process id with its start, so that a later process of the same id is another."""
    with contextlib.suppress(OSError):
        return f"{pid}-{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    return f"{pid}-gone"


def remove_orphans() -> None:
    """Remove what test runs that were killed have left."""
    for kind, remove in (("container", ["rm", "--force", "--volumes"]), ("network", ["network", "rm"])):
        listing = ["ps", "--all"] if kind == "container" else ["network", "ls"]
        rows = docker(*listing, "--filter", f"label={LABEL}", "--format", f'{{{{.ID}}}} {{{{.Label "{LABEL}"}}}}')
        for row in rows.splitlines():
            found, _, owner = row.partition(" ")
            if owner and _owner(int(owner.partition("-")[0])) != owner:
                docker(*remove, found, check=False)
