"""What a person reads at the end of an operation, in one place and one form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from . import untrusted
from .display import advises, duration

# What to do after an operation that was not done, where its reason does not say it.
NEXT = {
    "bootstrap": "correct that and run bootstrap.yml again; -v shows every task",
    "chaos": "ansible-playbook status.yml shows what runs",
    "teardown": "correct that and run teardown.yml again; -v shows every task",
}
NEXT_ELSE = "ansible-playbook status.yml shows what serves; correct the cause and run {operation}.yml again"
NEXT_DENIED = (
    "ansible-playbook validate.yml shows the figures and their limits; where the policy accepts it, "
    '-e override="why" goes past'
)

# A step of a canary takes no override: what it denies has users.
NEXT_DENIED_STEP = (
    "correct the release and promote it again; ansible-playbook audit.yml shows the figures of each step, and the "
    "policies say what their limits are"
)

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
            **({} if changed else {"reason": "nothing changed"}),
            # Seconds of each part of the switch; nothing to tell where none was made.
            **({"timings": dict(plan["timings"])} if changed and plan.get("timings") else {}),
        },
        "summary": f"{word}  {host}  v{release['version']} ({release['mode']})",
    }


def promoted(plan: Mapping[str, Any], walk: Mapping[str, Any], host: str, check: bool) -> dict[str, Any]:
    """What a promotion records and says: as ``outcome``, with the canary's share where it has not all traffic."""
    told = outcome(plan, "promote", host, check=check)
    paused = walk["final"] is None
    weight = walk["steps"][-1] if paused else plan["weight"]
    if weight == 100 or check:
        return told
    fields = {**told["fields"], "weight": weight, "changed": True if paused else told["fields"]["changed"]}
    release = plan["release"]
    word = "Canary paused" if paused else "Canary serves"
    way_on = "mode=canary -e resume=true" if paused else "mode=stable"
    return {
        "fields": fields,
        "summary": f"{word}  {host}  v{release['version']} ({release['mode']}) has {weight} % of the traffic",
        "next": f"ansible-playbook promote.yml -e {way_on}, or back: ansible-playbook rollback.yml",
    }


def summary(told: Mapping[str, Any], seconds: float, address: str) -> str:
    """The end of an operation that was done: what, how long it took, where to look, what comes next.

    ``told`` is what ``outcome`` or ``promoted`` answered; ``address`` is empty where there is nothing new to look at.
    """
    line = f"{told['summary']}  {duration(float(seconds))}"
    following = [f"look: {address}"] if address else []
    following += [f"next: {told['next']}"] if told.get("next") else []
    return f"{line}\n  {'  '.join(following)}" if following else line


def moved(plan: Mapping[str, Any], routed: Mapping[str, Any], drain_timeout: float, check: bool) -> str:
    """Who has the traffic now, and what became of the slot that has none any more."""
    if plan["weight"] == 0:
        return f"{plan['slot']} {'would run' if check else 'runs'} beside {plan['live']}, without traffic yet"
    if plan["weight"] == 100:
        text = f"{'would route' if check else 'routed'} all traffic to {plan['slot']}"
    else:
        text = (
            f"{'would give' if check else 'gave'} {plan['slot']} {plan['weight']} % of the traffic, "
            f"{plan['live']} has {100 - plan['weight']} %"
        )
    if not routed.get("stopped"):
        return text
    text += f", {'would drain and stop' if check else 'drained and stopped'} {plan['stop']}"
    if not routed["drained"]:
        text += f" (requests were still in flight after {drain_timeout:g} s)"
    return text


def no_target(state: Mapping[str, Any], wanted: str) -> str:
    """Why a rollback has nowhere to go, and where it could."""
    if not wanted:
        return "there is no earlier release to go back to\nnext: ansible-playbook status.yml shows what serves"
    known = "\n".join(
        f"  {entry['id']}  v{entry['version']} ({entry['mode']})  {entry['outcome']}"
        for entry in reversed(state["releases"])
    )
    return (
        f"this host keeps no release {wanted}; it keeps, newest first:\n{known or '  none'}\n"
        "next: give one of them as -e release=ID, or none for the last good one"
    )


def address(manifest: Mapping[str, Any], host: str) -> str:
    """Where the service answers."""
    scheme = "https" if manifest["nginx"]["tls"] else "http"
    return f"{scheme}://{host}:{manifest['nginx']['port']}/"


def after_rollback(target: Mapping[str, Any], manifest: Mapping[str, Any], name: str) -> str:
    """What is to be done after a rollback to ``target``, since ``manifest`` (of the file ``name``) still asks for what
    was rolled back; empty where it does not."""
    wanted = str(manifest["services"]["version"])
    if wanted != target["version"]:
        return (
            f"{name} still names version {wanted}, which was rolled back: set services.version to {target['version']}, "
            "or to a version that is mended, before the next deploy"
        )
    return f"check {name} before the next deploy: it may still ask for what was rolled back"


def refusal(reason: str, host: str, *, denied: bool, operation: str, in_step: bool = False) -> str:
    """``DENIED  host  reason``, a line for each reason; or ``FAILED  host  what went wrong``; then what to do.

    A line that begins with a space is no reason of its own. ``in_step``: a canary that had traffic was denied.
    """
    lines = reason.splitlines() or ["no reason was given; -v shows every task"]
    if denied:
        told = [line if line.startswith(" ") else f"DENIED  {host}  {line}" for line in lines]
        return "\n".join([*told, f"  next: {NEXT_DENIED_STEP if in_step else NEXT_DENIED}"])
    told = [f"FAILED  {host}  {lines[0]}", *(f"  {line}" for line in lines[1:])]
    if not advises(lines):
        told.append("  next: " + NEXT.get(operation, NEXT_ELSE.format(operation=operation)))
    return "\n".join(told)


def reason(text: str) -> str:
    """Why, without what to do next: for a record."""
    return re.sub(r"\n\s*next: .*", "", text).strip()


def decisions(asked: Mapping[str, Any], stops: bool = False) -> str:
    """All decisions in one line. ``stops``: the run ends with the reasons, so that they are not told here too."""
    words = [
        f"{domain} {decision['outcome']}{'' if stops and decision['outcome'] != 'allowed' else _remarks(decision)}"
        for domain, decision in asked.items()
    ]
    return "policy: " + ", ".join(words)


def dry_decisions(asked: Mapping[str, Any], action: str, host: str) -> str:
    """What the gate would answer now, with the figures it was answered from: a line for each figure and reason."""
    lines = [f"{host}  the policy would say to {action} now:"]
    for domain, decision in asked.items():
        lines.append(f"  {domain} {decision['outcome']}" + (" (by override)" if _overridden(decision) else ""))
        lines += [f"    {reason}" for reason in decision["reasons"]]
        lines += [f"    {figure}" for figure in _figures(decision)]
    return "\n".join(lines)


def _overridden(decision: Mapping[str, Any]) -> bool:
    return bool((decision.get("override") or {}).get("accepted"))


def _figures(decision: Mapping[str, Any]) -> list[str]:
    """Each figure that has a limit, with the limit."""
    checked, limits = decision["checked"], decision["thresholds"]
    bounded = [(name, bounds) for name, bounds in sorted(limits.items()) if isinstance(bounds, Mapping)]
    return [
        f"{name} {_figure(checked[name])} ({', '.join(f'{bound} {_figure(limit)}' for bound, limit in bounds.items())})"
        for name, bounds in bounded
        if name in checked and bounds.keys() <= {"min", "max"}
    ]


def _figure(value: Any) -> str:
    if value is None or (isinstance(value, int | float) and untrusted.number(value) is None):
        return "not measured"
    return f"{value:g}" if isinstance(value, float) else untrusted.cut(str(value), 200)


def _remarks(decision: Mapping[str, Any]) -> str:
    """What is to be said beside an outcome, in brackets."""
    remarks = "" if decision["outcome"] == "allowed" else "; ".join(decision["reasons"])
    if decision["outcome"] == "allowed":
        missing = decision["checked"].get("not_applicable") or {}
        said = ["by override"] if _overridden(decision) else []
        said += [f"not applicable: {', '.join(sorted(missing))}"] if missing else []
        remarks = "; ".join(said)
    return f" ({remarks})" if remarks else ""


def chaos_reason(mode: str, rate: str, duration: str) -> str:
    """What was asked of the service, as it was typed."""
    pairs = (("chaos", mode), ("rate", rate), ("duration", duration))
    return " ".join(f"{name}={value}" for name, value in pairs if value)
