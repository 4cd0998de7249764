"""A small Python base image from Debian's packages, for a host that reaches a Debian mirror but no registry.

The packages are unpacked, not installed: no root, no debootstrap, nothing of the host's apt is touched.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import List, NamedTuple

from .command import Finished, run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITE = "trixie"
PYTHON = "3.13"
# The service of this repository needs the standard library alone; pip comes as a wheel, busybox is the shell.
PACKAGES = (
    "base-files",
    "busybox-static",
    "ca-certificates",
    "libpython3.13-stdlib",
    "netbase",
    "python3-pip-whl",
    "python3.13-minimal",
)
# Dependencies for the packages' own scripts, which never run here.
LEFT_OUT = re.compile(r"(debconf|mawk|openssl|readline-common|gcc-\d+-base)_")
STRIPPED = (
    "usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/bug",
    "usr/share/base-files", "usr/share/bash-completion", "usr/share/binfmts", "usr/share/applications",
    "usr/lib/python3.13/pydoc_data", "usr/lib/python3.13/EXTERNALLY-MANAGED",
)  # fmt: skip
USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
GROUPS = "root:x:0:\nnogroup:x:65534:\n"


class BaseError(Exception):
    """The base cannot be made; the text says what is missing."""


class Debian(NamedTuple):
    """Where the packages come from: a mirror's address, Debian's name of the architecture, seconds for each step."""

    mirror: str
    architecture: str
    timeout: float


def sources(mirror: str) -> str:
    """apt's sources.list for the base, security updates included."""
    signed = f"deb [signed-by={KEYRING}]"
    return "".join(
        f"{signed} {address} {suite} main\n"
        for address, suite in (
            (mirror, SUITE),
            (mirror, f"{SUITE}-updates"),
            (f"{mirror}-security", f"{SUITE}-security"),
        )
    )


def _must(done: Finished, doing: str) -> None:
    if not done.ok:
        complaints = [line for line in done.text.splitlines() if line.startswith(("E:", "Err:"))]
        raise BaseError(f"{doing} failed: {(complaints or done.text.splitlines() or ['no message'])[-1].strip()}")


def download(folder: Path, debian: Debian) -> List[Path]:
    """Fetch the packages and what they need into ``folder``, by an apt configuration of its own. Raises BaseError."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise BaseError(f"a base from Debian's packages needs {program} on the host")
    if not KEYRING.is_file():
        raise BaseError(f"a base from Debian's packages needs {KEYRING}: install the package debian-archive-keyring")
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "cache" / "archives" / "partial").mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(sources(debian.mirror))
    options = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Architecture": debian.architecture,
        "APT::Architectures": debian.architecture,
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "1",
        "Acquire::http::Timeout": "15",
        "Debug::NoLocking": "true",
        # Otherwise a mirror that does not answer is only a warning.
        "APT::Update::Error-Mode": "any",
    }
    apt = ["apt-get", "-q", "-y", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]
    _must(run([*apt, "update"], debian.timeout), f"reading the package lists of {debian.mirror}")
    _must(
        run([*apt, "install", "--download-only", "--no-install-recommends", *PACKAGES], debian.timeout),
        f"fetching {', '.join(PACKAGES)} from {debian.mirror}",
    )
    return sorted((folder / "cache" / "archives").glob("*.deb"))


def unpack(packages: List[Path], root: Path) -> None:
    """Unpack ``packages`` below ``root`` and leave away what no program reads. Raises BaseError."""
    # base-files first: it has the links from /bin and /lib to /usr, which the others unpack through.
    for package in sorted(packages, key=lambda path: not path.name.startswith("base-files_")):
        if not LEFT_OUT.match(package.name):
            _must(run(["dpkg-deb", "--extract", str(package), str(root)], timeout=60), f"unpacking {package.name}")
    for name in STRIPPED:
        target = root / name
        if target.is_dir():
            shutil.rmtree(target)
        elif target.exists():
            target.unlink()
    (root / "etc" / "passwd").write_text(USERS)
    (root / "etc" / "group").write_text(GROUPS)
    for name in ("python3", "python"):
        (root / "usr" / "bin" / name).symlink_to(f"python{PYTHON}")
    # What update-ca-certificates would do.
    authorities = root / "usr" / "share" / "ca-certificates"
    bundle = b"".join(path.read_bytes() for path in sorted(authorities.rglob("*.crt")))
    (root / "etc" / "ssl" / "certs").mkdir(parents=True, exist_ok=True)
    (root / "etc" / "ssl" / "certs" / "ca-certificates.crt").write_bytes(bundle)
    shutil.rmtree(authorities)
    # pip runs out of its wheel.
    wheel = next((root / "usr" / "share" / "python-wheels").glob("pip-*.whl"))
    packages_folder = root / "usr" / "local" / "lib" / f"python{PYTHON}" / "dist-packages"
    packages_folder.mkdir(parents=True)
    (packages_folder / "pip.pth").write_text(f"/{wheel.relative_to(root)}\n")


def make_context(tar: Path, dockerfile: str, work: Path, debian: Debian) -> None:
    """Write the build context of the base to ``tar``: Dockerfile and rootfs/. Raises BaseError, OSError."""
    with tempfile.TemporaryDirectory(prefix="base-", dir=work) as name:
        folder = Path(name)
        root = folder / "rootfs"
        root.mkdir()
        unpack(download(folder, debian), root)
        (folder / "Dockerfile").write_text(dockerfile)
        # docker tells a tar by its first 512 bytes, which an extended (PAX) header would fill.
        with tarfile.open(tar, "w", format=tarfile.GNU_FORMAT) as archive:
            archive.add(folder / "Dockerfile", "Dockerfile", filter=_as_root)
            archive.add(root, "rootfs", filter=_as_root)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
