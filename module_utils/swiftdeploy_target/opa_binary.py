"""Getting the OPA program: from our cache, the PATH, a verified download or Go, in this order.

Whatever does not come from the PATH is kept as CACHE/opa-VERSION-PLATFORM/opa with a record, opa.json, beside it.
A cached program is used only when its bytes are those of the record and it still runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import MappingProxyType
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from .command import run
from .files import read_bytes, sync_folder, write_atomic
from .keep import PartsError, last_lines, locked, run_held, sha256_of, version_tuple
from .opa_program import is_static, own_platform, unacceptable, version_of

RELEASES = "https://github.com/open-policy-agent/opa/releases/download"
MODULE = "github.com/open-policy-agent/opa"
# The project publishes a static program for every platform but this one.
PLAIN_ASSETS = ("darwin-amd64",)
LARGEST = 300 * 1024 * 1024  # bytes; a release is about 50 MB


class Wanted(NamedTuple):
    """What is asked for. Times in seconds; ``sha256`` maps a platform to the checksum of its release file."""

    version: str
    platform: str
    cache_dir: Path
    sources: Tuple[str, ...] = ("path", "download", "go")
    releases: str = RELEASES
    sha256: Mapping[str, str] = MappingProxyType({})
    static: bool = False
    connect_timeout: float = 5.0
    download_timeout: float = 300.0
    build_timeout: float = 900.0

    @property
    def folder(self) -> Path:
        """Where the program is kept."""
        return self.cache_dir / f"opa-{self.version}-{self.platform}"

    @property
    def native(self) -> bool:
        """Whether the program runs on this machine."""
        return self.platform == own_platform()


class Found(NamedTuple):
    """An OPA program. ``origin`` is where it first came from; ``source`` is where this run took it from."""

    path: str
    version: str
    source: str
    origin: str
    sha256: str


def asset_url(wanted: Wanted) -> str:
    """Address of the release file."""
    suffix = "" if wanted.platform in PLAIN_ASSETS else "_static"
    return f"{wanted.releases.rstrip('/')}/v{wanted.version}/opa_{wanted.platform.replace('-', '_')}{suffix}"


def checksum_in(text: str) -> Optional[str]:
    """The SHA-256 in a checksum file ("HASH  NAME"), or None."""
    words = text.split()
    return words[0].lower() if words and re.fullmatch(r"[0-9a-fA-F]{64}", words[0]) else None


def read_record(folder: Path) -> Dict[str, Any]:
    """The record of a cached program, empty when there is none that can be read."""
    try:
        found = json.loads(read_bytes(folder / "opa.json") or b"{}")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def from_cache(wanted: Wanted, tried: List[str]) -> Optional[Found]:
    """The cached program, or None with the reason in ``tried``."""
    program, record = wanted.folder / "opa", read_record(wanted.folder)
    if not program.is_file():
        tried.append(f"cache: {program} is not there yet")
        return None
    if not record or sha256_of(program) != record.get("sha256"):
        tried.append(f"cache: {program} is torn or was changed; it is replaced")
        return None
    if wanted.native and version_of(program) != record.get("version"):
        tried.append(f"cache: {program} does not run; it is replaced")
        return None
    return Found(str(program), str(record["version"]), "cache", str(record.get("source")), record["sha256"])


def from_path(wanted: Wanted, tried: List[str]) -> Optional[Found]:
    """The program on the PATH, or None with the reason in ``tried``."""
    if not wanted.native:
        tried.append(f"PATH: not looked at, {wanted.platform} is another platform than this one")
        return None
    name = shutil.which("opa")
    if name is None:
        tried.append("PATH: there is no opa")
        return None
    program = Path(name).resolve()
    version = version_of(program)
    why = unacceptable(version, wanted.version)
    if not why and wanted.static and not is_static(program):
        why = "it is linked dynamically and would not run in an image of its own"
    if why or version is None:
        tried.append(f"PATH: {program}: {why}")
        return None
    return Found(str(program), version, "path", "path", sha256_of(program))


def fetch(url: str, connect_timeout: float, limit: int) -> bytes:
    """A small file. Raises OSError (urllib's errors are) and ValueError."""
    with urllib.request.urlopen(url, timeout=connect_timeout) as answer:  # noqa: S310
        data: bytes = answer.read(limit)
    return data


def expected_checksum(wanted: Wanted) -> Tuple[str, str]:
    """The checksum to verify against, and who says so. The published one counts only when it came over TLS."""
    pinned = wanted.sha256.get(wanted.platform)
    if pinned:
        return pinned.lower(), "pinned"
    url = asset_url(wanted) + ".sha256"
    if not url.startswith("https://"):
        raise ValueError(f"no checksum is pinned for {wanted.platform} and {url} is not https")
    found = checksum_in(fetch(url, wanted.connect_timeout, 4096).decode("ascii", "replace"))
    if found is None:
        raise ValueError(f"{url} holds no SHA-256")
    return found, "published"


def download(wanted: Wanted, target: Path) -> None:
    """Put the verified release file at ``target``. Raises OSError and ValueError; nothing unverified is used."""
    expected, whose = expected_checksum(wanted)
    url, digest, size = asset_url(wanted), hashlib.sha256(), 0
    limit = time.monotonic() + wanted.download_timeout
    with urllib.request.urlopen(url, timeout=wanted.connect_timeout) as answer, target.open("wb") as out:  # noqa: S310
        for block in iter(lambda: answer.read(1 << 18), b""):
            size += len(block)
            if size > LARGEST:
                raise ValueError(f"{url} is larger than {LARGEST // 1024 // 1024} MB")
            if time.monotonic() > limit:
                raise ValueError(f"{url} took more than {wanted.download_timeout:g} s")
            digest.update(block)
            out.write(block)
    if digest.hexdigest() != expected:
        raise ValueError(f"{url} has SHA-256 {digest.hexdigest()}, the {whose} one is {expected}; it was thrown away")


def go_program() -> Optional[str]:
    """The go command: on the PATH, or where its own installer puts it."""
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")


def go_environment(wanted: Wanted, scratch: Path, go: str) -> Dict[str, str]:
    """Environment for `go install` into ``scratch``; proxies and CA settings of this process are kept.

    `go install` refuses GOBIN for another platform, so the workspace (GOPATH) is moved instead and the shared
    module cache is named explicitly.
    """
    environment = dict(os.environ)
    if not any(environment.get(name) for name in ("HOME", "XDG_CACHE_HOME", "GOCACHE")):
        environment["GOCACHE"] = str(scratch / "build-cache")
    modules = run([go, "env", "GOMODCACHE"], timeout=30.0).out.strip()
    if modules:
        environment["GOMODCACHE"] = modules
    system, machine = wanted.platform.split("-", 1)
    environment.update(CGO_ENABLED="0", GOOS=system, GOARCH=machine, GOPATH=str(scratch))
    environment.pop("GOBIN", None)
    if wanted.native:
        environment["GOBIN"] = str(scratch / "bin")
    return environment


def build(wanted: Wanted, target: Path, scratch: Path, lock: int) -> None:
    """Build the release with Go, whose checksum database verifies the source. Raises ValueError."""
    go = go_program()
    if go is None:
        raise ValueError("Go is not installed")
    environment = go_environment(wanted, scratch, go)
    package = f"{MODULE}@v{wanted.version}"
    done = run_held(
        [go, "install", "-trimpath", "-ldflags=-s -w", package],
        environment,
        scratch,
        timeout=wanted.build_timeout,
        lock=lock,
    )
    if not done.ok:
        raise ValueError(f"`go install {package}` failed: {last_lines(done.text)}")
    built = [path for path in (scratch / "bin").rglob("opa") if path.is_file()]
    if not built:
        raise ValueError(f"`go install {package}` made no program")
    built[0].replace(target)


def keep(wanted: Wanted, made: Path, source: str) -> Found:
    """Move ``made`` into the cache and write its record. Raises ValueError when it is not what was asked for."""
    made.chmod(0o755)
    if wanted.native:
        version = version_of(made)
        if version != wanted.version:
            raise ValueError(f"what it gave says version {version}, not {wanted.version}")
    checksum = sha256_of(made)
    with made.open("rb") as stream:
        os.fsync(stream.fileno())
    wanted.folder.mkdir(parents=True, exist_ok=True)
    made.replace(wanted.folder / "opa")
    sync_folder(wanted.folder)
    record = {"version": wanted.version, "platform": wanted.platform, "source": source, "sha256": checksum}
    write_atomic(wanted.folder / "opa.json", (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())
    return Found(str(wanted.folder / "opa"), wanted.version, source, source, checksum)


def find(wanted: Wanted, tried: List[str]) -> Optional[Found]:
    """A program that is there already; changes nothing."""
    found = from_cache(wanted, tried)
    if found is None and "path" in wanted.sources:
        found = from_path(wanted, tried)
    return found


def obtain(wanted: Wanted, tried: List[str]) -> Found:
    """A program, made available if need be. Raises PartsError with everything that was tried."""
    found = find(wanted, tried)
    if found is not None:
        return found
    try:
        with locked(wanted.cache_dir / ".lock", wanted.build_timeout + wanted.download_timeout) as lock:
            # Somebody else may have made it while we waited.
            found = from_cache(wanted, [])
            if found is not None:
                return found
            for stale in wanted.cache_dir.glob(".build-*"):
                shutil.rmtree(stale, ignore_errors=True)
            scratch = Path(tempfile.mkdtemp(prefix=".build-", dir=wanted.cache_dir))
            try:
                return _make(wanted, scratch, lock, tried)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise PartsError(
            f"the folder for downloaded parts, {wanted.cache_dir}, cannot be used ({error.strerror or error}); "
            "make it writable or set parts_cache_dir to one that is"
        ) from error


def _make(wanted: Wanted, scratch: Path, lock: int, tried: List[str]) -> Found:
    """Try the sources that make something, in order."""
    made = scratch / "made"
    for source in wanted.sources:
        try:
            if source == "download":
                download(wanted, made)
            elif source == "go":
                build(wanted, made, scratch, lock)
            else:
                continue
            return keep(wanted, made, source)
        except urllib.error.URLError as error:
            tried.append(f"{source}: {asset_url(wanted)}: {getattr(error, 'reason', error)}")
        except (OSError, ValueError) as error:
            tried.append(f"{source}: {error}")
        with contextlib.suppress(FileNotFoundError):
            made.unlink()
    raise PartsError(explain(wanted, tried))


def explain(wanted: Wanted, tried: List[str]) -> str:
    """The message for a person when there is no OPA to be had."""
    attempts = "\n".join(f"  - {line}" for line in tried)
    major = ".".join(str(number) for number in version_tuple(wanted.version)[:1])
    return (
        f"there is no OPA {wanted.version} for {wanted.platform} to be had. Tried:\n{attempts}\n"
        "Any one of these helps:\n"
        f"  - put an `opa` of version {major}.x on the PATH of the machine that runs the playbook\n"
        f"  - let that machine reach {wanted.releases} (https_proxy and SSL_CERT_FILE are honoured), "
        "or set parts_opa_releases to a mirror\n"
        "  - install Go (https://go.dev/dl) there; OPA is then built from source"
    )
