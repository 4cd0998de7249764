"""What a host needs before SwiftDeploy can work on it: what is there, and what is to be installed.

Reads only. Debian and Ubuntu; which of their releases have what was read from their package lists:
https://packages.debian.org/docker-compose, https://packages.ubuntu.com/docker-compose-v2.
"""

from __future__ import annotations

import grp
import os
import platform
import pwd
import re
import shlex
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .command import run
from .keep import version_tuple
from .runtime import Engine, detect_docker
from .state import FILE_NAME as STATE_NAME
from .systemd import UNITS, setting

# The first releases of which this holds.
COMPOSE_V2 = {"debian": (13,), "ubuntu": (22, 4)}
POLKIT_RULES = {"debian": (12,), "ubuntu": (23, 10)}
# Debian's next release has the compose plugin, as one program that needs nothing else of that release.
NEXT_RELEASE = {"bookworm": "trixie"}
OLDEST_PYTHON = "3.11"
DOCKERS_OWN = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin")
# Paths go into unit files, where a space or a percent sign has a meaning.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/-]+")
_PLAIN_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")


class Release(NamedTuple):
    """A distribution's release: ``family`` is debian or ubuntu, empty where it is neither."""

    family: str
    version: Tuple[int, ...]
    codename: str
    name: str


class Source(NamedTuple):
    """Where Docker comes from: present, distribution, docker or none; ``problem`` is empty when it can."""

    name: str
    why: str
    problem: str = ""


def release_of(text: str) -> Release:
    """The release that /etc/os-release describes."""
    values = {}
    for line in text.splitlines():
        name, _equals, value = line.partition("=")
        values[name.strip()] = " ".join(shlex.split(value))
    words = [values.get("ID", ""), *values.get("ID_LIKE", "").split()]
    family = next((word for word in words if word in COMPOSE_V2), "")
    if values.get("ID") != family:
        # What is made from Debian or Ubuntu counts by itself; only these two are known by their numbers.
        return Release("", (), values.get("VERSION_CODENAME", ""), values.get("PRETTY_NAME", "an unknown system"))
    return Release(
        family, version_tuple(values.get("VERSION_ID", "")), values.get("VERSION_CODENAME", ""), values["PRETTY_NAME"]
    )


def since(release: Release, first: Dict[str, Tuple[int, ...]]) -> bool:
    """Whether ``release`` is one of ``first`` or later."""
    return bool(release.version) and release.version >= first[release.family]


def docker_source(wanted: str, runtime: str, engine: Engine, release: Release, there: List[str]) -> Source:
    """Where Docker is to come from.

    ``wanted`` is auto, distribution, docker, present or none; ``runtime`` what the inventory asks for; ``there``
    the packages of Docker that are installed.
    """
    own, theirs = "docker-ce" in there, "docker.io" in there
    if wanted == "none" or (wanted == "auto" and runtime == "process"):
        return Source("none", "not wanted" if wanted == "none" else "the process runtime needs none")
    if wanted == "present" or (wanted == "auto" and engine.usable):
        problem = "" if engine.usable else f"bootstrap_docker is present, but {engine.detail}"
        return Source("present", engine.detail, problem)
    if wanted == "auto":
        ours = theirs or (since(release, COMPOSE_V2) and not own)
        return docker_source("distribution" if ours else "docker", runtime, engine, release, there)
    if wanted == "distribution":
        known = since(release, COMPOSE_V2) or release.codename in NEXT_RELEASE
        problem = f"{release.name} has no compose plugin" if not known else "docker-ce is installed" if own else ""
        remedy = "; take Docker's own packages: -e bootstrap_docker=docker"
        return Source("distribution", f"from {release.name}", problem and problem + remedy)
    problem = "docker.io of the distribution is installed, and Docker's own packages would replace it" if theirs else ""
    remedy = "; keep it with -e bootstrap_docker=distribution, or remove it first"
    return Source("docker", "from Docker's own repository", problem and problem + remedy)


def docker_packages(source: str, release: Release) -> List[str]:
    """The packages of an engine and its compose plugin."""
    if source == "docker":
        return list(DOCKERS_OWN)
    if source != "distribution":
        return []
    if release.family == "ubuntu":
        return ["docker.io", "docker-compose-v2"]
    client = ["docker-cli"] if since(release, COMPOSE_V2) else []
    return ["docker.io", *client, "docker-compose", "iptables"]


def later_release(source: str, release: Release) -> str:
    """The release of Debian that the compose plugin comes from, empty where it is this one."""
    older = source == "distribution" and release.family == "debian" and not since(release, COMPOSE_V2)
    return NEXT_RELEASE.get(release.codename, "") if older else ""


def installed_packages(names: List[str]) -> List[str]:
    """Which of ``names`` are installed whole."""
    done = run(["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n", "--", *names])
    return [line.split()[0] for line in done.out.splitlines() if line.endswith(" installed")]


def account(name: str) -> Dict[str, Any]:
    """The user as it is: {"exists", "home", "groups"}; the home that it would get where there is no such user."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return {"exists": False, "home": f"/home/{name}", "groups": []}
    groups = [group.gr_name for group in grp.getgrall() if name in group.gr_mem]
    return {"exists": True, "home": entry.pw_dir, "groups": groups}


def folder_of(home: str, user_home: str) -> str:
    """``home`` with a leading ~ as the user's own home, normalised."""
    return os.path.normpath(user_home + home[1:] if home == "~" or home.startswith("~/") else home)


def wants_units(wanted: str, source: str, release: Release, systemd: bool) -> Tuple[bool, str]:
    """Whether systemd's units are to be installed, and why they cannot be where somebody insists."""
    if wanted == "never" or (wanted == "auto" and source != "none"):
        return False, ""
    why = "" if systemd else "systemd does not run this host"
    if not why and not since(release, POLKIT_RULES):
        why = f"the polkit of {release.name} cannot tell one unit from another (Debian 12 or Ubuntu 24.04 can)"
    return (
        not why,
        why and f"systemd's units cannot be installed: {why}; supervisord serves too: -e bootstrap_units=never",
    )


def look(options: Dict[str, Any]) -> Dict[str, Any]:
    """The host as it is and what it lacks.

    ``options``: {"docker", "runtime", "units": auto | always | never, "user", "home"}. Answers {"release", "codename",
    "family", "python", "systemd", "account", "home", "inside": home lies in the user's own, "sudo", "docker",
    "docker_why", "engine", "engine_usable", "suite", "units", "packages", "missing", "broken", "problems"}.
    """
    release = release_of(Path("/etc/os-release").read_text(encoding="utf-8"))
    known = account(options["user"])
    home = folder_of(options["home"], known["home"])
    engine = detect_docker()
    seen = {
        "release": release.name,
        "family": release.family,
        "codename": release.codename,
        "python": platform.python_version(),
        "account": known,
        "home": home,
        # Who logged in was not root.
        "sudo": "SUDO_USER" in os.environ,
        "inside": home.startswith(known["home"].rstrip("/") + "/"),
        "engine": engine.detail,
        "engine_usable": engine.usable,
    }
    problems = path_problems(home, options["user"])
    if not release.family:
        problems.append(f"{release.name} is neither Debian nor Ubuntu: bootstrap.yml knows no other system")
        return {**seen, "problems": problems}
    source = docker_source(
        options["docker"], options["runtime"], engine, release, installed_packages(["docker-ce", "docker.io"])
    )
    systemd = Path("/run/systemd/system").is_dir()
    units, why_not = wants_units(options["units"], source.name, release, systemd)
    problems += [source.problem] if source.problem else []
    problems += [why_not] if why_not and options["units"] == "always" else []
    others = units_of_others(home, options["user"]) if units else None
    problems += [others] if others else []
    if source.name == "none" and version_tuple(platform.python_version()) < version_tuple(OLDEST_PYTHON):
        problems.append(
            f"the process runtime needs Python {OLDEST_PYTHON} and this host has {platform.python_version()}; "
            "take Debian 12 or Ubuntu 24.04, or Docker: -e bootstrap_docker=auto -e swiftdeploy_runtime=docker"
        )
    packages = ["ca-certificates", *docker_packages(source.name, release)]
    packages += ["python3-venv"] if source.name == "none" else []
    packages += ["dbus", "polkitd"] if units else []
    there = installed_packages(packages)
    return {
        **seen,
        "systemd": systemd,
        "docker": source.name,
        "docker_why": source.why,
        "suite": later_release(source.name, release),
        "units": units,
        "units_why_not": why_not,
        "packages": packages,
        "missing": [name for name in packages if name not in there],
        # dpkg was killed in the middle of something.
        "broken": bool(run(["dpkg", "--audit"]).out.strip()),
        "problems": problems,
    }


def units_of_others(home: str, user: str, units: Path = UNITS) -> Optional[str]:
    """Why systemd's units may not be installed for ``user`` and ``home``: another's stacks run by those that are there.

    There is one set of them on a host.
    """
    try:
        text = (units / "swiftdeploy-nginx@.service").read_text(encoding="utf-8")
    except OSError:
        return None
    whose, where = setting(text, "User"), setting(text, "X-Home")
    same = whose == user and where is not None and os.path.realpath(where) == os.path.realpath(home)
    if same or where is None or not any(Path(where).glob(f"*/{STATE_NAME}")):
        return None
    return (
        f"the units of systemd on this host run the stacks of {whose} in {where}, and there is one set of them: tear "
        f"those down first, or take -e bootstrap_units=never, with which supervisord runs the processes of {user}"
    )


def path_problems(home: str, user: str) -> List[str]:
    """What is wrong with the names that are given."""
    found = []
    if not _PLAIN_PATH.fullmatch(home) or len(Path(home).parts) < 3:
        found.append(
            f"swiftdeploy_home is {home}; it must be a folder below another, of letters, digits and ._-/ alone"
        )
    if not _PLAIN_USER.fullmatch(user) or user == "root":
        found.append(f"swiftdeploy_user is {user}; it must be an ordinary user's name")
    return found
