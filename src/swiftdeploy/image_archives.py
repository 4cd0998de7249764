"""Images as files: saved once on the controller, found again by the image's id, sent to hosts in parts.

For hosts without a registry. An archive is what ``docker save`` writes, in one folder::

    NAME-ID.tar          the image; ID is the first 12 digits of its id, so that another image is another file
    NAME-ID.tar.sha256   SHA-256 of the file, as ``sha256sum`` writes and checks it

Any other ``docker save`` archive in that folder is found by the names that stand in it, newest first: so a controller
without an engine can send what somebody put there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftdeploy_target.images import Engine, EngineError, last_words, parse_reference

# One part of an archive on its way; what is lost when a connection breaks.
PART = 4 * 1024 * 1024
# Archives of one name that stay; a run that is still sending an older one has it open.
KEPT = 3
# Broken connections in a row, without a part that arrived, until sending is given up.
TRIES = 3
SAVE_TIMEOUT = 600.0

# A shell command line, and bytes for it to read or None: (status, what it printed, what it complained of).
Run = Callable[[str, bytes | None], tuple[int, str, str]]


class ArchiveError(Exception):
    """An image cannot be had as an archive, or an archive cannot be sent; the text says why and what helps."""


class ConnectionBrokenError(Exception):
    """The way to the host broke while a part was on it; it may be sent again."""


@dataclass(frozen=True)
class Archive:
    """An archive on the controller, or one that can be made: then ``path`` does not exist yet.

    ``ids``: what the image may be called on a host. An engine with the classic store names it by its configuration, one
    with containerd's by its manifest.
    """

    name: str
    path: Path
    ids: frozenset[str]


def file_name(name: str, image_id: str) -> str:
    """The file of an image: the same for the same image and name, whoever makes it."""
    return f"{re.sub('[^A-Za-z0-9.-]', '_', parse_reference(name).full)}-{image_id.removeprefix('sha256:')[:12]}.tar"


def find(name: str, folder: Path, engine: Engine, *, pull: bool = True) -> Archive:
    """The archive of image ``name``: as this machine's ``engine`` has the image, else one in ``folder``, else pulled.

    Without ``pull`` an image that would be pulled has no ids yet. Raises ArchiveError.
    """
    if parse_reference(name).digest:
        raise ArchiveError("a name with a digest can only be pulled: an archive knows names by their tags")
    why = "its engine has no such image"
    try:
        found = engine.inspect(name)
        if found is None and (here := _in_folder(name, folder)) is not None:
            return here
        if found is None and not pull:
            return Archive(name, folder / file_name(name, ""), frozenset())
        if found is None:
            done = engine.pull(name)
            found = engine.inspect(name) if done.ok else None
            why = f"its engine has no such image and cannot pull it ({last_words(done.text)})"
    except EngineError as error:
        found, why = None, f"it has no engine to ask ({error})"
        if (here := _in_folder(name, folder)) is not None:
            return here
    if found is None:
        raise ArchiveError(
            f"the controller cannot save {name}: {why}. Pull or build it there, or put an archive of it "
            f"(docker save --output FILE.tar {name}) into {folder}"
        )
    path = folder / file_name(name, str(found["id"]))
    ids = {str(found["id"])} | (_described(path)[1] if path.is_file() else set())
    return Archive(name, path, frozenset(ids))


def offered(name: str, folder: Path) -> Archive | None:
    """The archive of ``name`` that lies in ``folder``, None where there is none. Asks no engine."""
    return _in_folder(name, folder)


def _in_folder(name: str, folder: Path) -> Archive | None:
    wanted = parse_reference(name)
    if wanted.digest:
        return None
    # A tag in an archive is written without the default registry.
    tags = {wanted.full, f"{wanted.familiar}:{wanted.tag or 'latest'}"}
    try:
        paths = sorted(folder.glob("*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return None
    for path in paths:
        with contextlib.suppress(ArchiveError):
            found, ids = _described(path)
            if tags & found:
                return Archive(name, path, frozenset(ids))
    return None


def _described(path: Path) -> tuple[set[str], set[str]]:
    """(names, ids) of the one image in an archive. Raises ArchiveError for a file that is none."""
    try:
        with tarfile.open(path) as archive:
            manifest = _json_in(archive, "manifest.json")
            with contextlib.suppress(KeyError):
                index = _json_in(archive, "index.json")
                manifests = {str(one["digest"]) for one in index["manifests"]}
                return _tags(manifest), _configurations(manifest) | manifests
            return _tags(manifest), _configurations(manifest)
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveError(f"{path} is no archive of docker save: {error}") from error


def _json_in(archive: tarfile.TarFile, name: str) -> Any:
    stream = archive.extractfile(name)
    if stream is None:
        raise KeyError(name)
    return json.loads(stream.read(1024 * 1024))


def _tags(manifest: Any) -> set[str]:
    return {str(tag) for image in manifest for tag in image.get("RepoTags") or []}


def _configurations(manifest: Any) -> set[str]:
    # sha256 in the file's name: DIGEST.json, or blobs/sha256/DIGEST.
    return {f"sha256:{Path(str(image['Config'])).name.removesuffix('.json')}" for image in manifest}


# ---------------------------------------------------------------------------------------------------- making


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone with ``path`` among all runs on this machine. The system gives the lock back whatever ends the process."""
    with path.with_name(f".{path.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def ensure(archive: Archive) -> tuple[Archive, str]:
    """The archive as it lies on the disk, and its SHA-256; made now where it was not made yet. Raises ArchiveError.

    Hosts are worked on at the same time: the first one makes it, the others wait for that.
    """
    path = archive.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if not path.is_file():
                _save(archive)
            return Archive(archive.name, path, archive.ids | frozenset(_described(path)[1])), _checksum(path)
    except OSError as error:
        raise ArchiveError(f"the archive {path} cannot be made on the controller: {error.strerror or error}") from error


def _save(archive: Archive) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{archive.path.name}.", dir=archive.path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        done = subprocess.run(
            ["docker", "save", "--output", str(temporary), parse_reference(archive.name).full],
            capture_output=True,
            text=True,
            timeout=SAVE_TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            raise ArchiveError(f"the controller cannot save {archive.name}: {last_words(done.stderr)}")
        temporary.chmod(0o644)
        temporary.replace(archive.path)
        _prune(archive.path)
    except subprocess.TimeoutExpired as error:
        raise ArchiveError(
            f"the controller has not saved {archive.name} after {SAVE_TIMEOUT:g} s; is its disk full or slow?"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _prune(path: Path) -> None:
    """Remove older archives of the name that ``path`` is one of; only what carries a name that is made here."""
    alike = re.compile(re.escape(path.name[: -len("-123456789012.tar")]) + "-[0-9a-f]{12}[.]tar")
    made = [other for other in path.parent.iterdir() if alike.fullmatch(other.name) and other != path]
    for old in sorted(made, key=lambda other: other.stat().st_mtime, reverse=True)[KEPT - 1 :]:
        for left in (old, old.with_name(f"{old.name}.sha256"), old.with_name(f".{old.name}.lock")):
            left.unlink(missing_ok=True)


def _checksum(path: Path) -> str:
    """SHA-256 of an archive; kept beside it, as reading 200 MB for every host would cost more than sending them."""
    beside = path.with_name(f"{path.name}.sha256")
    if beside.is_file() and beside.stat().st_mtime_ns >= path.stat().st_mtime_ns:
        kept = beside.read_text().partition(" ")[0]
        if re.fullmatch("[0-9a-f]{64}", kept):
            return kept
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    temporary = beside.with_name(f".{beside.name}.new")
    temporary.write_text(f"{digest}  {path.name}\n")
    temporary.replace(beside)
    return digest


# --------------------------------------------------------------------------------------------------- sending


def send(path: Path, digest: str, folder: str, run: Run) -> str:
    """Bring the file ``path`` to ``folder`` on a host; its path there. Raises ArchiveError.

    It goes in parts of `PART` bytes, each written at its own place, so that a part may arrive twice. What an earlier
    try has brought is not sent again: the file there is named by ``digest``, so that it can only be a beginning of this
    one. That it is whole and right is for the host to say, which takes its SHA-256.
    """
    size = path.stat().st_size
    target = f"{folder}/{digest}.tar"
    there, quoted = shlex.quote(folder), shlex.quote(target)
    measure = f"umask 077 && mkdir -p {there} && : >> {quoted} && wc -c < {quoted}"
    arrived = _size(run, measure, None, target)
    if arrived > size:
        arrived = _size(run, f": > {quoted} && wc -c < {quoted}", None, target)
    broken = 0
    with path.open("rb") as stream:
        while arrived < size:
            place = arrived // PART
            stream.seek(place * PART)
            part = stream.read(PART)
            command = f"dd of={quoted} bs={PART} seek={place} conv=notrunc iflag=fullblock 2>/dev/null"
            try:
                now = _size(run, f"{command} && wc -c < {quoted}", part, target)
                broken = 0
            except ConnectionBrokenError as error:
                broken += 1
                if broken >= TRIES:
                    raise ArchiveError(
                        f"the connection broke {TRIES} times while {path.name} was sent, {arrived} of {size} bytes are "
                        f"there ({error}). Run the same command again: it goes on from there"
                    ) from error
                continue
            if now < place * PART + len(part):
                raise ArchiveError(f"{target} does not grow on the host: {now} of {size} bytes. Is its disk full?")
            arrived = now
    return target


def _size(run: Run, command: str, data: bytes | None, target: str) -> int:
    status, out, complaint = run(command, data)
    word = out.strip().splitlines()[-1].strip() if out.strip() else ""
    if status != 0 or not word.isdigit():
        why = last_words(complaint or out)
        raise ArchiveError(
            f"{target} cannot be written on the host: {why}. Free some space, or see who owns the folder"
        )
    return int(word)
