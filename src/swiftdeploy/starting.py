"""The files that a program of the stack is started from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from swiftdeploy_target.files import sha256

from . import keep_log, launch, policies
from .release import environment_of

File = dict[str, str]

# Where OPA's files are below the stack's folder, in both runtimes; what OPA itself writes is below opa/decisions/log.
OPA_FILES = ("opa", "opa/*", "opa/decisions/*", "opa/policies/**/*", "programs/opa.json", "*.py", "supervisord.conf")
KEPT_FOLDERS = ("*/.keep", "slots/opa/.keep")


def _described(program: str, wanted: Mapping[str, Any], stack_dir: str) -> File:
    text = json.dumps({**wanted, "mark": stack_dir}, indent=2, sort_keys=True, default=str) + "\n"
    # It may hold secrets.
    return {"path": f"programs/{program}.json", "content": text, "mode": "0600"}


def _around(program: str, supervisord: str) -> list[File]:
    folders = (f"{folder}/.keep" for folder in ("run", "logs", "tmp", f"slots/{program}"))
    return [
        *(
            {"path": f"{module}.py", "content": Path(place).read_text(encoding="utf-8"), "mode": "0644"}
            for module, place in (("launch", launch.__file__), ("keep_log", keep_log.__file__))
        ),
        {"path": "supervisord.conf", "content": supervisord, "mode": "0644"},
        *({"path": path, "content": "", "mode": "0644"} for path in folders),
    ]


def program_files(wanted: Mapping[str, Any], program: str, stack_dir: str, supervisord: str) -> list[File]:
    """All files that the process runtime needs to start ``program`` with ``wanted`` {"argv", "cwd", "env", "limits"}.

    Paths are below ``stack_dir``; modes are octal text.
    """
    return [*_around(program, supervisord), _described(program, wanted, stack_dir)]


def slot_files(
    plan: Mapping[str, Any], stack: Mapping[str, Any], compose: str, supervisord: str
) -> dict[str, list[File]]:
    """What the release of ``plan`` is started from: {"files", "secret_files"}, paths below the stack's folder.

    ``compose`` is the text of the compose file, ``supervisord`` of supervisord.conf; the runtime of ``stack`` says
    which is used. The values of secrets are added on the host: for a way back only the host has them.
    """
    slot, spec, folder = plan["slot"], plan["release"]["spec"], stack["stack_dir"]
    if stack["runtime"] == "docker":
        return {
            "files": [{"path": "config/docker-compose.yml", "content": compose, "mode": "0644"}],
            "secret_files": [],
        }
    folders = {"LOG_DIR": f"{folder}/logs", "STATE_DIR": f"{folder}/slots/{slot}"}
    own = spec["command"]
    wanted = {
        "argv": own or spec["artifact"]["service_command"],
        "cwd": folder if own else spec["artifact"]["service_dir"],
        "env": environment_of(spec, "127.0.0.1", plan["release"]["port"], folders),
    }
    return {"files": _around(slot, supervisord), "secret_files": [_described(slot, wanted, folder)]}


def folders_of(files: Sequence[File]) -> list[File]:
    """The folders of ``files``, as {"path", "mode"}: open to all, as containers read them as users of their own."""
    found = {str(above) for entry in files for above in PurePosixPath(entry["path"]).parents if above.name}
    return [{"path": path, "mode": "0755"} for path in sorted(found)]


def opa_survey(bundle: Sequence[File]) -> dict[str, Any]:
    """What the first look at a host is to find out about its OPA: {"files", "loaded_path"}, see option survey of
    swiftdeploy_stack. ``bundle``: the policies that are to decide."""
    return {"files": [*OPA_FILES, *KEPT_FOLDERS], "loaded_path": policies.loaded_path(bundle)}


def as_listed(
    listing: Mapping[str, Mapping[str, str]], files: Sequence[File], folders: Sequence[File], only: str
) -> bool:
    """Whether a host has ``files`` and ``folders``, and no other file below the folder ``only``.

    ``listing``: {path: {"sha256", "mode"}} of the host, empty where it was not looked at. The same question is asked
    on the host, of the contents, by swiftdeploy_target.files.change.
    """
    wanted = {entry["path"]: entry for entry in files}
    for path, entry in wanted.items():
        seen = listing.get(path, {"sha256": "", "mode": "0"})
        digest = sha256(entry["content"].encode())
        if seen["sha256"] != digest or int(seen["mode"], 8) != int(entry.get("mode", "0644"), 8):
            return False
    if any(int(listing.get(entry["path"], {"mode": "0"})["mode"], 8) != int(entry["mode"], 8) for entry in folders):
        return False
    return all(path in wanted for path, seen in listing.items() if seen["sha256"] and path.startswith(f"{only}/"))
