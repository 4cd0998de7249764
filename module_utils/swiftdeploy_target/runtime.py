"""The two runtimes behind one interface: starting and stopping a slot, where a program listens, its log.

Programs are ``nginx``, ``blue``, ``green`` and ``opa``. What belongs to a switch is here; nginx's own container and
OPA are started by the roles.
"""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

from . import names, ownership, secret_values, state
from .command import Finished, run
from .ports import port_free
from .state import SLOTS
from .supervisor import Supervisor, SupervisorError, tail
from .systemd import Systemd

MINIMUM_COMPOSE = (2, 18)
# Of nginx's container where root runs the stack; it owns nothing but the stack's spool and its copy of a key. Else it
# is whoever runs the stack, who could give a file to nobody else.
NGINX_USER = "65532:65532"
# How nginx names a worker that takes no new connections and ends with its last request.
SHUTTING_DOWN = "worker process is shutting down"
START_SECONDS = 120.0
# Where a slot's container has the volume of its logs.
LOGS = "/var/log/swiftdeploy"
# Above the longest stop_grace_period that a manifest can ask for; docker itself kills the container before.
STOP_SECONDS = 7300.0
_VERSION = re.compile(r"(\d+)\.(\d+)")
_REFUSED_PORT = re.compile(r"bind\(\) to \S+ failed \(13: ")


class Engine(NamedTuple):
    """What was found of Docker: versions when it is usable, else why it is not."""

    usable: bool
    detail: str
    root: Optional[str] = None


def detect_docker(timeout: float = 15.0) -> Engine:
    """Whether a Docker engine and a compose plugin that is new enough answer to this user."""
    info = run(["docker", "info", "--format", "{{json .}}"], timeout)
    try:
        data: Any = json.loads(info.out) if info.ok else {}
    except ValueError:
        data = {}
    if not data.get("ServerVersion"):
        errors = data.get("ServerErrors") or info.err.strip().splitlines()[-1:] or ["docker info says nothing"]
        return Engine(False, f"no Docker engine answers: {errors[0]}")
    compose = run(["docker", "compose", "version", "--short"], timeout)
    match = _VERSION.search(compose.out)
    if compose.status == 124:
        silent = f"docker compose gave no answer within {timeout:g} s; is the host overloaded?"
        return Engine(False, f"Docker engine {data['ServerVersion']} answers, but {silent}")
    if not compose.ok or match is None:
        return Engine(False, f"Docker engine {data['ServerVersion']} answers, but it has no compose plugin")
    if (int(match[1]), int(match[2])) < MINIMUM_COMPOSE:
        wanted = ".".join(map(str, MINIMUM_COMPOSE))
        return Engine(False, f"docker compose {compose.out.strip()} is too old, {wanted} is needed")
    detail = f"Docker engine {data['ServerVersion']} with compose {compose.out.strip()}"
    return Engine(True, detail, data.get("DockerRootDir"))


class RuntimeFaultError(Exception):
    """A slot could not be started or stopped; the message is for a person."""


class Runtime:
    """What the switch asks of a runtime. Addresses are ``host:port`` as reached from the host.

    ``ports``: slot to the port that its release listens on, as its record says.
    """

    name = ""
    ports: Dict[str, int]
    folder: Path

    def running(self) -> Dict[str, bool]:
        """Each known program and whether its process runs."""
        raise NotImplementedError

    def alive(self) -> Dict[str, bool]:
        """Each known program and whether it has a process now, also one that may be about to end again."""
        return self.running()

    def life(self, slot: str) -> Optional[str]:
        """What another start of ``slot`` would change; None while it does not run."""
        raise NotImplementedError

    def ending(self, slot: str) -> str:
        """How ``slot`` ended last, in words; empty where nothing is known."""
        raise NotImplementedError

    def restarts(self) -> Dict[str, int]:
        """Slot to how often it was started again after it had ended by itself, as far as that is known."""
        return {}

    def address(self, slot: str) -> Optional[str]:
        """Where ``slot`` answers the host, None while it has no address."""
        raise NotImplementedError

    def upstream_host(self, slot: str) -> str:
        """Under which name or address nginx finds ``slot``."""
        raise NotImplementedError

    def upstream(self, slot: str) -> str:
        """Where nginx finds ``slot``."""
        return f"{self.upstream_host(slot)}:{self.ports[slot]}"

    def logs(self, program: str, lines: int) -> List[str]:
        """The last lines that a program printed, without the values of secrets."""
        # All at once: a value may have several lines.
        return secret_values.masked(self.folder, "\n".join(self._printed(program, lines))).splitlines()

    def _printed(self, program: str, lines: int) -> List[str]:
        raise NotImplementedError

    def proxy_log(self) -> Dict[str, str]:
        """Where nginx's access log is, in the form that swiftdeploy_metrics takes."""
        raise NotImplementedError

    def test_nginx(self, folder: Path, name: str) -> Finished:
        """``nginx -t`` by the nginx that serves, on the candidate file ``name`` in ``folder``."""
        raise NotImplementedError

    def reload_nginx(self) -> Finished:
        """Tell the nginx master to load its configuration again."""
        raise NotImplementedError

    def nginx_workers(self) -> Dict[int, bool]:
        """The process id of each nginx worker, and whether it is shutting down."""
        raise NotImplementedError

    def start(self, slot: str, fresh: bool) -> None:
        """Start ``slot`` from its files; ``fresh``: anew, when another release runs in it. Raises RuntimeFaultError."""
        raise NotImplementedError

    def stop(self, slot: str) -> bool:
        """Ask ``slot`` to end and wait for it; True when it ran. Raises RuntimeFaultError."""
        raise NotImplementedError

    def proxy(self) -> Optional[str]:
        """Hash of the settings that nginx's container was made with; empty where there is none."""
        return ""

    def images(self) -> Dict[str, str]:
        """Program to the id of the image that it runs; empty where nothing runs from images."""
        return {}

    def strangers(self) -> List[ownership.Thing]:
        """What lies under the names of the stack's programs and is somebody else's."""
        return []

    def log_volume(self, slot: str) -> Optional[str]:  # noqa: ARG002
        """The volume that a slot's logs are in; None where they are in no volume."""
        return None

    def networks(self, program: str) -> List[str]:  # noqa: ARG002
        """The networks of a program that runs; none where programs have no network of their own."""
        return []

    def superseded(self) -> List[str]:
        """Containers that an earlier version made in another compose project, which cannot be made anew beside them."""
        return []


class DockerRuntime(Runtime):
    """Containers of one compose project, named ``<project>-<program>``."""

    name = "docker"

    def __init__(self, folder: Path, project: str, ports: Dict[str, int], nginx_image: str, user: str) -> None:
        self.folder = folder
        self.project = project
        self.ports = ports
        self.nginx_image = nginx_image
        self.nginx_user = user
        self._seen: Optional[Dict[str, Dict[str, Any]]] = None
        self._strangers: List[ownership.Thing] = []

    def container(self, program: str) -> str:
        """The name of the container of ``program``."""
        return names.container(self.project, program)

    def inspect(self, fresh: bool = False) -> Dict[str, Dict[str, Any]]:
        """Program to ``docker inspect`` record, for the containers that exist and are this stack's."""
        if self._seen is None or fresh:
            asked = [self.container(program) for program in ("nginx", *SLOTS, "opa")]
            done = run(["docker", "container", "inspect", *asked])
            try:
                records = json.loads(done.out or "[]")
            except ValueError:
                records = []
            prefix, ours = f"{self.project}-", ownership.of(self.folder)
            self._seen, self._strangers = {}, []
            for record in records:
                name, labels = record["Name"].lstrip("/"), record["Config"].get("Labels") or {}
                if ownership.owner(labels) == ours:
                    self._seen[name[len(prefix) :]] = record
                else:
                    self._strangers.append(ownership.Thing("container", name, labels))
        return self._seen

    def strangers(self) -> List[ownership.Thing]:
        self.inspect()
        return list(self._strangers)

    def superseded(self) -> List[str]:
        projects = {"opa": names.policy_project(self.folder.name)}
        return [
            self.container(program)
            for program, record in self.inspect().items()
            if record["Config"]["Labels"].get(ownership.COMPOSE_PROJECT) != projects.get(program, self.project)
        ]

    def running(self) -> Dict[str, bool]:
        return {
            program: bool(record["State"]["Running"]) and not record["State"].get("Restarting", False)
            for program, record in self.inspect(fresh=True).items()
        }

    def log_volume(self, slot: str) -> Optional[str]:
        mounts = self.inspect().get(slot, {}).get("Mounts") or []
        return next((str(m["Name"]) for m in mounts if m.get("Destination") == LOGS and m.get("Name")), None)

    def networks(self, program: str) -> List[str]:
        record = self.inspect().get(program)
        return sorted(record["NetworkSettings"]["Networks"] or {}) if record and record["State"]["Running"] else []

    def life(self, slot: str) -> Optional[str]:
        if not self.running().get(slot):
            return None
        record = self.inspect()[slot]
        return f"{record['Id']} {record['State']['StartedAt']}"

    def ending(self, slot: str) -> str:
        state = self.inspect(fresh=True).get(slot, {}).get("State", {})
        if state.get("OOMKilled"):
            return "out of memory"
        if state.get("Running") and not state.get("Restarting"):
            return "it was started again"
        return f"status {state['ExitCode']}" if "ExitCode" in state else ""

    def restarts(self) -> Dict[str, int]:
        return {slot: int(self.inspect()[slot].get("RestartCount") or 0) for slot in SLOTS if slot in self.inspect()}

    def _network(self, program: str) -> Dict[str, Any]:
        networks: Dict[str, Any] = self.inspect().get(program, {}).get("NetworkSettings", {}).get("Networks") or {}
        return next(iter(networks.values()), {})

    def address(self, slot: str) -> Optional[str]:
        self.inspect(fresh=True)
        found = self._network(slot).get("IPAddress")
        return f"{found}:{self.ports[slot]}" if found else None

    def upstream_host(self, slot: str) -> str:
        # The whole name: others may call something by the slot's alone.
        return self.container(slot)

    def _printed(self, program: str, lines: int) -> List[str]:
        if program not in self.inspect(fresh=True):
            return []
        done = run(["docker", "logs", "--tail", str(lines), self.container(program)])
        # What nginx prints to its standard output is the access log.
        text = done.err if program == "nginx" else done.out + done.err
        return text.splitlines()[-lines:] if done.ok else []

    def proxy_log(self) -> Dict[str, str]:
        return {"kind": "docker", "container": self.container("nginx")}

    def test_nginx(self, folder: Path, name: str) -> Finished:
        inside = f"/etc/swiftdeploy/{name}"
        # One of another user was made by an earlier version; it is about to be replaced.
        runs_as = self.inspect(fresh=True).get("nginx", {}).get("Config", {}).get("User")
        if self.running().get("nginx") and runs_as == self.nginx_user:
            return run(["docker", "exec", self.container("nginx"), "nginx", "-t", "-q", "-c", inside])
        arguments = [
            "docker",
            "run",
            "--rm",
            "--network",
            "none",
            "--read-only",
            "--tmpfs",
            "/run/swiftdeploy:mode=1777",
            "--cap-drop",
            "ALL",
        ]
        arguments += ["--user", self.nginx_user, "--volume", f"{folder}:/etc/swiftdeploy:ro", "--entrypoint", "nginx"]
        arguments += [self.nginx_image, "-t", "-q", "-e", "stderr", "-c", inside]
        return run(arguments, timeout=60.0)

    def reload_nginx(self) -> Finished:
        # By nginx itself: a container that docker sent a signal to counts as stopped by hand, and its engine would not
        # start it again after a reboot.
        words = ["nginx", "-e", "stderr", "-c", "/etc/swiftdeploy/nginx.conf", "-s", "reload"]
        return run(["docker", "exec", self.container("nginx"), *words])

    def nginx_workers(self) -> Dict[int, bool]:
        done = run(["docker", "top", self.container("nginx"), "-eo", "pid,ppid,args"])
        found: List[Tuple[int, int, bool]] = []
        for line in done.out.splitlines()[1:]:
            pid, parent, words = line.split(None, 2)
            found.append((int(pid), int(parent), SHUTTING_DOWN in words))
        own = {pid for pid, _parent, _ending in found}
        return {pid: ending for pid, parent, ending in found if parent in own}

    def start(self, slot: str, fresh: bool) -> None:
        self.inspect(fresh=True)
        # Compose would make a container that it takes for its own anew, whoever's it is.
        foreign = ownership.strangers(self.strangers(), ownership.of(self.folder))
        if foreign:
            raise RuntimeFaultError("\n".join(foreign))
        arguments = ["docker", "compose", "--file", str(self.folder / "config" / "docker-compose.yml")]
        arguments += ["up", "--detach", "--no-deps", "--no-build", "--pull", "never", "--quiet-pull"]
        arguments += ["--force-recreate"] if fresh else []
        done = run([*arguments, slot], timeout=START_SECONDS)
        if not done.ok:
            raise RuntimeFaultError(f"docker compose could not start {self.container(slot)}: {done.text}")
        self._join(slot)

    def _join(self, slot: str) -> None:
        """Bring an nginx that runs into the network of ``slot``: it was started when the stack had another one."""
        if not self.running().get("nginx"):
            return
        for network in sorted(set(self.networks(slot)) - set(self.networks("nginx"))):
            done = run(["docker", "network", "connect", network, self.container("nginx")])
            if not done.ok:
                raise RuntimeFaultError(f"nginx cannot join the network {network} of {slot}: {done.text}")

    def stop(self, slot: str) -> bool:
        if not self.running().get(slot):
            # One that keeps ending by itself is between two starts of its restart policy.
            if self.inspect().get(slot, {}).get("State", {}).get("Restarting"):
                run(["docker", "stop", self.container(slot)], timeout=STOP_SECONDS)
            return False
        # The container itself knows how long it may take (stop_grace_period).
        done = run(["docker", "stop", self.container(slot)], timeout=STOP_SECONDS)
        if not done.ok:
            raise RuntimeFaultError(f"docker could not stop {self.container(slot)}: {done.text}")
        return True

    def proxy(self) -> Optional[str]:
        labels = self.inspect().get("nginx", {}).get("Config", {}).get("Labels") or {}
        return labels.get("org.swiftdeploy.proxy")

    def images(self) -> Dict[str, str]:
        return {
            program: str(record.get("Image", ""))
            for program, record in self.inspect().items()
            if record["State"]["Running"]
        }


def parent_of(options: Dict[str, Any], supervisord: Optional[str] = None) -> Union[Supervisor, Systemd]:
    """What starts and stops the stack's processes; ``options`` as in ``make``, ``supervisord`` goes before theirs."""
    folder = Path(options["stack_dir"])
    if options.get("supervisor") == "systemd":
        return Systemd(folder, options["service"])
    return Supervisor(folder, supervisord or options.get("supervisord") or "supervisord")


def refused_ports_alone(errors: str) -> bool:
    """Whether ``nginx -t`` found nothing wrong but that this user may not listen on a port of the configuration.

    It listens once all of the configuration is read and its certificates and logs are open.
    """
    found = [line for line in errors.splitlines() if "[emerg]" in line]
    return bool(found) and all(_REFUSED_PORT.search(line) for line in found)


class ProcessRuntime(Runtime):
    """Programs under one parent (supervisord or systemd) in ``folder``; slots listen on loopback ports."""

    name = "process"

    def __init__(self, folder: Path, ports: Dict[str, int], nginx: str, parent: Union[Supervisor, Systemd]) -> None:
        self.folder = folder
        self.ports = ports
        self.nginx = nginx
        self.supervisor = parent

    def running(self) -> Dict[str, bool]:
        return {name: entry["state"] in (10, 20) for name, entry in self.supervisor.info().items()}

    def alive(self) -> Dict[str, bool]:
        return {name: entry["pid"] > 0 for name, entry in self.supervisor.info().items()}

    def life(self, slot: str) -> Optional[str]:
        entry = self.supervisor.info().get(slot, {})
        return str(entry["pid"]) if entry.get("pid") and entry["state"] in (10, 20) else None

    def ending(self, slot: str) -> str:
        entry = self.supervisor.info().get(slot, {})
        if entry.get("pid"):
            return "it was started again"
        return f"status {entry['exitstatus']}" if "exitstatus" in entry else ""

    def address(self, slot: str) -> Optional[str]:
        return f"127.0.0.1:{self.ports[slot]}"

    def upstream_host(self, slot: str) -> str:  # noqa: ARG002
        return "127.0.0.1"

    def _printed(self, program: str, lines: int) -> List[str]:
        # What nginx prints to its standard output is the access log.
        name = "nginx.err.log" if program == "nginx" else f"{program}.log"
        return tail(self.folder / "logs" / name, lines)

    def proxy_log(self) -> Dict[str, str]:
        return {"kind": "file", "path": str(self.folder / "logs" / "nginx.log")}

    def test_nginx(self, folder: Path, name: str) -> Finished:
        done = run([self.nginx, "-t", "-q", "-p", str(self.folder), "-e", "stderr", "-c", str(folder / name)])
        # The unit may listen where this user may not.
        if not done.ok and isinstance(self.supervisor, Systemd) and refused_ports_alone(done.err):
            return Finished(0, done.out, "")
        return done

    def _master(self) -> Optional[int]:
        try:
            pid = int((self.folder / "run" / "nginx.pid").read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if b"nginx" in words else None

    def reload_nginx(self) -> Finished:
        master = self._master()
        if master is None:
            return Finished(1, "", "nginx is not running")
        os.kill(master, signal.SIGHUP)
        return Finished(0, "", "")

    def nginx_workers(self) -> Dict[int, bool]:
        master = self._master()
        if master is None:
            return {}
        found: Dict[int, bool] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == master and fields[0] != "Z":
                    found[int(entry.name)] = SHUTTING_DOWN.encode() in (entry / "cmdline").read_bytes()
            except OSError:
                continue
        return found

    def start(self, slot: str, fresh: bool) -> None:
        try:
            self.supervisor.start()
            self.supervisor.load(slot)
            if fresh:
                self.supervisor.stop(slot)
            # Another program there would answer the question for the health of this one.
            if not self.alive().get(slot) and port_free("127.0.0.1", self.ports[slot]):
                raise RuntimeFaultError(
                    f"port {self.ports[slot]} of 127.0.0.1, chosen for {slot}, was taken by another program meanwhile; "
                    "the same command again takes another one"
                )
            self.supervisor.run(slot)
        except SupervisorError as error:
            raise RuntimeFaultError(str(error)) from error

    def stop(self, slot: str) -> bool:
        try:
            return self.supervisor.stop(slot)
        except SupervisorError as error:
            raise RuntimeFaultError(str(error)) from error


def make(options: Dict[str, Any]) -> Runtime:
    """The runtime that a module's options name.

    ``options``: {"runtime": "docker" | "process", "stack_dir", "project", "nginx_image", "slot_ports": {slot: port},
    "nginx": path of the binary, "supervisord": path of the program, "supervisor": "supervisord" | "systemd",
    "service"}. What the host remembers of a slot goes before ``slot_ports``, which is older. Raises StateError.
    """
    folder = Path(options["stack_dir"])
    seen = {slot: int(port) for slot, port in (options.get("slot_ports") or {}).items()}
    ports = state.ports(state.load(folder, options["service"]), seen)
    if options["runtime"] == "docker":
        user = options.get("nginx_user") or NGINX_USER
        return DockerRuntime(folder, options["project"], ports, options["nginx_image"], user)
    return ProcessRuntime(folder, ports, options.get("nginx") or "nginx", parent_of(options))
