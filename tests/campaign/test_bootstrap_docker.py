"""Hosts that get Docker's own packages, from a signed mirror: the key, the source, the engine, what goes wrong.

download.docker.com is not always in reach, so one host is a mirror of it (tests/support/docker_mirror.sh). ``debian``
is a Debian 12, where bootstrap.yml takes Docker's packages by itself. ``ubuntu`` says that it is an Ubuntu 24.04: what
is Ubuntu's about it is that it takes Ubuntu's part of the mirror.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hosts import Host, Hosts
from support.workspace import REPOSITORY, Ran, Workspace

pytestmark = pytest.mark.docker
UBUNTU = 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\nPRETTY_NAME="Ubuntu 24.04.3 LTS"\n'
COMPOSE = "/usr/local/lib/docker/cli-plugins/docker-compose"


class Bare:
    """The two bare hosts, the mirror, and the workspace whose bootstrap.yml takes from it."""

    def __init__(self, folder: Path, hosts: Hosts) -> None:
        self.hosts = hosts
        self.debian, self.ubuntu, self.mirror = hosts["debian"], hosts["ubuntu"], hosts["mirror"]
        self.ubuntu.shell(f"rm /etc/os-release && printf '%s' '{UBUNTU}' >/etc/os-release")
        self.mirror.put(Path(COMPOSE), "/root/docker-compose")
        self.mirror.put(REPOSITORY / "tests" / "support" / "docker_mirror.sh", "/root/mirror.sh")
        self.key = self.mirror.shell("sh /root/mirror.sh || { tail -5 /root/mirror.log; false; }", seconds=300).strip()
        self.workspace = Workspace(folder / "clone", "auto")
        self.inventory = hosts.inventory({"bootstrap_login": "root"})

    def bootstrap(self, *words: str, **changes: str) -> Ran:
        """bootstrap.yml on the two; ``changes`` to what is said of the mirror."""
        settings = {
            "bootstrap_authorized_keys": [self.hosts.key.with_suffix(".pub").read_text().strip()],
            "bootstrap_docker_url": f"http://{self.mirror.address}/linux",
            "bootstrap_docker_key_sha256": self.key,
            **changes,
        }
        arguments = ("-i", str(self.inventory), "--limit", "debian,ubuntu", "-e", json.dumps(settings), *words)
        return self.workspace.play("bootstrap", *arguments, seconds=600)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    folder = tmp_path_factory.mktemp("own")
    with Hosts(folder / "hosts", ["debian", "ubuntu", "mirror"], variant="bare") as hosts:
        yield Bare(folder, hosts)


def installed(host: Host) -> str:
    """Packages of Docker on a host."""
    return host.shell("dpkg-query --show --showformat='${Package}\\n' 'docker*' 'containerd*' 2>/dev/null", check=False)


def test_a_key_that_is_not_dockers_is_refused(bare: Bare) -> None:
    ran = bare.bootstrap("-e", "bootstrap_docker=docker", bootstrap_docker_key_sha256="0" * 64).failed()
    packages = "docker-ce, docker-ce-cli, containerd.io, docker-compose-plugin"
    for host in (bare.debian, bare.ubuntu):
        assert f"FAILED  {host.name}  ca-certificates, {packages} could not be installed" in ran.text
        assert installed(host) == ""
        assert host.read("/etc/apt/keyrings/docker.asc") == ""
    assert f"next: the key at http://{bare.mirror.address}/linux/debian/gpg is not the one that" in ran.text
    assert "WARNING" not in ran.text


def test_a_mirror_that_does_not_answer_is_named(bare: Bare) -> None:
    url = f"http://{bare.mirror.address}:9/linux"
    ran = bare.bootstrap("-e", "bootstrap_docker=docker", bootstrap_docker_url=url).failed()
    assert f"could not be installed from {url}" in ran.text
    assert "next: name a mirror in bootstrap_docker_url" in ran.text
    assert installed(bare.debian) == ""


def test_an_engine_of_dockers_own_packages_serves_the_user(bare: Bare) -> None:
    told = bare.bootstrap("-e", "bootstrap_docker=docker", "--check", "--diff").ok()
    assert f"+URIs: http://{bare.mirror.address}/linux/ubuntu" in told.text
    assert installed(bare.ubuntu) == ""

    # The distribution's is what an Ubuntu gets by itself; Debian 12 has no compose plugin.
    told = bare.bootstrap("--check").ok()
    assert "would install docker.io, docker-compose-v2" in told.text
    assert "would install docker-ce, docker-ce-cli, containerd.io, docker-compose-plugin" in told.text

    ran = bare.bootstrap("-e", "bootstrap_docker=docker").ok()
    assert ran.text.count("Bootstrap successful") == 2
    for host in (bare.debian, bare.ubuntu):
        assert "docker-ce\n" in installed(host)
        assert host.run("su", "deploy", "-c", "docker version --format '{{.Server.Version}}'").startswith("20.10")
        assert host.run("su", "deploy", "-c", "docker compose version --short").startswith("2.26")
        assert host.shell("systemctl is-enabled docker").strip() == "enabled"
    again = bare.bootstrap().ok()
    assert again.text.count("Nothing to change") == 2, "an engine that answers is left alone"
    assert again.text.count("Docker engine 20.10") >= 2


def test_the_distributions_engine_is_not_put_in_its_place(bare: Bare) -> None:
    refused = bare.bootstrap("-e", "bootstrap_docker=distribution").failed()
    assert "docker-ce is installed; take Docker's own packages: -e bootstrap_docker=docker" in refused.text
