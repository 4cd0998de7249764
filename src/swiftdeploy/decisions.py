"""What a set of decisions means for a run: what is still to be asked, and what a person's override went past.

``decisions`` is {domain: outcome} as swiftdeploy_opa answers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Decisions = Mapping[str, Mapping[str, Any]]


def unasked(decisions: Decisions, domains: Iterable[str]) -> dict[str, dict[str, Any]]:
    """For domains that were not asked because the policy engine had given no decision before: that outcome, for each.

    Nothing where every decision came back: then a domain was left out because another one had said no.
    """
    silent = next((decision for decision in decisions.values() if decision["outcome"] == "unavailable"), None)
    if silent is None:
        return {}
    return {domain: dict(silent) for domain in domains if domain not in decisions}


def overridden(decisions: Decisions) -> dict[str, Any]:
    """What an accepted override went past: {"reason", "actor", "overridden": {domain: [reasons]}}.

    Empty where nothing was overridden.
    """
    accepted = {
        domain: decision["override"]
        for domain, decision in decisions.items()
        if decision.get("override") and decision["override"]["accepted"]
    }
    if not accepted:
        return {}
    first = next(iter(accepted.values()))
    return {
        "reason": first["reason"],
        "actor": first["actor"],
        "overridden": {domain: list(override["overridden"]) for domain, override in accepted.items()},
    }


def loud(override: Mapping[str, Any]) -> str:
    """What a person is told of an accepted override: who and why, and a line for each reason it went past."""
    lines = [f"WARNING: OVERRIDE by {override['actor']}: {override['reason']}"]
    lines += [f"{domain}: {reason}" for domain, reasons in override["overridden"].items() for reason in reasons]
    return "\n".join(lines)


def summary(override: Mapping[str, Any]) -> str:
    """The same in one line, for the history."""
    past = "; ".join(f"{domain}: {', '.join(reasons)}" for domain, reasons in override["overridden"].items())
    return f"{override['reason']} (went past {past})"


def new_images(images: Mapping[str, Mapping[str, Any]], running: Mapping[str, str]) -> list[str]:
    """The roles (service, nginx, opa) whose image is not what runs already.

    ``images``: {role: {"name", "id" or None}}; ``running``: {program: id of the image that it runs}.
    """
    programs = {"service": ("blue", "green"), "nginx": ("nginx",), "opa": ("opa",)}
    return [
        role
        for role, image in images.items()
        if image["id"] is None or image["id"] not in {running.get(program) for program in programs[role]}
    ]
