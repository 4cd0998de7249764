"""What goes wrong on one of several hosts, each with its own engine: the others, the history, the way back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fleet import Fleet
from support.hosts import Hosts, run
from support.workspace import Ran, Workspace, wait_until

pytestmark = pytest.mark.docker
# When a host loses power: with both releases running, or with `make soak` also once such a line was printed.
BOTH = "both releases run"
LATER = ["manifest ", "docker runtime", "policy: ", "started v"]
MOMENTS = [BOTH, *(LATER if os.environ.get("SWIFTDEPLOY_HOST_KILLS") == "all" else [])]
HOME = "/home/deploy/.swiftdeploy"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("faults")
    with Hosts(folder / "hosts", ["web1", "web2"]) as hosts:
        made = Fleet(Workspace(folder / "clone", "docker"), hosts)
        made.deploy("1.0.0").ok()
        made.canary_first()
        yield made


def everywhere(version: str) -> dict[str, str]:
    return dict.fromkeys(["web1", "web2"], f"{version} stable")


def test_a_release_that_is_not_healthy_on_one_host_is_taken_back_on_the_others(fleet: Fleet) -> None:
    fleet.refuse(fleet.hosts["web1"], "2.0.0")
    ran = fleet.deploy("2.0.0", "-e", "on_failure=rollback").failed()
    assert "FAILED  web1  " in ran.out
    assert "not healthy" in ran.out
    assert "The blue slot goes on serving." in ran.out
    assert "rolled back: web2" in ran.out
    assert fleet.serving() == everywhere("1.0.0")
    record = fleet.record("deploy_run_failed", "*")
    assert record["hosts"] == {"changed": ["web2"], "failed": ["web1"], "rolled_back": ["web2"]}
    assert record["reason"] == "the run stopped because of web1 (failed)"
    # Nothing had switched there, so that there was nothing to take back.
    assert [one["event"] for one in fleet.workspace.history() if one["host"] == "web1"] == ["deploy", "deploy_failed"]

    fleet.deploy("2.0.1").ok()
    assert fleet.serving() == everywhere("2.0.1")


def test_a_host_whose_disk_is_full(fleet: Fleet) -> None:
    host = fleet.hosts["web1"]
    small = "-t tmpfs -o size=2m,mode=755,uid=$(id -u deploy),gid=$(id -g deploy) none"
    host.shell(f"cp -a {HOME} /root/kept && mount {small} {HOME} && cp -a /root/kept/. {HOME}/")
    denied = fleet.deploy("3.0.0", "--limit", "web1").failed()
    assert "DENIED  web1  disk has 0.0 GB free, minimum is 2 GB" in denied.out

    host.shell(f"dd if=/dev/zero of={HOME}/full bs=1k 2>/dev/null", check=False)
    ran = fleet.play("deploy").failed()
    assert f"FAILED  web1  no space left to write {HOME}/" in ran.out
    assert f"next: free some on the host's disk (df -h {HOME}/" in ran.out
    assert fleet.serving() == {"web1": "2.0.1 stable", "web2": "3.0.0 stable"}
    assert fleet.record("deploy_run_failed", "*")["hosts"] == {"changed": ["web2"], "failed": ["web1"]}
    assert "no space left" in fleet.record("deploy_failed", "web1")["reason"]

    host.shell(f"umount {HOME}")
    ran = fleet.play("deploy").ok()
    assert "Deployed 2 of 2 hosts" in ran.out
    assert fleet.serving() == everywhere("3.0.0")
    assert fleet.record("deploy_run", "*")["hosts"] == {"changed": ["web1"], "unchanged": ["web2"]}


def test_a_connection_that_is_lost_in_a_canarys_step(fleet: Fleet) -> None:
    host = fleet.hosts["web1"]
    before = fleet.serves(host)
    fleet.manifest("3.1.0", canary="  steps: [50]\n  deadline_seconds: 60")
    path = fleet.workspace.folder / "manifest.yaml"
    path.write_text(path.read_text().replace("window_seconds: 2", "window_seconds: 60"))
    begun = fleet.begin("promote", "-e", "mode=canary", "--limit", "web1").until("50 % of the traffic")
    begun.until("canary step 1/1")
    host.shell("pkill -KILL -f '^sshd: deploy'")
    ran = begun.end().failed()
    assert "the connection to the host was lost while the canary had 50 %" in ran.out
    assert "has all traffic again" in ran.out
    assert {fleet.serves(host) for _number in range(8)} == {before}
    assert fleet.record("promote_failed", "web1")["reason"].startswith("the connection to the host was lost")


def kill_when(fleet: Fleet, moment: str) -> Ran:
    """A deploy whose first host loses power at ``moment``."""
    host = fleet.hosts["web1"]
    begun = fleet.begin("deploy", "-e", "on_failure=rollback")
    if moment == BOTH:
        names = ("docker", "ps", "--format", "{{.Names}}")
        wait_until(
            lambda: {"blue", "green"} <= {name.rpartition("-")[2] for name in host.run(*names).split()}, BOTH, 300
        )
    else:
        begun.until(f"web1  {moment}")
    host.kill()
    return begun.end().failed()


def test_a_host_that_loses_power_in_the_middle(fleet: Fleet) -> None:
    host = fleet.hosts["web1"]
    # web2 is done by then; web1 is all of its batch, which Ansible by itself would end the run with.
    before = fleet.serves(host).split()[0]
    for number, moment in enumerate(MOMENTS):
        version = f"4.{number}.0"
        fleet.manifest(version)
        ran = kill_when(fleet, moment)
        assert ran.status == 4
        assert "UNREACHABLE  web1  " in ran.out
        assert "next: ansible web1 -m ansible.builtin.ping -vvv shows how it is reached" in ran.out
        assert "lost in the middle: web1" in ran.out
        assert "rolled back: web2" in ran.out
        assert fleet.serving() == {"web1": "no answer", "web2": f"{before} stable"}
        assert fleet.record("deploy_run_failed", "*")["hosts"]["lost"] == ["web1"]
        assert fleet.record("deploy_failed", "web1")["reason"].startswith("unreachable: ")

        # Power is back: it serves, though nginx had been reloaded since it was started.
        host.start()
        answers = (f"{before} stable", f"{version} stable")
        wait_until(lambda: fleet.serves(host) in answers, "the host to serve again", 60)  # noqa: B023
        again = fleet.play("deploy").ok()
        assert "Deployed 2 of 2 hosts" in again.out
        assert fleet.serving() == everywhere(version)
        assert fleet.record("lock_broken", "web1")["reason"].startswith("the process of its holder is gone")
        before = version


def test_a_host_that_is_not_the_one_it_was_and_a_key_that_is_not_let_in(fleet: Fleet, tmp_path: Path) -> None:
    hosts = fleet.hosts
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other"))
    other = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    known = {line.split()[0]: line for line in hosts.known_hosts.read_text().splitlines()}
    known[hosts["web2"].address] = f"{hosts['web2'].address} {other}"
    strange = tmp_path / "known_hosts"
    strange.write_text("\n".join(known.values()) + "\n")
    # Connections of their own, as those that are kept were let in.
    variables = {"swiftdeploy_environment": "local", "ansible_control_path": f"/tmp/{hosts.network}-other-%%C"}
    before = fleet.serving()
    fleet.manifest("5.0.0")

    single = {"web2": {"ansible_ssh_args": hosts.ssh_args(strange)}}
    fleet.inventory = hosts.inventory(variables, single, path=tmp_path / "hosts.yml")
    ran = fleet.play("deploy").failed()
    assert f"UNREACHABLE  web2  its SSH host key is not the one in {strange}." in ran.out
    assert f"ssh-keygen -R {hosts['web2'].address} -f {strange}" in ran.out
    assert "not begun: web1" in ran.out
    assert "next: leave out what is off with --limit 'all,!web2'" in ran.out
    assert fleet.serving() == before

    single = {"web2": {"ansible_ssh_private_key_file": str(tmp_path / "other")}}
    fleet.inventory = hosts.inventory(variables, single, path=tmp_path / "hosts.yml")
    ran = fleet.play("deploy", "-e", "swiftdeploy_unreachable=skip").failed()
    assert f"UNREACHABLE  web2  deploy@{hosts['web2'].address}: Permission denied (publickey)." in ran.out
    assert "Deployed 1 of 2 hosts" in ran.out
    assert fleet.serving() == {**before, "web1": "5.0.0 stable"}
