"""The policy engine of a deployed stack: fenced in, bounded, loaded with the right policies, and its log kept."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import in_docker
from support.opa_server import GOOD_FACTS, REFUSED, logged, request, write_bundle
from support.workspace import REPOSITORY, Workspace, free_port, wait_until
from swiftdeploy import policies
from swiftdeploy_target.http import unix_url
from swiftdeploy_target.opa import ask

SECONDS = 20.0
DISK_FULL = (
    "disk has 1.0 GB free, minimum is 10 GB (policies/thresholds/data.yaml: infrastructure.default.disk_free_gb)"
)
PROBE = REPOSITORY / "tests" / "support" / "probe.py"
PROBE_SECONDS = "1"
SERVICE_IMAGE = "swift-deploy-1-node:latest"
OPA_IMAGE = "openpolicyagent/opa:1.22.0-static"


@pytest.fixture(scope="module")
def stack(shared_workspace: Workspace) -> Workspace:
    """A deployed stack in each runtime, whose first decision is in its history."""
    shared_workspace.write_manifest()
    shared_workspace.play("deploy").ok()
    return shared_workspace


def folder_of(stack: Workspace) -> Path:
    """The stack's folder on the host."""
    return stack.folder / ".swiftdeploy" / stack.name


def opa_socket(stack: Workspace) -> Path:
    """Where OPA listens."""
    return folder_of(stack) / "opa" / "run" / "opa.sock"


def docker(*words: str) -> str:
    """What a docker command prints."""
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.strip()


def container(stack: Workspace, program: str) -> str:
    """Name of a program's container."""
    return f"swiftdeploy-{stack.name}-{program}"


def inspect(name: str) -> dict[str, Any]:
    """What the engine says of a container."""
    found: dict[str, Any] = json.loads(docker("inspect", name))[0]
    return found


def addresses(name: str) -> list[str]:
    """A container's address in each of its networks, and each network's gateway."""
    networks = inspect(name)["NetworkSettings"]["Networks"].values()
    return [network[key] for network in networks for key in ("IPAddress", "Gateway") if network[key]]


def opa_process(stack: Workspace) -> int:
    """Process id of OPA, seen from the host, in both runtimes."""
    if stack.runtime == "docker":
        return int(inspect(container(stack, "opa"))["State"]["Pid"])
    named = {environment.get("SWIFTDEPLOY_PROGRAM"): pid for pid, environment in stack.processes().items()}
    return named["opa"]


def facts(**figures: float) -> dict[str, Any]:
    """A question to the infrastructure policy that is allowed by the shipped thresholds."""
    return {"facts": {**GOOD_FACTS, **figures}}


def ask_infrastructure(stack: Workspace, **figures: float) -> dict[str, Any]:
    """The running OPA's decision on ``facts``."""
    return ask(unix_url(opa_socket(stack)), "infrastructure", facts(**figures), SECONDS)


def revision_of(stack: Workspace) -> str:
    """The revision of the policies in the workspace."""
    return policies.revision(policies.policy_files(stack.folder / "policies"))


def edit_thresholds(stack: Workspace, *edits: tuple[str, str]) -> None:
    """Change the workspace's thresholds as a person would, in the file."""
    path = stack.folder / "policies" / "thresholds" / "data.yaml"
    text = path.read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


@contextlib.contextmanager
def own_thresholds(stack: Workspace) -> Iterator[None]:
    """Puts the thresholds back afterwards."""
    path = stack.folder / "policies" / "thresholds" / "data.yaml"
    text = path.read_text()
    try:
        yield
    finally:
        path.write_text(text)


# --- who may ask what -----------------------------------------------------------------------------


def test_nothing_but_decisions_and_health_is_answered(stack: Workspace) -> None:
    answers = {}
    for method, path, body in REFUSED:
        answers[method, path] = request(opa_socket(stack), method, path, body)[0]
    assert set(answers.values()) == {401}, answers
    assert ask_infrastructure(stack)["outcome"] == "allowed"
    assert ask_infrastructure(stack, disk_free_gb=1)["outcome"] == "denied"


# --- bounds ---------------------------------------------------------------------------------------


def limits(pid: int) -> dict[str, int]:
    """Soft limits of a process, without those that are unlimited."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:25].strip(): int(line[26:46]) for line in lines if line[26:46].strip() != "unlimited"}


def test_opa_is_bounded(stack: Workspace) -> None:
    pid = opa_process(stack)
    bounds = limits(pid)
    assert bounds["Max open files"] == 1024
    assert bounds["Max core file size"] == 0
    environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
    assert {"GOMEMLIMIT=192MiB", "GOMAXPROCS=1"} <= set(environment)
    if stack.runtime == "process":
        assert bounds["Max data size"] == 512 * 1024 * 1024
        return
    found = inspect(container(stack, "opa"))
    host, config = found["HostConfig"], found["Config"]
    assert host["Memory"] == 256 * 1024 * 1024
    assert host["NanoCpus"] == 1_000_000_000
    assert host["PidsLimit"] == 128
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert not host["Privileged"]
    user = str(os.getuid() or 65532)
    assert config["User"].split(":")[0] == user
    writable = {mount["Destination"] for mount in found["Mounts"] if mount["RW"]}
    assert writable == {"/swiftdeploy/opa/decisions/log", "/swiftdeploy/opa/run"}
    assert host["NetworkMode"] == "none"
    assert not host.get("Tmpfs")
    # And what the kernel makes of it.
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["Uid"].split() == [user] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_a_question_without_end_is_not_read(stack: Workspace) -> None:
    url = unix_url(opa_socket(stack))
    decision = ask(url, "infrastructure", facts() | {"ballast": "x" * 2_000_000}, SECONDS)
    assert decision["outcome"] == "unavailable"
    assert decision["cause"] in {"connection", "http_status"}
    assert ask_infrastructure(stack)["outcome"] == "allowed"


# --- its log --------------------------------------------------------------------------------------


def log_folder(stack: Workspace) -> Path:
    """Where OPA keeps its decision logs."""
    return folder_of(stack) / "opa" / "decisions" / "log"


def test_a_decision_of_the_history_is_found_in_opas_own_log(stack: Workspace) -> None:
    record = stack.last("deploy")
    decision = record["policy"]["infrastructure"]
    entry = logged(log_folder(stack), decision["decision_id"])
    assert entry["path"] == "swiftdeploy/infrastructure/decision"
    assert entry["input"]["action"] == "deploy"
    assert (entry["input"]["actor"], entry["input"]["service"]) == (record["actor"], stack.name)
    assert {figure: entry["input"]["facts"][figure] for figure in decision["checked"]} == decision["checked"]
    for key in ("allow", "reasons", "checked", "thresholds"):
        assert entry["result"][key] == decision[key]
    assert entry["bundles"] == {"opa/policies": {"revision": decision["policy_revision"]}}
    assert decision["policy_revision"] == revision_of(stack)
    for path in log_folder(stack).iterdir():
        assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"
    assert log_folder(stack).parent.stat().st_mode & 0o077 == 0


def test_the_log_is_bounded(stack: Workspace) -> None:
    """Two of the four files that it may have at most: the entries are long, as few as will do."""
    url = unix_url(opa_socket(stack))
    ballast = {"ballast": "x" * 900_000}
    deadline = 30
    for _ in range(deadline):
        assert ask(url, "infrastructure", facts() | ballast, SECONDS)["outcome"] == "allowed"
        if len(list(log_folder(stack).iterdir())) > 1:
            break
    assert len(list(log_folder(stack).iterdir())) == 2
    assert all(path.stat().st_size <= 10 * 1024 * 1024 for path in log_folder(stack).iterdir())
    config = (folder_of(stack) / "opa" / "config.yaml").read_text()
    assert "max_backups: 3" in config


# --- which policies it has loaded -----------------------------------------------------------------


def test_a_policy_that_does_not_compile_replaces_nothing(stack: Workspace) -> None:
    before = ask_infrastructure(stack)["policy_revision"]
    broken = stack.folder / "policies" / "canary" / "canary.rego"
    text = broken.read_text()
    installed = {path: path.read_bytes() for path in (folder_of(stack) / "opa" / "policies").rglob("*.*")}
    try:
        broken.write_text(text + "broken if {\n")
        said = f"canary/canary.rego:{text.count(chr(10)) + 2}: rego_parse_error"
        refused = stack.play("deploy").failed()
        assert said in refused.out
        assert said in stack.last("deploy_failed")["reason"]
        assert {path: path.read_bytes() for path in (folder_of(stack) / "opa" / "policies").rglob("*.*")} == installed
        assert ask_infrastructure(stack, disk_free_gb=1)["reasons"] == [DISK_FULL]
        assert ask_infrastructure(stack)["policy_revision"] == before
        assert stack.get().status_code == 200
    finally:
        broken.write_text(text)


def leave_as_a_killed_run_would(stack: Workspace) -> None:
    """The new policies are installed, OPA still runs with the old ones."""
    installed = folder_of(stack) / "opa"
    old = json.loads((installed / "policies" / ".manifest").read_text())["revision"]
    new = write_bundle(stack.folder / "policies", installed / "policies")
    if stack.runtime == "docker":
        compose = installed / "docker-compose.yml"
        compose.write_text(compose.read_text().replace(old, new))


def test_a_threshold_edit_needs_no_restart_by_hand(stack: Workspace) -> None:
    first = stack.last("deploy")["policy"]["infrastructure"]
    with own_thresholds(stack):
        edit_thresholds(stack, ("requests: {min: 1}", "requests: {min: 1234567}"))
        assert ask_infrastructure(stack)["policy_revision"] == first["policy_revision"] != revision_of(stack)
        refused = stack.play("promote", "-e", "mode=canary").failed()
        assert "at least 1234567 are needed" in refused.out
        decision = stack.last("promote_blocked")["policy"]["canary"]
        assert decision["policy_revision"] == revision_of(stack)
        assert logged(log_folder(stack), decision["decision_id"])["result"]["thresholds"] == decision["thresholds"]
        # A run that was killed between the two: nothing is left to install, and yet the new number must hold.
        edit_thresholds(stack, ("disk_free_gb: {min: 2}", "disk_free_gb: {min: 7654321}"))
        leave_as_a_killed_run_would(stack)
        assert ask_infrastructure(stack)["policy_revision"] == decision["policy_revision"] != revision_of(stack)
        refused = stack.play("deploy").failed()
        assert "minimum is 7654321 GB" in refused.out
        assert stack.last("deploy_blocked")["policy"]["infrastructure"]["policy_revision"] == revision_of(stack)
    # What the first OPA decided is still known, whatever became of its container.
    assert logged(log_folder(stack), first["decision_id"])["bundles"]["opa/policies"] == {
        "revision": first["policy_revision"]
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Path below ``folder`` of each file to what is in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_somebody_changed_on_the_host_is_put_right(stack: Workspace, tmp_path: Path) -> None:
    stack.play("deploy").ok()
    write_bundle(stack.folder / "policies", tmp_path)
    installed = folder_of(stack) / "opa" / "policies"
    assert contents(installed) == contents(tmp_path)
    (installed / "thresholds" / "data.yaml").write_text("infrastructure: {}\n")
    (installed / "mine.rego").write_text("package mine\n")
    stack.play("deploy").ok()
    assert contents(installed) == contents(tmp_path)
    assert stack.last("deploy")["policy"]["infrastructure"]["policy_revision"] == revision_of(stack)


# --- from where it can be reached -----------------------------------------------------------------


def run_probe(*words: str, targets: set[str]) -> set[str]:
    """The targets that the probe reaches, started by the words of a command that reads a program from its input."""
    done = subprocess.run(
        [*words, "-", PROBE_SECONDS, *sorted(targets)],
        input=PROBE.read_text(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split())


def inside(name: str, targets: set[str]) -> set[str]:
    """What can be reached from a container: from its own network namespace, with its own names."""
    words = ["docker", "run", "--rm", "-i", "--network", f"container:{name}", "--entrypoint", "python3", SERVICE_IMAGE]
    return run_probe(*words, targets=targets)


def outside_addresses() -> set[str]:
    """This host's own addresses but loopback."""
    listed = json.loads(subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, text=True, check=True).stdout)
    found = {info["local"] for link in listed for info in link["addr_info"]}
    return {address for address in found if not address.startswith("127.")}


@pytest.fixture(scope="module")
def neighbour() -> Iterator[tuple[str, Callable[[set[str]], set[str]]]]:
    """Another machine on a wire to this host that takes it for its router: this host's address, and a probe there."""
    if os.geteuid() != 0:  # then the next best: a container that has nothing to do with the stack
        network = f"swiftdeploy-neighbour-{secrets.token_hex(3)}"
        docker("network", "create", network)
        words = ["docker", "run", "--rm", "-i", "--network", network, "--entrypoint", "python3", SERVICE_IMAGE]
        try:
            gateway = docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", network)
            yield gateway, lambda targets: run_probe(*words, targets=targets)
        finally:
            docker("network", "rm", network)
        return
    name = f"sdn{secrets.token_hex(3)}"
    net = f"10.{200 + secrets.randbelow(40)}.{secrets.randbelow(250)}"
    within = ["ip", "netns", "exec", name]
    commands = [
        ["ip", "netns", "add", name],
        ["ip", "link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b"],
        ["ip", "link", "set", f"{name}b", "netns", name],
        ["ip", "addr", "add", f"{net}.1/30", "dev", f"{name}a"],
        ["ip", "link", "set", f"{name}a", "up"],
        [*within, "ip", "addr", "add", f"{net}.2/30", "dev", f"{name}b"],
        [*within, "ip", "link", "set", f"{name}b", "up"],
        [*within, "ip", "route", "add", "default", "via", f"{net}.1"],
    ]
    try:
        for command in commands:
            subprocess.run(command, check=True, capture_output=True, text=True)
        yield f"{net}.1", lambda targets: run_probe(*within, "python3", targets=targets)
    finally:
        subprocess.run(["ip", "link", "del", f"{name}a"], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextlib.contextmanager
def wrong_opa(*options: str) -> Iterator[str]:
    """An OPA that is connected as ours must not be; its container's name."""
    name = f"swiftdeploy-wrong-{secrets.token_hex(3)}"
    words = ["run", "--server", "--addr=0.0.0.0:8181", "--skip-version-check"]
    docker("run", "-d", "--name", name, *options, "--entrypoint", "/opa", OPA_IMAGE, *words)
    try:
        yield name
    finally:
        docker("rm", "-f", name)


def ways_to_opa(stack: Workspace, name: str, *ports: int) -> set[str]:
    """Everything that might lead from a container to OPA: names, its address, gateways, this host's addresses."""
    places = {"opa", "localhost", "host.docker.internal", name, *addresses(name), *outside_addresses()}
    places |= {address for program in ("nginx", "blue") for address in addresses(container(stack, program))}
    return {f"{place}:{port}" for place in places for port in ports}


def sockets_in(pid: int) -> set[str]:
    """Names of the Unix sockets below the folders that a process of a container shares with this host."""
    root = Path(f"/proc/{pid}/root")
    shared = [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    ours = [root / place.lstrip("/") for place in shared if place.startswith(("/etc/swiftdeploy", "/swiftdeploy"))]
    return {path.name for place in ours for path in (place, *place.rglob("*")) if path.is_socket()}


@in_docker
@pytest.mark.parametrize("program", ["nginx", "blue"])
def test_no_way_to_opa_from_inside(stack: Workspace, program: str) -> None:
    ways = ways_to_opa(stack, container(stack, "opa"), stack.opa_port, 8181)
    proxy = f"{container(stack, 'nginx')}:8080"
    assert inside(container(stack, program), ways | {proxy}) == {proxy}
    # Nor by what the containers share with this host: the socket is in OPA's alone.
    if os.geteuid() == 0:
        pids = {name: int(inspect(container(stack, name))["State"]["Pid"]) for name in (program, "opa")}
        assert {name: sockets_in(pid) for name, pid in pids.items()} == {program: set(), "opa": {"opa.sock"}}


@in_docker
def test_a_wrong_network_would_be_seen_from_inside(stack: Workspace) -> None:
    port = free_port()
    network = next(iter(inspect(container(stack, "blue"))["NetworkSettings"]["Networks"]))
    with wrong_opa("--network", network, "--network-alias", "opa", "-p", f"0.0.0.0:{port}:8181") as name:
        wait_until(lambda: inside(container(stack, "blue"), {f"{name}:8181"}), "the wrong OPA")
        found = inside(container(stack, "blue"), ways_to_opa(stack, name, port, 8181))
        address, gateway = addresses(name)
        expected = {"opa:8181", f"{name}:8181", f"{address}:8181", f"{gateway}:{port}"}
        expected |= {f"{outside}:{port}" for outside in outside_addresses()}
        assert expected <= found


def listening(stack: Workspace) -> set[str]:
    """HOST:PORT of what the stack listens on, in the host's own network."""
    if stack.runtime == "docker":
        names = docker("ps", "--filter", f"name=swiftdeploy-{stack.name}-", "--format", "{{.Names}}").splitlines()
        bound = [inspect(name)["HostConfig"]["PortBindings"] or {} for name in names]
        ports = [
            (entry["HostIp"] or "*", entry["HostPort"])
            for found in bound
            for entries in found.values()
            for entry in entries
        ]
        return {f"{host}:{port}" for host, port in ports}
    pids = [str(pid) for pid in stack.processes()] + subprocess.run(
        ["pgrep", "-f", f"^nginx: .*{stack.folder}"], capture_output=True, text=True, check=False
    ).stdout.split()
    listed = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    mine = [line for line in listed.splitlines() if any(f"pid={pid}," in line for pid in pids)]
    return {line.split()[3] for line in mine}


def test_only_nginx_listens_beyond_loopback(stack: Workspace) -> None:
    found = listening(stack)
    beyond = {address for address in found if not address.startswith("127.0.0.1:")}
    assert {address.rpartition(":")[2] for address in beyond} == {str(stack.port)}
    # Every port of the stack, whoever holds it.
    listed = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in listed.splitlines() if line.split()[3].endswith(f":{stack.opa_port}")]
    ports = {stack.service_port, stack.service_port + 1}
    open_ = {line.split()[3] for line in listed.splitlines() if int(line.split()[3].rpartition(":")[2]) in ports}
    assert {address for address in open_ if not address.startswith("127.0.0.1:")} == set()


@pytest.mark.docker
def test_from_outside_the_host_nothing_but_nginx(
    stack: Workspace, neighbour: tuple[str, Callable[[set[str]], set[str]]]
) -> None:
    host, probe = neighbour
    ports = {stack.opa_port, stack.service_port, stack.service_port + 1, 8181}
    targets = {f"{place}:{port}" for place in {host, *outside_addresses()} for port in ports}
    nginx = {f"{host}:{stack.port}"}
    if stack.runtime == "docker":
        # A neighbour that takes this host for its router knows the way to the containers, too.
        targets |= {f"{address}:{stack.service_port}" for address in addresses(container(stack, "blue"))}
    assert probe(targets | nginx) == nginx


@in_docker
def test_what_is_open_would_be_seen_from_outside(
    stack: Workspace, neighbour: tuple[str, Callable[[set[str]], set[str]]]
) -> None:
    host, probe = neighbour
    port = free_port()
    with wrong_opa("-p", f"0.0.0.0:{port}:8181"):
        assert wait_until(lambda: probe({f"{host}:{port}"}), "the wrong OPA") == {f"{host}:{port}"}


NOBODY = 65534
CONNECT = """
import os, socket, sys
folder, name = os.path.split(sys.argv[1])
for attempt in (lambda: os.listdir(folder), lambda: socket.socket(socket.AF_UNIX).connect(sys.argv[1])):
    try:
        attempt()
        print("let in")
    except OSError as error:
        print(type(error).__name__)
"""


def as_user(user: int, folder: Path, path: str) -> str:
    """What CONNECT prints for another local user who got as far as ``folder``, whatever lies around that."""
    here = os.open(folder, os.O_RDONLY)
    drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    words = [*drop, "/usr/bin/python3", "-c", CONNECT, f"/proc/self/fd/{here}/{path}"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd="/", pass_fds=[here])
    finally:
        os.close(here)
    return done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to attack as")
@pytest.mark.parametrize("user", [NOBODY, 65532])
def test_another_user_neither_asks_opa_nor_takes_its_place(stack: Workspace, user: int) -> None:
    """65532 is the user of root's containers: it is let in nowhere either."""
    said = as_user(user, folder_of(stack).parent, f"{stack.name}/opa/run/opa.sock")
    assert said.split() == ["PermissionError", "PermissionError"]
    assert folder_of(stack).stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to attack as")
def test_an_opa_in_a_strangers_place_is_not_asked(stack: Workspace) -> None:
    """Somebody had been let in, and answers where OPA did."""
    run = opa_socket(stack).parent
    mode = run.stat().st_mode & 0o7777
    os.chown(run, NOBODY, NOBODY)
    try:
        found = ask_infrastructure(stack)
    finally:
        os.chown(run, 0, 0)
        run.chmod(mode)
    assert (found["outcome"], found["cause"]) == ("unavailable", "not_ours")
    assert f"belongs to user {NOBODY}" in found["reasons"][0]
    assert ask_infrastructure(stack)["outcome"] == "allowed"
