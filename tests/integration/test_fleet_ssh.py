"""Three hosts over SSH, each with its own engine: rolling under load, archives, drift, two controllers."""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from load.stack import served
from support.fleet import Fleet
from support.hosts import Host, Hosts, docker
from support.workspace import Workspace, wait_until

pytestmark = pytest.mark.docker
PART = 4 * 1024 * 1024
# How many versions roll over the hosts under load; `make soak` asks for more.
ROLLS = int(os.environ.get("SWIFTDEPLOY_ROLLS", "1"))
# Whether the hosts are bare at first and made ready by bootstrap.yml; otherwise they have an engine already.
BARE = os.environ.get("SWIFTDEPLOY_BARE") == "1"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("ssh")
    with Hosts(folder / "hosts", ["web1", "web2", "web3"], variant="bare" if BARE else "engine") as hosts:
        made = Fleet(Workspace(folder / "clone", "docker"), hosts)
        if BARE:
            made.bootstrap()
        made.deploy("1.0.0").ok()
        made.canary_first()
        yield made


def test_a_version_rolls_over_the_hosts_without_a_lost_request(fleet: Fleet, tmp_path: Path) -> None:
    assert set(fleet.serving().values()) == {"1.0.0 stable"}, "sent to hosts that had no image"
    with ExitStack() as stack:
        loads = {host.name: stack.enter_context(fleet.load(host, tmp_path, 300 * ROLLS, 20)) for host in fleet.hosts}
        for number in range(1, ROLLS):
            fleet.deploy(f"1.{number}.0", "-e", "swiftdeploy_serial=1").ok()
        before = fleet.sent()
        ran = fleet.deploy("2.0.0", "-e", "swiftdeploy_serial=1").ok()
        results = {name: load.finish() for name, load in loads.items()}
    assert {name: result["failed"] for name, result in results.items()} == dict.fromkeys(results, 0), results
    print({name: (result["sent"], result["failed"], result["idle_races"]) for name, result in results.items()})
    order = [*(f"1.{number}.0 stable" for number in range(ROLLS)), "2.0.0 stable"]
    assert [served(result) for result in results.values()] == [order, order, order]
    done = [one["host"] for one in fleet.workspace.history() if one["event"] == "deploy" and one["version"] == "2.0.0"]
    assert done == ["web2", "web1", "web3"], "the canary host first, then one at a time"
    assert fleet.record("deploy_run", "*")["batches"] == [1, 1, 1]
    assert "Deployed 3 of 3 hosts" in ran.out
    # The same images: nothing of them goes over the wire again.
    smallest = min(path.stat().st_size for path in fleet.archives.glob("*traffic*.tar"))
    assert max(fleet.sent(before).values()) < smallest / 2


def test_drift_is_told_and_nothing_is_changed(fleet: Fleet) -> None:
    fleet.manifest("3.0.0")
    records = len(fleet.workspace.history())
    ran = fleet.play("deploy", "--check", "--diff", "--limit", "web1,web3").ok()
    lines = [line.split() for line in ran.out.splitlines() if "drift: runs v2.0.0 (stable)" in line]
    assert sorted(words[1] for words in lines) == ["web1", "web3"]
    assert ran.out.count("\n-version: 2.0.0\n+version: 3.0.0\n") == 2
    assert len(fleet.workspace.history()) == records
    assert set(fleet.serving().values()) == {"2.0.0 stable"}


def incoming(host: Host) -> int:
    """Bytes that have arrived of an archive."""
    return int(host.shell("cat /home/deploy/.swiftdeploy/.incoming/*.tar 2>/dev/null | wc -c"))


def break_off(host: Host) -> None:
    """End the connections to a host, once some of an archive has arrived."""
    wait_until(lambda: incoming(host) > 2 * PART, "the archive to be on its way", 120)
    host.shell("pkill -f '^sshd: deploy'", check=False)


def test_an_archive_goes_on_where_it_was_broken_off_and_a_damaged_one_is_found(fleet: Fleet) -> None:
    host = fleet.hosts["web1"]
    newer = f"{fleet.image}-newer"
    docker("build", "--quiet", "--label", "another=image", "--tag", newer, *_from(fleet))
    fleet.manifest("2.1.0", image=newer)

    # The host goes off the network while the archive is on its way.
    begun = fleet.begin("deploy", "--limit", "web1")
    wait_until(lambda: incoming(host) > 2 * PART, "the archive to be on its way", 120)
    host.cut()
    ended = begun.end().failed()
    there = incoming(host)
    host.mend()
    assert "UNREACHABLE  web1" in ended.out or "FAILED  web1" in ended.out, ended.out
    assert "run the same command again, which goes on" in ended.out.lower() or "it goes on from there" in ended.out
    size = next(path.stat().st_size for path in fleet.archives.glob("*-newer*.tar"))
    assert 2 * PART < there < size

    # What is there is not sent again, so that a byte that has changed meanwhile stays changed.
    host.shell("printf X | dd of=$(ls /home/deploy/.swiftdeploy/.incoming/*.tar) bs=1 seek=1000 conv=notrunc")
    before = fleet.sent()
    damaged = fleet.play("deploy", "--limit", "web1").failed()
    assert "arrived with another SHA-256 than it was sent with; run again to send it anew" in damaged.text
    assert fleet.sent(before)["web1"] < size - there + 2 * PART
    assert fleet.serves(host) == "2.0.0 stable"

    # A connection that breaks and comes back is no reason to end a run.
    breaking = threading.Thread(target=break_off, args=[host])
    breaking.start()
    fleet.play("deploy", "--limit", "web1").ok()
    breaking.join()
    assert fleet.serves(host) == "2.1.0 stable"
    assert incoming(host) == 0


def _from(fleet: Fleet) -> list[str]:
    """Words of docker build for an image that is nothing but another one of the same."""
    folder = fleet.workspace.folder / "newer"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {fleet.image}\n")
    return [str(folder)]


def test_two_controllers_meet_at_the_lock_and_learn_of_each_other(fleet: Fleet, tmp_path: Path) -> None:
    other = fleet.second(tmp_path / "other")
    host = fleet.hosts["web1"]
    fleet.refuse(host, "4.0.0")
    fleet.manifest("4.0.0")
    begun = fleet.begin("deploy", "--limit", "web1").until("policy: ")
    refused = other.deploy("5.0.0", "--limit", "web1").failed()
    assert begun.process.poll() is None, "the first run had ended before the second met its lock"
    assert " holds web1 since " in refused.text
    assert "Wait until that run has ended" in refused.text
    assert "not healthy" in begun.end().failed().text

    other.play("deploy", "--limit", "web1,web3").ok()
    assert fleet.serves(host) == "5.0.0 stable"
    told = fleet.play("audit", "-e", "ask=all").ok().out
    assert re.search(r"3 hosts asked: 2 of \d+ switches were made by runs that history.jsonl does not know", told), told
    lines = [line.split() for line in told.splitlines() if "5.0.0" in line]
    assert sorted(name for words in lines for name in words if name in ("web1", "web2", "web3")) == ["web1", "web3"]


REGISTRY = """\
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/docker-registry}}
http: {addr: ":5000"}
auth: {htpasswd: {realm: tests, path: /etc/docker/registry/htpasswd}}
"""
NGINX = "nginx:1.31.3"
PASSWORD = secrets.token_hex(12)


def registry(host: Host) -> str:
    """A registry on a host, which lets one user in, with nginx's image in it; the image's name there."""
    address = f"{host.address}:5000"
    name = f"{address}/{NGINX}"
    host.shell("apt-get install -y -q --no-install-recommends docker-registry", seconds=300)
    host.shell(f"cat >/etc/docker/registry/config.yml <<'END'\n{REGISTRY}END")
    hashed = f"import crypt; print('tests:' + crypt.crypt('{PASSWORD}', crypt.mksalt(crypt.METHOD_BLOWFISH)))"
    host.shell(f'python3 -W ignore -c "{hashed}" >/etc/docker/registry/htpasswd; systemctl restart docker-registry')
    login = f"echo {PASSWORD} | docker login --username tests --password-stdin {address}"
    wait_until(lambda: "Succeeded" in host.shell(login, check=False), "the registry to let its user in")
    host.shell(f"docker tag {NGINX} {name} && docker push -q {name} && docker logout {address}")
    return name


def test_a_registry_that_wants_a_password(fleet: Fleet) -> None:
    host = fleet.hosts["web3"]
    before = fleet.serves(host)
    name = registry(fleet.hosts["web2"])
    fleet.manifest("6.0.0")
    path = fleet.workspace.folder / "manifest.yaml"
    path.write_text(path.read_text().replace(f"image: {NGINX}", f"image: {name}"))
    login = f"{{registry: {name.partition('/')[0]}, username: REGISTRY_USER, password: REGISTRY_PASSWORD}}"
    path.write_text(path.read_text().replace("{source: archive}", f"{{source: pull, login: {login}}}"))

    unset = fleet.play("deploy", "--limit", "web3").failed()
    assert (
        "names REGISTRY_USER and REGISTRY_PASSWORD, which the environment of the controller does not have" in unset.text
    )
    wrong = {"REGISTRY_USER": "tests", "REGISTRY_PASSWORD": "not-the-password"}
    refused = fleet.play("deploy", "--limit", "web3", environment=wrong).failed()
    assert f"nginx: {name}" in refused.text
    assert "no basic auth credentials" in refused.text or "unauthorized" in refused.text
    assert fleet.serves(host) == before

    right = {"REGISTRY_USER": "tests", "REGISTRY_PASSWORD": PASSWORD}
    done = fleet.play("deploy", "-vvv", "--limit", "web3", environment=right).ok()
    assert fleet.serves(host) == "6.0.0 stable"
    kept = [
        file for file in fleet.workspace.folder.rglob("*") if file.is_file() and PASSWORD.encode() in file.read_bytes()
    ]
    assert (kept, PASSWORD in done.text, PASSWORD in refused.text) == ([], False, False)
    assert host.shell(f"grep -rl {PASSWORD} /home/deploy /tmp /var/log /run/systemd 2>/dev/null", check=False) == ""
