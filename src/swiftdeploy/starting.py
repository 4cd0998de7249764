"""The files that a program of the stack is started from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import keep_log, launch
from .release import environment_of
from .rendering import env_file_line

File = dict[str, str]


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
    plan: Mapping[str, Any], stack: Mapping[str, Any], secrets: Mapping[str, str], compose: str, supervisord: str
) -> dict[str, list[File]]:
    """What the release of ``plan`` is started from: {"files", "secret_files"}, paths below the stack's folder.

    ``compose`` is the text of the compose file, ``supervisord`` of supervisord.conf; the runtime of ``stack`` says
    which is used. Raises ValueError for a secret that an environment file cannot carry.
    """
    slot, spec, folder = plan["slot"], plan["release"]["spec"], stack["stack_dir"]
    if stack["runtime"] == "docker":
        lines = "".join(env_file_line(name, value) for name, value in sorted(secrets.items()))
        return {
            "files": [{"path": "config/docker-compose.yml", "content": compose, "mode": "0644"}],
            "secret_files": [{"path": f"secrets/{slot}.env", "content": lines, "mode": "0600"}] if lines else [],
        }
    folders = {"LOG_DIR": f"{folder}/logs", "STATE_DIR": f"{folder}/slots/{slot}"}
    own = spec["command"]
    wanted = {
        "argv": own or spec["artifact"]["service_command"],
        "cwd": folder if own else spec["artifact"]["service_dir"],
        "env": {**environment_of(spec, "127.0.0.1", stack["slot_ports"][slot], folders), **secrets},
    }
    return {"files": _around(slot, supervisord), "secret_files": [_described(slot, wanted, folder)]}
