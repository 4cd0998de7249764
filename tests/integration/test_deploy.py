"""What deploy promises besides the walk: idempotence, dry runs, refusals, versions, rollback."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from conftest import in_process
from support.workspace import Workspace, free_port


def tree(folder: Path) -> dict[str, str]:
    """Relative path to digest of every file below ``folder``, without what Python keeps for itself."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def changed_tasks(text: str) -> int:
    """The number that Ansible's recap gives as changed."""
    recap = next(line for line in text.splitlines() if "changed=" in line and "unreachable=" in line)
    return int(recap.split("changed=")[1].split()[0])


def running(workspace: Workspace) -> list[str]:
    """What identifies every process or container of the stack: a restart changes it."""
    if workspace.runtime == "docker":
        words = ["docker", "ps", "--no-trunc", "--format", "{{.ID}}", "--filter", f"name={workspace.name}"]
        identities = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        words = ["docker", "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *identities]
        return sorted(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines())
    started = {
        pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19] for pid in workspace.processes()
    }
    return sorted(f"{pid} {start}" for pid, start in started.items())


def test_init_gives_the_same_bytes_again(workspace: Workspace) -> None:
    workspace.play("init").ok()
    folder = workspace.folder / "generated" / "localhost" / workspace.name
    first = tree(folder)
    assert {"nginx.conf", "docker-compose.yml"} <= set(first)
    subprocess.run(["rm", "-rf", str(workspace.folder / "generated")], check=True)
    workspace.play("init").ok()
    assert tree(folder) == first


def test_deploying_again_changes_nothing_and_restarts_nothing(deployed: Workspace) -> None:
    before = running(deployed)
    assert before
    again = deployed.play("deploy", "-v").ok()
    assert changed_tasks(again.out) == 0
    assert "Nothing to change" in again.out
    assert running(deployed) == before


def test_dry_runs_change_nothing_and_show_the_change(make_workspace: Callable[[str], Workspace]) -> None:
    # In the other runtime the tests of the versions do it.
    workspace = make_workspace("docker")
    everything = tree(workspace.folder)
    installed = workspace.extra.pop("parts_dir")
    fresh = workspace.play("deploy", "--check", "--diff").ok()
    assert "Would deploy  localhost  v1.0.0 (stable)" in fresh.out
    assert "listen" in fresh.out
    assert tree(workspace.folder) == everything

    workspace.extra["parts_dir"] = installed
    workspace.play("deploy").ok()
    before, everything = running(workspace), tree(workspace.folder / "generated")
    lines = len(workspace.history())
    workspace.write_manifest(version="2.0.0")
    for name, arguments in (("deploy", []), ("promote", ["-e", "mode=canary"]), ("teardown", ["-e", "clean=true"])):
        dry = workspace.play(name, "--check", "--diff", *arguments).ok()
        assert "Would" in dry.out
    assert running(workspace) == before
    assert tree(workspace.folder / "generated") == everything
    assert len(workspace.history()) == lines
    assert workspace.get().json()["version"] == "1.0.0"
    assert 'version: "2.0.0"' in (workspace.folder / "manifest.yaml").read_text()


@in_process
def test_a_changed_setting_of_nginx_is_loaded(deployed: Workspace) -> None:
    body = b"x" * 2048
    assert requests.post(deployed.url, data=body, timeout=5).status_code == 405
    deployed.write_manifest(nginx="  max_body: 1k")
    changed = deployed.play("deploy").ok()
    assert "Deployment successful" in changed.out
    assert requests.post(deployed.url, data=body, timeout=5).status_code == 413

    old = deployed.port
    deployed.port = free_port()
    deployed.write_manifest()
    deployed.play("deploy").ok()
    assert deployed.get().status_code == 200
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", old)) != 0


def test_a_release_that_never_turns_healthy_leaves_the_old_one(deployed: Workspace) -> None:
    live = deployed.get("/_swiftdeploy/routing").json()["live"]
    broken = '  healthcheck: {start_timeout: 4}\n  command: ["python3", "-c", "raise SystemExit(\'no database\')"]'
    deployed.write_manifest(version="2.0.0", services=broken)
    refused = deployed.play("deploy").failed()
    assert "no database" in refused.out
    assert f"The {live} slot goes on serving." in refused.out
    assert deployed.get().json()["version"] == "1.0.0"
    assert deployed.last("deploy_failed")["version"] == "2.0.0"
    deployed.write_manifest(version="2.0.0")
    deployed.play("deploy").ok()
    assert deployed.get().json()["version"] == "2.0.0"


def test_a_denied_deploy_starts_nothing(make_workspace) -> None:
    workspace = make_workspace("process")
    thresholds = workspace.folder / "policies" / "thresholds" / "data.yaml"
    kept = thresholds.read_text()
    thresholds.write_text(re.sub(r"(local:\s+disk_free_gb: \{min:) 2\}", r"\1 1000000}", kept, count=1))
    assert thresholds.read_text() != kept
    denied = workspace.play("deploy").failed()
    assert "DENIED  localhost  disk has" in denied.out
    assert workspace.last("deploy_blocked")["policy"]["infrastructure"]["outcome"] == "denied"
    with pytest.raises(OSError, match="refused"):
        workspace.get()
    # The edit back counts at once: no restart by hand.
    thresholds.write_text(kept)
    workspace.play("deploy").ok()
    assert workspace.get().status_code == 200


def test_a_taken_port_is_named_before_anything_starts(workspace: Workspace) -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", workspace.port))
        other.listen()
        refused = workspace.play("deploy").failed()
        assert f"port {workspace.port} for nginx.port is in use" in refused.out
        listed = workspace.play("validate").failed()
        assert f"port {workspace.port} for nginx.port is in use" in listed.out
    assert not workspace.processes()


def test_validate_on_a_fresh_machine_and_on_the_running_stack(make_workspace: Callable[[str], Workspace]) -> None:
    # In the other runtime test_dry_decision.py does it.
    workspace = make_workspace("process")
    everything = tree(workspace.folder)
    installed = workspace.extra.pop("parts_dir")
    fresh = workspace.play("validate").ok()
    assert "ok    nginx accepts the rendered nginx.conf" in fresh.out
    workspace.extra["parts_dir"] = installed
    assert tree(workspace.folder) == everything
    workspace.play("deploy").ok()
    good = workspace.play("validate").ok()
    assert "ok    nginx accepts the rendered nginx.conf" in good.out
    assert "ok    the policies compile" in good.out
    policy = workspace.folder / "policies" / "canary" / "canary.rego"
    lines = len(policy.read_text().splitlines())
    policy.open("a").write("broken {")
    bad = workspace.play("validate").failed()
    assert "not true that the policies compile" in bad.out
    assert f"canary/canary.rego:{lines + 1}: rego_parse_error" in bad.out


def test_all_problems_of_a_manifest_at_once(make_workspace) -> None:
    workspace = make_workspace("process")
    manifest = workspace.folder / "manifest.yaml"
    manifest.write_text(
        "services: {image: x, prot: 3000}\n"
        "nginx: {image: nginx, port: 99999}\n"
        "network: {name: n, driver_type: bridge}\n"
    )
    for name in ("validate", "deploy", "init"):
        refused = workspace.play(name).failed()
        assert "prot" in refused.out
        assert "port" in refused.out
        assert "99999" in refused.out
    assert not (workspace.folder / "generated").exists()


def for_this_host_alone(base: str, headers: dict[str, str] | None = None) -> list[int]:
    """Status of what is for this host alone: metrics, chaos, the routing and a slot past it."""
    given = {"headers": headers or {}, "timeout": 5}
    return [
        requests.get(base + "/metrics", **given).status_code,
        # In stable mode the service itself refuses, with 403 as well.
        int("nginx" in requests.post(base + "/chaos", json={"mode": "recover"}, **given).text),
        requests.get(base + "/_swiftdeploy/routing", **given).status_code,
        *(requests.get(f"{base}/_swiftdeploy/slots/{slot}", **given).status_code for slot in ("blue", "green")),
    ]


def test_metrics_and_chaos_answer_this_host_alone(deployed: Workspace) -> None:
    key = deployed.host_key
    stack = deployed.folder / ".swiftdeploy" / deployed.name
    assert (stack / "host-key").stat().st_mode & 0o777 == 0o600
    assert stack.stat().st_mode & 0o077 == 0
    (name, value), nobody = *key.items(), [403, 1, 404, 404, 404]
    live = deployed.get("/_swiftdeploy/routing").json()["live"]
    proven = [200, 0, 200, 200 if live == "blue" else 404, 200 if live == "green" else 404]
    listed = json.loads(subprocess.run(["ip", "-j", "addr"], capture_output=True, text=True, check=True).stdout)
    found = {info["local"] for link in listed for info in link["addr_info"] if info["scope"] == "global"}
    outside = sorted(address for address in found if ":" not in address)
    assert outside
    bases = [f"http://{address}:{deployed.port}" for address in outside[:3]]
    # To docker's proxy every client of IPv6 is the network's gateway.
    if deployed.runtime == "docker" and Path("/proc/net/if_inet6").exists():
        bases.append(f"http://[::1]:{deployed.port}")
    for base in bases:
        assert requests.get(base + "/", timeout=5).status_code == 200
        assert for_this_host_alone(base) == nobody, base
        assert for_this_host_alone(base, {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "::1"}) == nobody, base
        assert for_this_host_alone(base, {name: value[:-1] + ("0" if value[-1] != "0" else "1")}) == nobody, base
        assert for_this_host_alone(base, {name: "@HOST_KEY@"}) == nobody, base
        assert for_this_host_alone(base, key) == proven, base
    near = for_this_host_alone(deployed.url)
    assert near == (nobody if deployed.runtime == "docker" else [200, 0, 404, 404, 404])
    # A balancer on this host asks for somebody else.
    for header in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Proto"):
        assert for_this_host_alone(deployed.url, {header: "1"}) == nobody, header
    assert for_this_host_alone(deployed.url, key) == proven
    assert value not in (deployed.folder / "history.jsonl").read_text()


def test_a_history_that_cannot_be_written_fails_the_play(make_workspace) -> None:
    workspace = make_workspace("process")
    (workspace.folder / "history.jsonl").mkdir()
    refused = workspace.play("deploy").failed()
    assert (
        "it is a folder. Give the path of a file. Nothing was changed: what cannot be recorded is not begun"
        in refused.text
    )
    assert not (workspace.folder / ".swiftdeploy").exists()


def test_secrets_reach_the_service_and_nothing_else(deployed: Workspace) -> None:
    value = "pa\"ss $HOME \\ {{ 1 + 1 }} 'word"
    extra = "  secrets: [DB_PASSWORD]\n  env: {GREETING: \"a $HOME {{ 2 * 3 }} 'b'\"}"
    deployed.write_manifest(services=extra)
    missing = deployed.play("deploy").failed()
    assert "DB_PASSWORD" in missing.out
    ran = deployed.play("deploy", "-vvv", "--diff", environment={"DB_PASSWORD": value}).ok()
    for form in (value, json.dumps(value)[1:-1]):
        assert form not in ran.text
        assert form not in (deployed.folder / "history.jsonl").read_text()
        listed = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True, check=True).stdout
        assert form not in listed
    live = deployed.get("/_swiftdeploy/routing").json()["live"]
    if deployed.runtime == "docker":
        words = ["docker", "inspect", "--format", "{{json .Config.Env}}", f"swiftdeploy-{deployed.name}-{live}"]
        environment = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    else:
        slot = next(found for found in deployed.processes().values() if found.get("MODE"))
        environment = [f"{name}={value}" for name, value in slot.items()]
    assert f"DB_PASSWORD={value}" in environment
    assert "GREETING=a $HOME {{ 2 * 3 }} 'b'" in environment
