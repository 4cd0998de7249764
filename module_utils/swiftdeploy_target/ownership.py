"""Whose a stack is, and what of a stranger's lies under the names that it would use.

A stack is known by its home, a resolved folder on the host, and its service: that is the mark on its containers,
networks and volumes, and in ``state.json``. The checkout that it was last changed from is told, but decides nothing:
several people deploy to the same hosts from clones of their own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional

from . import names, state
from .command import run
from .files import read_bytes, write_atomic

COMPOSE_PROJECT = "com.docker.compose.project"
COMPOSE_FOLDER = "com.docker.compose.project.working_dir"
DATA_NAME = "data.json"
# What to change in the manifest so that another name is taken.
KEYS = {"container": "services.name", "network": "network.name", "volume": "services.log_volume"}


class Owner(NamedTuple):
    """A stack: its home on the host, and its service."""

    home: str
    service: str

    @property
    def stack_dir(self) -> Path:
        """The folder of the stack."""
        return Path(self.home) / self.service


class Thing(NamedTuple):
    """A container, network or volume of the engine: ``kind`` says which."""

    kind: str
    name: str
    labels: Mapping[str, str]


def of(stack_dir: Path) -> Owner:
    """The stack in ``stack_dir``."""
    return Owner(os.path.realpath(stack_dir.parent), stack_dir.name)


def owner(labels: Optional[Mapping[str, str]]) -> Optional[Owner]:
    """Whose something with these labels is; None where nothing says so.

    Containers of earlier versions have no mark, but compose notes the folder that it was run in: ``config`` or ``opa``
    of the stack's.
    """
    found = labels or {}
    home, service = found.get(names.HOME_LABEL), found.get(names.SERVICE_LABEL)
    if home and service:
        return Owner(os.path.realpath(home), service)
    folder = Path(found.get(COMPOSE_FOLDER) or "")
    service = folder.parent.name
    made = (names.project(service), f"{names.project(service)}-opa")
    if folder.name in ("config", "opa") and found.get(COMPOSE_PROJECT) in made:
        return of(folder.parent)
    return None


def labels_of(kind: str, wanted: Iterable[str]) -> Dict[str, Mapping[str, str]]:
    """The labels of each network or volume of ``wanted`` that exists. Raises StateError."""
    asked = list(wanted)
    done = run(["docker", kind, "inspect", *asked]) if asked else None
    if done is None:
        return {}
    missing = ("no such", "not found")
    wrong = [line for line in done.err.splitlines() if line.strip() and not any(w in line.lower() for w in missing)]
    try:
        records = json.loads(done.out or "[]")
    except ValueError:
        records, wrong = [], wrong or ["it does not print JSON"]
    if wrong:
        raise state.StateError(f"the engine does not tell of the {kind}s {', '.join(asked)}: {wrong[-1].strip()}")
    return {str(record["Name"]): record.get("Labels") or {} for record in records}


def strangers(things: Iterable[Thing], ours: Owner) -> List[str]:
    """What of ``things`` is somebody else's: a sentence for each owner, with what to do."""
    found: Dict[Optional[Owner], List[Thing]] = {}
    for thing in things:
        whose = owner(thing.labels)
        if whose != ours:
            found.setdefault(whose, []).append(thing)
    return [_sentence(whose, theirs) for whose, theirs in found.items()]


def _sentence(whose: Optional[Owner], theirs: List[Thing]) -> str:
    called = {kind: [thing.name for thing in theirs if thing.kind == kind] for kind in KEYS}
    said = ", ".join(f"{kind}{'s' if len(one) > 1 else ''} {' '.join(one)}" for kind, one in called.items() if one)
    # Each name holds the service's; a container's holds nothing else.
    more = [] if called["container"] else [KEYS[kind] for kind, one in called.items() if one]
    keys = " or ".join(["services.name", *more])
    if whose is None:
        what = f"under names of this stack there is what is not SwiftDeploy's and was left alone: {said}"
        return f"{what}. Change {keys} in the manifest, or remove it if nobody needs it."
    what = (
        f"this is the stack of service {whose.service} in {whose.home}{_last_changed(whose)} and was left alone: {said}"
    )
    return f"{what}. Change {keys} in the manifest, or run teardown.yml {_where(whose, theirs)}."


def _last_changed(whose: Owner) -> str:
    try:
        told = (state.load(whose.stack_dir, whose.service)["owner"] or {}).get("checkout")
    except (state.StateError, OSError):
        told = None
    return f" (last changed from {told})" if told else ""


def _where(whose: Owner, theirs: List[Thing]) -> str:
    data = any(thing.kind == "volume" for thing in theirs)
    words = f"-e clean=data -e service={whose.service} there" if data else "there"
    if Path(whose.home).is_dir():
        return words
    kinds = dict.fromkeys(thing.kind for thing in theirs)
    commands = (
        " ".join(
            ["docker", kind, "rm", *(["--force"] if kind == "container" else [])]
            + [thing.name for thing in theirs if thing.kind == kind]
        )
        for kind in kinds
    )
    return (
        f"{words} (that folder is gone from this host: if it was moved, move it back for that; "
        f"if nobody needs it: {'; '.join(commands)})"
    )


def copied(remembered: state.State, ours: Owner) -> Optional[str]:
    """Why ``state.json`` is not this stack's own: a sentence, None where it is.

    A stack whose folder was moved is still the same; one whose folder was copied is not.
    """
    said = remembered.get("owner")
    if not said:
        return None
    first = Owner(os.path.realpath(str(said.get("home"))), str(said.get("service")))
    if first == ours or not (first.stack_dir / state.FILE_NAME).exists():
        return None
    return (
        f"{ours.stack_dir / state.FILE_NAME} is of the stack of service {first.service} in {first.home}: the folder is "
        f"a copy of that one. Remove {ours.stack_dir}, from which nothing runs, and run this again."
    )


# --- volumes of earlier versions ------------------------------------------------------------------------------------


def kept_volumes(remembered: state.State, ours: Owner) -> List[str]:
    """Volumes without a mark that are this stack's, since an earlier version of SwiftDeploy made them for it.

    They keep their names, so that what a service has in them stays with it. Once found they are written down by
    ``note_kept``: a later volume of that name is no stack's. Raises StateError, OSError.
    """
    written = read_bytes(ours.stack_dir / DATA_NAME)
    if written is not None:
        try:
            return [str(name) for name in json.loads(written)["volumes"]]
        except (ValueError, KeyError, TypeError) as error:
            raise state.StateError(
                f"{ours.stack_dir / DATA_NAME} does not say which volumes of an earlier version are this stack's: "
                'restore it, or write {"volumes": []} for none'
            ) from error
    if remembered["owner"] or remembered["runtime"] != "docker":
        return []
    specs = [release["spec"] for release in (*remembered["releases"], *remembered["slots"].values()) if release]
    used = sorted({str(spec["log_volume"]) for spec in specs if spec.get("log_volume")})
    project = names.project(ours.service)
    found = labels_of("volume", used)
    return [name for name in used if owner(found.get(name)) is None and _made_for(found.get(name), project)]


def _made_for(labels: Optional[Mapping[str, str]], project: str) -> bool:
    return (labels or {}).get(COMPOSE_PROJECT) == project


def note_kept(volumes: List[str], stack_dir: Path) -> None:
    """Write down which volumes of an earlier version are the stack's."""
    if volumes and not (stack_dir / DATA_NAME).exists():
        write_atomic(stack_dir / DATA_NAME, (json.dumps({"volumes": volumes}) + "\n").encode(), mode=0o600)
