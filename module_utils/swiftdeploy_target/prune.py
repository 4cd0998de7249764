"""Removing what releases were made of once no release needs them: images in docker, folders of parts in process.

What is needed is decided by reading (pure functions over states, image records and marks); what is then removed is
left alone again when anything speaks for it. A host that cannot tell what it needs keeps everything and says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Set

from . import samples
from . import state as states
from .command import Finished, run
from .files import write_atomic
from .images import LABEL, REPOSITORY_LABEL, last_words, parse_reference
from .keep import MARK, PartsError, locked, read_mark

DAY = 86400.0
# Seconds for everything; what is not removed by then goes after the next switch.
BUDGET = 60.0
# What images of services are built on, by default (library/swiftdeploy_images.py).
BASES = ("python:3.13-slim", "swiftdeploy/python:3.13")
COMPOSE_PROJECT = "com.docker.compose.project"
PROJECT_PREFIX = "swiftdeploy-"
HOMES = ".homes"

_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")
# As parts.py and python_env.py name them; the last is a service that was being unpacked. Without a mark an OPA's
# folder could be anybody's, so that one needs its mark.
_PART = re.compile(r"env-[0-9a-f]{12}|service-[0-9a-f]{12}|\.service-\w+|opa-.+")
_NEEDS_MARK = re.compile(r"opa-.+")

Report = Dict[str, List[str]]


def _releases(state: states.State) -> List[states.Release]:
    """All records that may be started again: what is live or starting, the last stable one, those kept for rollback.

    The last good release is one of those kept.
    """
    found = [*(state.get("releases") or []), *(state.get("slots") or {}).values(), state.get("last_stable")]
    return [entry for entry in found if isinstance(entry, dict)]


def needed(state: states.State) -> Dict[str, Any]:
    """What the releases of ``state`` need. Pure.

    {"releases": their ids in the order kept, "images": ids of images, "names": names of images, "folders": paths of
    service folders and everything of their commands that is a path}. The last three are sets.
    """
    ids: Dict[str, None] = {}
    images: Set[str] = set()
    names: Set[str] = set()
    folders: Set[str] = set()
    for release in _releases(state):
        ids[str(release.get("id"))] = None
        spec = release.get("spec") or {}
        artifact = spec.get("artifact") or {}
        if artifact.get("image_id"):
            images.add(str(artifact["image_id"]))
        if spec.get("image"):
            names.add(str(spec["image"]))
        words = [artifact.get("service_dir"), *(artifact.get("service_command") or []), *(spec.get("command") or [])]
        folders.update(str(word) for word in words if word and "/" in str(word))
    return {"releases": list(ids), "images": images, "names": names, "folders": folders}


def states_below(home: Path) -> List[states.State]:
    """The state of every service below ``home``. Raises StateError and OSError for one that cannot be read."""
    return [states.load(path.parent, path.parent.name) for path in sorted(home.glob(f"*/{states.FILE_NAME}"))]


# --- docker ---------------------------------------------------------------------------------------------------------


class Wanted(NamedTuple):
    """What decides about images: the ids that stay, the ids of dropped releases and the names that they alone used,
    the repositories whose untagged images are ours to remove."""

    ids: Set[str]
    dropped_ids: Set[str]
    dropped_tags: Set[str]
    repositories: Set[str]


def _tag(name: str) -> Optional[str]:
    """``name`` as docker lists it in RepoTags; None for a name that is none or that a digest pins."""
    try:
        reference = parse_reference(name)
    except ValueError:
        return None
    return None if reference.digest else f"{reference.familiar}:{reference.tag or 'latest'}"


def _tags(names: Iterable[str]) -> Set[str]:
    return {tag for tag in map(_tag, names) if tag}


def wanted_images(options: Dict[str, Any], before: states.State, others: List[states.State]) -> Wanted:
    """What stays and what may go. ``others``: every state whose releases stay, the present one among them. Pure."""
    was = needed(before)
    ids: Set[str] = set()
    tags = _tags([*BASES, options.get("nginx_image") or "", *(options.get("keep_images") or [])])
    repositories = {tag.rpartition(":")[0] for tag in tags | _tags(was["names"])}
    for other in others:
        needs = needed(other)
        ids |= needs["images"]
        # Also when it has moved to another image since: the next run takes what it names.
        tags |= _tags(needs["names"])
    dropped = {name for name in was["images"] - ids if _IMAGE_ID.fullmatch(name)}
    return Wanted(ids, dropped, _tags(was["names"]) - tags, repositories)


def _age(record: Dict[str, Any], now: float) -> float:
    """Seconds since an image was made or last given a name, whichever is later; 0 when that cannot be read."""
    moments = []
    for text in (record.get("Created"), (record.get("Metadata") or {}).get("LastTagTime")):
        try:
            # To the second: Python reads at most six digits behind it. Without a zone it is UTC.
            moment = datetime.strptime(str(text)[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
        except ValueError:
            continue
        # 0001-01-01 stands for never.
        moments.append(moment.timestamp())
    return now - max(moments) if moments else 0.0


def plan_images(records: List[Dict[str, Any]], wanted: Wanted, now: float, age: float) -> List[Dict[str, Any]]:
    """Which of ``records`` (docker image inspect) to remove. Pure.

    An image of a dropped release goes when nobody gave it another name. Others go when they were built here for one
    of the repositories, have lost their name, and had it more than ``age`` seconds ago: a run may just have built one
    that it has yet to start.
    """
    kept = [_layers(record) for record in records if record["Id"] in wanted.ids]
    chosen = []
    for record in records:
        tags = set(record.get("RepoTags") or [])
        labels = (record.get("Config") or {}).get("Labels") or {}
        if record["Id"] in wanted.ids:
            continue
        if record["Id"] in wanted.dropped_ids:
            ours = tags <= wanted.dropped_tags
        else:
            built = LABEL in labels and labels.get(REPOSITORY_LABEL) in wanted.repositories
            ours = built and not tags and _age(record, now) > age
        # docker removes the untagged parents of what it removes: one of them may be an image that is needed.
        own = _layers(record)
        above = record.get("Parent") and any(layers == own[: len(layers)] for layers in kept)
        if ours and not above:
            chosen.append(record)
    return chosen


def _layers(record: Dict[str, Any]) -> List[str]:
    return list((record.get("RootFS") or {}).get("Layers") or [])


def _docker(deadline: float, *words: str) -> Finished:
    left = deadline - time.monotonic()
    if left <= 0:
        return Finished(124, "", "no time is left for it")
    return run(["docker", *words], timeout=left)


def _stacks_of_engine(deadline: float) -> List[states.State]:
    """The states of all stacks that have containers on this engine, in whichever home. Raises StateError, OSError."""
    shown = f'{{{{.Label "{COMPOSE_PROJECT}"}}}}\t{{{{.Label "{COMPOSE_PROJECT}.working_dir"}}}}'
    done = _docker(
        deadline, "container", "ls", "--all", "--no-trunc", "--filter", f"label={COMPOSE_PROJECT}", "--format", shown
    )
    if not done.ok:
        raise states.StateError(f"the engine does not list its containers: {last_words(done.text)}")
    found = []
    for line in sorted(set(done.out.splitlines())):
        project, _, folder = line.partition("\t")
        if project.startswith(PROJECT_PREFIX) and folder:
            found.append(states.load(Path(folder).parent, project[len(PROJECT_PREFIX) :]))
    return found


def prune_images(
    state_before: states.State,
    state_after: states.State,
    options: Dict[str, Any],
    age: float = DAY,
    budget: float = BUDGET,
) -> Report:
    """Remove the images that the releases dropped between two states used, and what rebuilding left untagged.

    Two docker commands at most when nothing is to be removed. By id and without force, so docker itself keeps what a
    container uses, stopped ones included, and what has a second name or a child. Raises StateError and OSError.
    """
    deadline = time.monotonic() + budget
    listed = _docker(
        deadline, "image", "ls", "--no-trunc", "--quiet", "--filter", f"label={LABEL}", "--filter", "dangling=true"
    )
    if not listed.ok:
        return _report(problems=[f"old images stay: the engine does not list them: {last_words(listed.text)}"])
    present = [state_after, *states_below(Path(options["stack_dir"]).parent)]
    wanted = wanted_images(options, state_before, present)
    candidates = {name for name in [*listed.out.split(), *wanted.dropped_ids] if name not in wanted.ids}
    if not candidates:
        return _report()
    kept = {name for name in wanted.ids if _IMAGE_ID.fullmatch(name)}
    # Ends with status 1 when one of them is gone, and tells of the others all the same.
    asked = _docker(deadline, "image", "inspect", *sorted(candidates | kept))
    if not asked.out.strip():
        return _report(problems=[f"old images stay: the engine does not describe them: {last_words(asked.text)}"])
    records = json.loads(asked.out)
    if not plan_images(records, wanted, time.time(), age):
        return _report()
    wanted = wanted_images(options, state_before, [*present, *_stacks_of_engine(deadline)])
    return _remove_images(plan_images(records, wanted, time.time(), age), deadline)


def _remove_images(records: List[Dict[str, Any]], deadline: float) -> Report:
    if not records:
        return _report()
    done = _docker(deadline, "image", "rm", *(record["Id"] for record in records))
    gone = {line.partition("Deleted: ")[2] for line in done.out.splitlines()}
    problems = [
        f"old images stay: {last_words(line)}"
        for line in (done.err.splitlines() if not done.ok else [])
        # A conflict is docker's word for an image that somebody uses: that is as it should be.
        if line.strip() and "conflict" not in line.lower() and "no such image" not in line.lower()
    ]
    removed = [f"image {_called(record)}" for record in records if record["Id"] in gone]
    return _report(removed, problems)


def _called(record: Dict[str, Any]) -> str:
    labels = (record.get("Config") or {}).get("Labels") or {}
    name = next(iter(record.get("RepoTags") or []), labels.get(REPOSITORY_LABEL, ""))
    return f"{name} {record['Id'][7:19]}".strip()


# --- process --------------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """A folder below the parts folder. ``kind`` is service, env or opa, empty for one that was never finished;
    ``used`` is unix seconds; ``python`` is the interpreter that a service was unpacked for."""

    path: Path
    kind: str
    name: str
    used: float
    python: str


def _used(folder: Path) -> float:
    """When ``folder`` was last used. Raises OSError."""
    mark = folder / MARK
    return (mark if mark.exists() else folder).stat().st_mtime


def parts_below(parts_dir: Path) -> List[Part]:
    """The folders below ``parts_dir`` that this program made. Raises OSError."""
    found = []
    for path in sorted(parts_dir.iterdir()) if parts_dir.is_dir() else []:
        if not _PART.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            continue
        mark = read_mark(path)
        if mark is None and _NEEDS_MARK.fullmatch(path.name):
            continue
        mark = mark or {}
        words = [str(mark.get(key) or "") for key in ("kind", "name", "python")]
        found.append(Part(path, words[0], words[1], _used(path), words[2]))
    return found


def spare_parts(parts: List[Part], words: Iterable[str], now: float, age: float) -> List[Part]:
    """The folders that nothing needs. Pure.

    ``words`` are texts that name what is needed. A folder stays when one of them holds its name (which stands for its
    content, so links to it and moved homes do not matter), when it was used less than ``age`` seconds ago, and when it
    is the last used of its kind of program. A service that stays keeps its interpreter.
    """
    text = "\n".join(words)
    newest: Dict[Any, float] = {}
    for part in parts:
        key = (part.kind, part.name)
        newest[key] = max(newest.get(key, 0.0), part.used)

    def stays(part: Part, said: str) -> bool:
        last = part.kind in ("env", "opa") and part.used >= newest[(part.kind, part.name)]
        return part.path.name in said or now - part.used <= age or last

    services = [part for part in parts if part.kind == "service"]
    interpreters = [part.python for part in services if stays(part, text)]
    text = "\n".join([text, *interpreters])
    return [part for part in parts if not stays(part, text)]


def names_in_use(names: Set[str]) -> Set[str]:
    """Which of ``names`` a running process has in its command, its folder or its open programs. Raises OSError."""
    found: Set[str] = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        seen = b"".join(_read(process / part) for part in ("cmdline", "maps"))
        seen += b"".join(_link(process / part) for part in ("exe", "cwd"))
        found |= {name for name in names - found if os.fsencode(name) in seen}
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended, or is somebody else's
        return b""


def _link(path: Path) -> bytes:
    try:
        return os.fsencode(path.readlink())
    except OSError:
        return b""


def _homes(parts_dir: Path, home: Path) -> List[Path]:
    """All homes that use ``parts_dir``. Raises OSError.

    A folder outside of its home can serve several, and none knows of the others: each leaves a note there.
    """
    notes = parts_dir / HOMES
    own = home.resolve()
    if parts_dir.resolve().parent != own:
        note = notes / hashlib.sha256(os.fsencode(own)).hexdigest()[:12]
        if not note.exists():
            notes.mkdir(exist_ok=True)
            write_atomic(note, os.fsencode(own))
    found = {own}
    for note in sorted(notes.iterdir()) if notes.is_dir() else []:
        if not note.name.startswith("."):
            found.add(Path(os.fsdecode(note.read_bytes())))
    return sorted(found)


def _said_by(homes: List[Path], after: states.State) -> List[str]:
    """Every path that a release or a program of ``homes`` names. Raises StateError and OSError."""
    words: List[str] = []
    for state in [after, *(state for home in homes for state in states_below(home))]:
        words += needed(state)["folders"]
    for home in homes:
        # With what nginx, OPA and the slots are started again after a reboot.
        words += [path.read_text(errors="replace") for path in home.glob("*/programs/*.json")]
    return words


def prune_folders(
    parts_dir: Path,
    home: Path,
    state_after: states.State,
    age: float = DAY,
    budget: float = BUDGET,
) -> Report:
    """Remove services and environments below ``parts_dir`` that nothing needs; see ``spare_parts``.

    ``state_after`` counts besides every state below ``home`` and below the other homes that share the parts. Raises
    StateError, PartsError and OSError.
    """
    deadline = time.monotonic() + budget
    # Somebody else's folder is used as it is.
    if not os.access(parts_dir, os.W_OK | os.X_OK):
        return _report()
    homes = _homes(parts_dir, home)
    # The marks alone tell a host with nothing to remove.
    if not spare_parts(parts_below(parts_dir), [], time.time(), age):
        return _report()
    removed, problems = [], []
    with locked(parts_dir / ".lock", patience=1.0):
        parts = parts_below(parts_dir)
        words = _said_by(homes, state_after)
        running = names_in_use({part.path.name for part in parts})
        for part in spare_parts(parts, [*words, *running], time.time(), age):
            if time.monotonic() > deadline:
                break
            try:
                # A run that found it a moment ago has noted that it uses it.
                if _used(part.path) == part.used:
                    # Without its mark a folder is unfinished, so half of one is never taken for whole.
                    (part.path / MARK).unlink(missing_ok=True)
                    shutil.rmtree(part.path)
                    removed.append(f"{part.path.name} ({part.name or 'unfinished'})")
            except OSError as error:
                problems.append(f"{part.path} cannot be removed: {error.strerror or error}")
    return _report(removed, problems)


# --- both -----------------------------------------------------------------------------------------------------------


def _report(removed: Iterable[str] = (), problems: Iterable[str] = ()) -> Report:
    return {"removed": list(removed), "problems": list(problems)}


def prune(
    options: Dict[str, Any],
    state_before: states.State,
    state_after: states.State,
    age: float = DAY,
    budget: float = BUDGET,
) -> Report:
    """Remove what the releases between two states left behind: {"removed": [words], "problems": [words]}.

    ``options`` are the stack's, with two more that may be missing: "parts_dir" (the home's folder parts), and
    "keep_images", names of images that stay whatever they are. ``age`` and ``budget`` are seconds: how long something
    must have been unused, and how long all of this may take. Whatever cannot be removed is in problems, never raised.
    """
    home = Path(options["stack_dir"]).parent
    present = [slot["id"] for slot in state_after["slots"].values() if slot]
    try:
        samples.forget(Path(options["stack_dir"]) / samples.FILE_NAME, present)
        if options["runtime"] == "docker":
            return prune_images(state_before, state_after, options, age, budget)
        return prune_folders(Path(options.get("parts_dir") or home / "parts"), home, state_after, age, budget)
    except (states.StateError, PartsError, OSError, ValueError) as error:
        return _report(problems=[f"what older releases left stays: {error}"])
