"""Python environments keyed by what is in them: BASE/env-KEY/, built once, never changed afterwards.

A virtual environment cannot be moved, so it is built in place and its mark is written last: one without a mark was
never finished and is built again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .command import run
from .keep import (
    PartsError,
    last_lines,
    locked,
    note_use,
    platform_of,
    read_mark,
    run_held,
    version_tuple,
    write_mark,
)

PATIENCE = 900.0  # seconds that another run may take to build


class Env(NamedTuple):
    """What is asked for.

    ``requirements`` and ``optional`` are lines of a requirements file; without the optional ones the environment is
    still of use. ``provides`` are patterns below the environment that must then match a file. ``python`` is empty
    for the interpreter that runs this, ``minimum`` a version or empty.
    """

    name: str
    requirements: Tuple[str, ...]
    optional: Tuple[str, ...] = ()
    provides: Tuple[str, ...] = ()
    python: str = ""
    minimum: str = ""


class Seen(NamedTuple):
    """An environment as it is. ``left_out`` are the optional lines that could not be installed."""

    path: Path
    ready: bool
    python: str
    python_version: str
    left_out: Tuple[str, ...] = ()


def env_of(option: Dict[str, Any]) -> Env:
    """An Env from a task's option of the same keys."""
    return Env(
        name=option["name"],
        requirements=tuple(option["requirements"]),
        optional=tuple(option.get("optional") or ()),
        provides=tuple(option.get("provides") or ()),
        python=option.get("python") or "",
        minimum=option.get("minimum") or "",
    )


def interpreter(env: Env) -> Tuple[str, str]:
    """Path and version of the interpreter to build with. Raises PartsError when it is missing or too old."""
    if not env.python or env.python == sys.executable:
        path, version = sys.executable, platform.python_version()
    else:
        path = shutil.which(os.path.expanduser(env.python)) or ""  # noqa: PTH111
        if not path:
            raise PartsError(
                f"there is no Python at {env.python} for the environment {env.name}; set parts_python to an interpreter"
            )
        done = run([path, "-c", "import platform; print(platform.python_version())"], timeout=30.0)
        version = done.out.strip()
        if not done.ok or not version_tuple(version):
            raise PartsError(f"{path} does not run as a Python interpreter: {last_lines(done.text)}")
    if version_tuple(version) < version_tuple(env.minimum):
        raise PartsError(
            f"the environment {env.name} needs Python {env.minimum} or newer and {path} is {version}; "
            "install a newer one and set parts_python to it"
        )
    return path, version


def key_of(env: Env, python_version: str) -> str:
    """Twelve hexadecimal digits that stand for the content of the environment."""
    parts = {
        "requirements": sorted({*env.requirements, *env.optional}),
        "python": list(version_tuple(python_version)[:2]),
        "platform": platform_of(platform.system(), platform.machine()),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def complete(folder: Path, env: Env) -> str:
    """The first of ``provides`` that matches nothing below ``folder``; empty when all are there."""
    missing = (pattern for pattern in env.provides if not any(path.exists() for path in folder.glob(pattern)))
    return next(missing, "")


def look(base: Path, env: Env) -> Seen:
    """The environment as it is; changes nothing. Raises PartsError."""
    python, version = interpreter(env)
    folder = base / f"env-{key_of(env, version)}"
    mark = read_mark(folder)
    left_out = tuple((mark or {}).get("left_out", ()))
    ready = (
        mark is not None
        and set(left_out) <= set(env.optional)
        and (folder / "bin" / "python").exists()
        and (bool(left_out) or not complete(folder, env))
    )
    return Seen(folder, ready, python, version, left_out if ready else ())


def pip_environment() -> Dict[str, str]:
    """This process's environment, pip's settings in it, without what would install elsewhere."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER")
    }
    # Overrides `user = true` of a pip.conf, which a virtual environment refuses.
    environment["PIP_USER"] = "0"
    # Each try waits for pip's whole timeout: a dead network is to be known soon.
    environment.setdefault("PIP_RETRIES", "2")
    return environment


def make_venv(python: str, folder: Path, lock: int) -> List[str]:
    """Make an empty environment; the pip command for it. Tries what the host has; raises PartsError."""
    environment, above = pip_environment(), folder.parent
    inside = str(folder / "bin" / "python")
    said = []
    # The interpreter's own pip (22.3 or newer) saves seconds and megabytes for each environment. Debian splits venv:
    # without python3-venv it can only make one without a pip inside.
    for recipe, pip in (
        ([python, "-m", "venv", "--without-pip"], [python, "-m", "pip", "--python", inside]),
        ([python, "-m", "venv"], [inside, "-m", "pip"]),
        ([python, "-m", "virtualenv", "--quiet"], [inside, "-m", "pip"]),
    ):
        shutil.rmtree(folder, ignore_errors=True)
        done = run_held([*recipe, str(folder)], environment, above, timeout=300.0, lock=lock)
        # Only a pip that really answers is worth going on with.
        if done.ok:
            done = run_held([*pip, "--version"], environment, above, timeout=60.0, lock=lock)
        if done.ok:
            return pip
        said.append(f"`{' '.join(recipe[1:])}`: {last_lines(done.text, 1)}")
    shutil.rmtree(folder, ignore_errors=True)
    raise PartsError(
        f"{python} cannot make a virtual environment in {above} ({'; '.join(said)}). Install Python's venv module "
        "(Debian and Ubuntu: apt install python3-venv) or virtualenv (pip install --user virtualenv), "
        "or set parts_python to an interpreter that has one"
    )


def install(pip: List[str], folder: Path, lines: Tuple[str, ...], lock: int) -> str:
    """Install ``lines`` with pip; empty when done, else pip's last words."""
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    arguments = ["install", "--no-input", "--disable-pip-version-check", "-r", str(folder / "requirements.txt")]
    done = run_held([*pip, *arguments], pip_environment(), folder, timeout=PATIENCE, lock=lock)
    return "" if done.ok else last_lines(done.text)


def build(base: Path, env: Env) -> Seen:
    """Build the environment if it is not ready, under the base's lock. Raises PartsError and OSError."""
    seen = look(base, env)
    with locked(base / ".lock", PATIENCE) as lock:
        again = look(base, env)
        if again.ready:
            return again
        folder = seen.path
        pip = make_venv(seen.python, folder, lock)
        left_out: Tuple[str, ...] = ()
        failure = install(pip, folder, (*env.requirements, *env.optional), lock)
        if failure and env.optional:
            left_out = env.optional
            failure = install(pip, folder, env.requirements, lock) and failure
        if failure:
            shutil.rmtree(folder, ignore_errors=True)
            raise PartsError(
                f"pip cannot install the environment {env.name} ({', '.join(_names(env))}): {failure}. "
                "If no package index can be reached: set PIP_INDEX_URL to one that can (https_proxy and PIP_CERT are "
                "honoured), or PIP_FIND_LINKS to a folder of wheels with PIP_NO_INDEX=1; then run this again"
            )
        missing = complete(folder, env)
        for program in (path for pattern in env.provides for path in folder.glob(pattern) if "bin" in path.parts):
            # Not every wheel keeps the permission to run what it holds.
            program.chmod(program.stat().st_mode | 0o111)
        if missing and not left_out:
            raise PartsError(
                f"the environment {env.name} in {folder} was installed but holds no {missing}; "
                "check its list of requirements"
            )
        mark: Dict[str, Any] = {
            "kind": "env",
            "name": env.name,
            "requirements": [*env.requirements, *env.optional],
            "left_out": list(left_out),
            "python_version": seen.python_version,
        }
        write_mark(folder, mark)
    return look(base, env)


def _names(env: Env) -> List[str]:
    """The requirements without hashes and options, for a message."""
    return [line.split(" --", 1)[0].strip() for line in (*env.requirements, *env.optional)]


def first_match(folder: Path, pattern: str) -> Optional[Path]:
    """The first file below ``folder`` that matches ``pattern``."""
    return next(iter(sorted(folder.glob(pattern))), None)


def use(seen: Seen) -> None:
    """Remember that the environment was used now."""
    note_use(seen.path)
