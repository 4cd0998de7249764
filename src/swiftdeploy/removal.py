"""What a person asks a teardown to remove, and what is said of what stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

YES, NO = ("true", "yes", "on", "1"), ("", "false", "no", "off", "0")
DATA = "data"
COMMAND = "ansible-playbook teardown.yml -e clean=data -e service={service}"


def asked(clean: object, given: object, service: str, manifest: str) -> dict[str, Any]:
    """What ``-e clean=`` and ``-e service=`` ask for: {"clean", "data", "problem": why it cannot be done, or ""}.

    Data goes for ever, so it is asked for by the name of the service that it is of: ``service``, in ``manifest``.
    """
    word, name = str(clean).strip().lower(), str(given).strip()
    found = {"clean": word in (*YES, DATA), "data": word == DATA}
    by_name = f"next: {COMMAND.format(service=service)}"
    problem = ""
    if word not in (*YES, *NO, DATA):
        problem = (
            f"clean is {clean}, allowed are true (generated files and programs too) and data (what {service} keeps "
            "too); nothing was touched"
        )
    elif name and name != service:
        problem = (
            f"service is {name}, and {manifest} is the manifest of {service}; nothing was touched\n"
            f"next: give -e manifest=PATH of {name}, or -e service={service}"
        )
    elif found["data"] and not name:
        problem = (
            f"clean=data removes for ever what {service} keeps (volumes, logs, the notes of its decisions and "
            f"switches), so it is asked for by name; nothing was touched\n{by_name}"
        )
    return {**found, "problem": problem}


def kept(kept_: Sequence[str], service: str) -> str:
    """What stays, and how it is removed."""
    return f"kept {', '.join(kept_)}; to remove that for ever: {COMMAND.format(service=service)}"
