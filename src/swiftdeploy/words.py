"""What a person reads at the end of an operation, in one place and one form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Operation to (done, would be done, was done already).
VERBS = {
    "deploy": ("Deployment successful", "Would deploy", "Nothing to change"),
    "promote": ("Promotion successful", "Would promote", "Nothing to change"),
    "rollback": ("Rollback successful", "Would roll back", "Nothing to change"),
}


def outcome(plan: Mapping[str, Any], operation: str, host: str, *, check: bool) -> dict[str, Any]:
    """What an operation that brought ``plan``'s release into service records and says.

    {"fields": of the record, "summary": one line without the time it took}.
    """
    release = plan["release"]
    done, would, already = VERBS[operation]
    changed = bool(plan["changed"])
    word = already if not changed else would if check else done
    return {
        "fields": {
            "release": release["id"],
            "version": release["version"],
            "mode": release["mode"],
            "changed": changed,
        },
        "summary": f"{word}  {host}  v{release['version']} ({release['mode']})",
    }


def address(manifest: Mapping[str, Any], host: str) -> str:
    """Where the service answers."""
    scheme = "https" if manifest["nginx"]["tls"] else "http"
    return f"{scheme}://{host}:{manifest['nginx']['port']}/"


def refusal(reason: str, host: str, *, denied: bool) -> str:
    """``DENIED  host  reason``, a line for each reason; or ``FAILED  host  what went wrong``."""
    if not denied:
        return f"FAILED  {host}  {reason}"
    return "\n".join(f"DENIED  {host}  {line}" for line in reason.splitlines())


def decisions(asked: Mapping[str, Any], *, check: bool) -> str:
    """All decisions in one line."""
    words = [
        f"{domain} {decision['outcome']}"
        + ("" if decision["outcome"] == "allowed" else " (" + "; ".join(decision["reasons"]) + ")")
        for domain, decision in asked.items()
    ]
    return ("policy would say now: " if check else "policy: ") + ", ".join(words)


def chaos_reason(mode: str, rate: str, duration: str) -> str:
    """What was asked of the service, as it was typed."""
    pairs = (("chaos", mode), ("rate", rate), ("duration", duration))
    return " ".join(f"{name}={value}" for name, value in pairs if value)
