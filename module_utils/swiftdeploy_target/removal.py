"""Taking a stack away: all that is its own, nothing of a neighbour's, and no data unless that is asked for.

Data is what cannot be made again: the volumes of the service, its logs, OPA's decisions, and the host's log of what was
switched. A stack can be looked for without anything of it: what is left of one that was taken away before is found by
its mark.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Union

from . import lock, names, ownership, release_log, state
from .command import run
from .files import write_atomic
from .prune import HOMES
from .runtime import STOP_SECONDS, detect_docker
from .state import SLOTS
from .supervisor import Supervisor, marked_processes
from .systemd import WANTED, Systemd

# Below the stack's folder: the logs of its processes and what the service wrote beside them, and the decision log.
DATA_FOLDERS = ("logs", "opa/decisions")
# The run that takes the stack away holds these until it has ended.
LOCKS = (lock.FILE_NAME, lock.WORK_NAME)
SHARED = ("parts", ".incoming")
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
NETWORK_LABEL = "com.docker.compose.network"


class RemovalError(Exception):
    """Something cannot be taken away; the message says what and why."""


class Found(NamedTuple):
    """What there is of a stack. ``containers`` in the order in which they are to end."""

    containers: List[str]
    networks: List[str]
    volumes: List[str]
    processes: bool
    files: List[Path]
    data: List[Path]


# --- docker -----------------------------------------------------------------------------------------------------------


def _docker(*words: str, timeout: float = 60.0) -> str:
    done = run(["docker", *words], timeout=timeout)
    if not done.ok:
        raise RemovalError(f"docker {words[0]} {words[1]}: {done.text or 'no reason given'}")
    return done.out


def _records(kind: str, *wanted: Mapping[str, str]) -> List[Dict[str, Any]]:
    """What ``docker inspect`` says of everything of ``kind`` that has all labels of one of ``wanted``."""
    every = ["--all"] if kind == "container" else []
    found: Dict[str, None] = {}
    for labels in wanted:
        filters = [word for key, value in labels.items() for word in ("--filter", f"label={key}={value}")]
        found.update(dict.fromkeys(_docker(kind, "ls", *every, "--quiet", *filters).split()))
    return list(json.loads(_docker(kind, "inspect", *found))) if found else []


def _containers(ours: ownership.Owner) -> List[Dict[str, Any]]:
    project = names.project(ours.service)
    projects = (project, names.policy_project(ours.service), f"{project}-opa")
    records = _records("container", *({ownership.COMPOSE_PROJECT: name} for name in projects))
    return [record for record in records if ownership.owner(record["Config"].get("Labels")) == ours]


def _ends(record: Mapping[str, Any]) -> int:
    """nginx before the slots that it sends requests to, the policy engine last."""
    program = (record["Config"].get("Labels") or {}).get("com.docker.compose.service")
    order = ("nginx", *SLOTS, "opa")
    return order.index(program) if program in order else len(order)


def _networks(ours: ownership.Owner, own: List[str]) -> List[str]:
    """Its networks, and those without a mark that an earlier version made for it and nobody else is in.

    ``own``: ids of its containers.
    """
    project = names.project(ours.service)
    earlier = [
        {ownership.COMPOSE_PROJECT: made, NETWORK_LABEL: called}
        for made, called in ((project, "stack"), (f"{project}-opa", "opa"))
    ]
    found = {str(record["Name"]) for record in _records("network", names.labels(*ours))}
    for record in _records("network", *earlier):
        if ownership.owner(record.get("Labels")) is None:
            inside = _docker("container", "ls", "--all", "--no-trunc", "--quiet", "--filter", f"network={record['Id']}")
            found |= {str(record["Name"])} if set(inside.split()) <= set(own) else set()
    return sorted(found)


def _volumes(ours: ownership.Owner, containers: List[Dict[str, Any]], kept: List[str]) -> List[str]:
    """The volumes that are the stack's alone: marked, noted, or nameless ones of its containers."""
    found = {str(record["Name"]) for record in _records("volume", names.labels(*ours))}
    mounts = (mount for record in containers for mount in record.get("Mounts") or [])
    nameless = {str(m["Name"]) for m in mounts if m.get("Type") == "volume" and _ANONYMOUS.fullmatch(str(m["Name"]))}
    return sorted(found | set(ownership.labels_of("volume", sorted(nameless | set(kept)))))


# --- both runtimes ----------------------------------------------------------------------------------------------------


def _parent(stack_dir: Path, service: str) -> Union[Supervisor, Systemd]:
    return Systemd(stack_dir, service) if (stack_dir / WANTED).is_dir() else Supervisor(stack_dir)


def find(options: Dict[str, Any]) -> Found:
    """What there is of the stack of ``options``. Raises RemovalError, StateError, OSError."""
    stack_dir, service = Path(options["stack_dir"]), options["service"]
    ours, remembered = ownership.of(stack_dir), state.load(stack_dir, service)
    containers: List[Dict[str, Any]] = []
    networks: List[str] = []
    volumes: List[str] = []
    # A stack that was taken away before, or has changed its runtime, may have left volumes.
    if "docker" in (options["runtime"], remembered["runtime"]) or detect_docker().usable:
        containers = sorted(_containers(ours), key=_ends)
        networks = _networks(ours, [record["Id"] for record in containers])
        volumes = _volumes(ours, containers, ownership.kept_volumes(remembered, ours))
    parent = _parent(stack_dir, service)
    data = [stack_dir / folder for folder in DATA_FOLDERS if (stack_dir / folder).is_dir()]
    if release_log.path_of(stack_dir).exists():
        data.append(release_log.path_of(stack_dir))
    files = [path for path in _below(stack_dir, data) if path.name not in (*LOCKS, ownership.DATA_NAME)]
    return Found(
        containers=[record["Name"].lstrip("/") for record in containers],
        networks=networks,
        volumes=volumes,
        processes=parent.answers() or bool(marked_processes(stack_dir)),
        files=files,
        data=data,
    )


def _below(folder: Path, kept: List[Path]) -> List[Path]:
    """What is below ``folder`` without ``kept``, as few paths as name it all."""
    found: List[Path] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path in kept:
            continue
        inside = [one for one in kept if path in one.parents]
        found += _below(path, inside) if inside else [path]
    return found


def neighbours(stack_dir: Path) -> List[str]:
    """Other services of this home that use, or are about to use, the programs in it. Raises OSError."""
    found = []
    for folder in sorted(stack_dir.parent.iterdir()) if stack_dir.parent.is_dir() else []:
        signs = (state.FILE_NAME, lock.FILE_NAME, "programs")
        if folder != stack_dir and folder.name not in SHARED and any((folder / sign).exists() for sign in signs):
            found.append(f"service {folder.name}")
    notes = stack_dir.parent / "parts" / HOMES
    for note in sorted(notes.iterdir()) if notes.is_dir() else []:
        home = note.read_bytes().decode(errors="replace")
        if not note.name.startswith(".") and any(Path(home).glob(f"*/{state.FILE_NAME}")):
            found.append(f"home {home}")
    return found


def words(found: Found, stack_dir: Path, *, data: bool, shared: List[Path]) -> Dict[str, List[str]]:
    """{"removed", "kept"}: what is, or would be, taken away and what stays, in words; ``data``: with its data. Pure."""
    own = [f"volume {name}" for name in found.volumes] + [str(path) for path in found.data]
    removed = [f"container {name}" for name in found.containers] + [f"network {name}" for name in found.networks]
    removed += ["its processes"] if found.processes else []
    removed += [f"files of {stack_dir}"] if found.files else []
    removed += [str(path) for path in shared]
    return {"removed": removed + (own if data else []), "kept": [] if data else own}


def shared_of(stack_dir: Path) -> List[Path]:
    """What the services of the home have in common, as far as it is there."""
    return [path for path in (stack_dir.parent / name for name in SHARED) if path.exists()]


def remove(found: Found, options: Dict[str, Any], *, data: bool, shared: List[Path]) -> None:
    """Take away what was found; of ``data`` and ``shared`` no more than is asked for.

    Whatever it is killed in the middle of, it can be done again. Raises RemovalError, SupervisorError, OSError.
    """
    stack_dir = Path(options["stack_dir"])
    if found.containers:
        _docker("container", "stop", *found.containers, timeout=STOP_SECONDS)
        _docker("container", "rm", *found.containers)
    if found.networks:
        _docker("network", "rm", *found.networks)
    if found.processes:
        _parent(stack_dir, options["service"]).shutdown()
    unmarked = [name for name in found.volumes if name not in options["names"]["kept_volumes"]]
    if found.volumes and not data:
        # Without its containers nothing but this says that a nameless one is the stack's.
        nameless = [name for name in unmarked if _ANONYMOUS.fullmatch(name)]
        if nameless:
            text = json.dumps({"volumes": sorted({*options["names"]["kept_volumes"], *nameless})}) + "\n"
            write_atomic(stack_dir / ownership.DATA_NAME, text.encode(), mode=0o600)
    for path in [*found.files, *shared]:
        _delete(path)
    if data:
        if found.volumes:
            _docker("volume", "rm", *found.volumes)
        for path in found.data:
            _delete(path)
        _delete(stack_dir / ownership.DATA_NAME)
        _forget_empty(release_log.path_of(stack_dir).parent)
    for folder in (stack_dir / "opa", stack_dir / "logs"):
        _forget_empty(folder)
    if all(path.name in LOCKS for path in (stack_dir.iterdir() if stack_dir.is_dir() else [])):
        _delete(stack_dir)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()


def _forget_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
