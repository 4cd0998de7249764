"""One run over many hosts: in which order, when it stops, which hosts go back, and what is recorded of the run.

Pure: what is known of the hosts comes in as ``known``, {host: {"fleet_host": SETTINGS, "fleet_result": RESULT}}, where
either may be missing. Ansible's ``hostvars`` is such a mapping.

    SETTINGS = {"first": it is among the hosts that come first, "serial": hosts at a time as Ansible's own serial,
                "max_fail": hosts that may fail before the run stops, "on_failure": "stop" or "rollback",
                "unreachable": "stop" (it counts as failed) or "skip"}
    RESULT = {"outcome": one of OUTCOMES, "reason": text, "switched": its release changed in this run,
              "before": id of the release that was live before, or None, "back": one of BACK, or missing,
              "manifest": {"path", "mode": what its services.mode was when this host was begun}, or missing}

Ansible's own ``max_fail_percentage`` counts anew in each batch and is a share of it, and Ansible ends a playbook at
once when a whole batch has failed, so that nothing could be brought back: this counts hosts over the whole run instead.
A host that is lost in the middle counts as failed to Ansible whatever a role does. So two or three batches, which the
role does one after the other, are one of Ansible's, see ``joined``: it ends the playbook when all of those are lost.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .display import duration
from .history_recorder import EVERY

# begun: the host was lost in the middle of it, or it is in the middle of it now.
OUTCOMES = ("changed", "unchanged", "failed", "blocked", "unreachable", "skipped", "begun")
BACK = ("rolled_back", "unchanged", "failed", "nothing")
ON_FAILURE = ("stop", "rollback")
UNREACHABLE = ("stop", "skip")
# Hosts that a line for a person names.
NAMED = 10

Known = Mapping[str, Mapping[str, Any]]

VERBS = {"deploy": ("Deployed", "Would deploy"), "promote": ("Promoted", "Would promote")}
WORDS = (
    ("failed", "failed"),
    ("blocked", "denied"),
    ("unreachable", "unreachable"),
    ("lost", "lost in the middle"),
    ("skipped", "not begun"),
    ("rolled_back", "rolled back"),
    ("not_rolled_back", "NOT rolled back"),
    ("kept", "without an earlier release to go back to"),
)


def _of(known: Known, host: str, what: str) -> Mapping[str, Any] | None:
    # Ansible's hostvars raises KeyError too for a host that it does not know.
    try:
        found = known[host].get(what)
    except KeyError:
        return None
    return found if isinstance(found, Mapping) else None


def results(hosts: Iterable[str], known: Known) -> dict[str, Mapping[str, Any]]:
    """{host: RESULT} of the hosts that have one, in the order of ``hosts``."""
    return {host: found for host in hosts if (found := _of(known, host, "fleet_result")) is not None}


# ------------------------------------------------------------------------------------------------ settings


def sizes(serial: Any) -> list[int | str] | None:
    """Ansible's ``serial`` as a list of whole numbers above 0 and percents; None for what is neither."""
    found: list[int | str] = []
    for one in serial if isinstance(serial, list | tuple) else [serial]:
        text = str(one).strip()
        match = re.fullmatch(r"([0-9]{1,9})(%?)", text)
        if isinstance(one, bool) or match is None or int(match[1]) < 1:
            return None
        found.append(text if match[2] else int(text))
    return found or None


def no_sizes(serial: Any) -> str:
    """What is wrong with a ``serial`` that `sizes` cannot read."""
    return (
        f"swiftdeploy_serial is {serial!r}, allowed are a number of hosts, a percentage, or a list of them, "
        "for example [1, 5, 25%]"
    )


def problems(hosts: Iterable[str], known: Known) -> list[str]:
    """What is wrong with the settings, each with what is allowed; empty when nothing."""
    seen: dict[str, dict[str, list[str]]] = {name: {} for name in ("serial", "max_fail", "on_failure")}
    found: dict[str, None] = {}
    for host in hosts:
        settings = _of(known, host, "fleet_host")
        if settings is None:
            continue
        for name, values in seen.items():
            values.setdefault(str(settings[name]), []).append(host)
        if sizes(settings["serial"]) is None:
            found[no_sizes(settings["serial"])] = None
        if not _whole(settings["max_fail"]):
            found[f"max_fail is {settings['max_fail']!r}, allowed is a whole number of hosts, 0 or more"] = None
        if settings["on_failure"] not in ON_FAILURE:
            found[f"on_failure is {settings['on_failure']!r}, allowed are {' and '.join(ON_FAILURE)}"] = None
        if settings["unreachable"] not in UNREACHABLE:
            found[
                f"swiftdeploy_unreachable of {host} is {settings['unreachable']!r}, "
                f"allowed are {' and '.join(UNREACHABLE)}"
            ] = None
    # They are of the run, so that one host's could not be told from another's.
    for name, values in seen.items():
        if len(values) > 1:
            each = ", ".join(f"{value} ({_named(names)})" for value, names in values.items())
            found[f"swiftdeploy_{name} is not the same for all hosts: {each}; set it once, in group_vars/all"] = None
    return list(found)


def _whole(value: Any) -> bool:
    return not isinstance(value, bool) and re.fullmatch(r"[0-9]{1,9}", str(value).strip()) is not None


def _setting(hosts: Iterable[str], known: Known, name: str, default: Any) -> Any:
    return next((found[name] for host in hosts if (found := _of(known, host, "fleet_host")) is not None), default)


# --------------------------------------------------------------------------------------------------- order


def order(hosts: Sequence[str], known: Known) -> list[str]:
    """The hosts in the order of the run: those that come first, then the rest, each as the inventory has them."""
    first = _first(hosts, known)
    return [*first, *(host for host in hosts if host not in first)]


def batches(hosts: Sequence[str], known: Known) -> list[int]:
    """How many hosts are done at a time, one batch after the other: the canary hosts, then as ``serial`` says.

    As Ansible has it, the last size is used again until no host is left, a percentage is of all hosts, and at least 1.
    """
    first = len(_first(hosts, known))
    sequence = sizes(_setting(hosts, known, "serial", "100%")) or ["100%"]
    # All of them are canary hosts: then nothing comes first.
    found = [first] if 0 < first < len(hosts) else []
    left = len(hosts) - sum(found)
    for place in range(left):
        if left <= 0:
            break
        wanted = sequence[min(place, len(sequence) - 1)]
        number = wanted if isinstance(wanted, int) else max(1, len(hosts) * int(wanted[:-1]) // 100)
        found.append(min(number, left))
        left -= found[-1]
    return found or [1]


def joined(hosts: Sequence[str], known: Known) -> list[list[int]]:
    """The batches that make one of Ansible's: two each, and three in the last one of an odd number."""
    found = batches(hosts, known)
    groups = [found[place : place + 2] for place in range(0, len(found), 2)]
    if len(groups) > 1 and len(groups[-1]) == 1:
        last = groups.pop()
        groups[-1] += last
    return groups


def serial(hosts: Sequence[str], known: Known) -> list[int]:
    """How many hosts each of Ansible's batches has."""
    return [sum(group) for group in joined(hosts, known)]


def places(hosts: Sequence[str], known: Known) -> dict[str, int]:
    """{host: which of the batches that make one of Ansible's it is in, 0, 1 or 2}."""
    sequence = iter(order(hosts, known))
    return {
        host: place
        for group in joined(hosts, known)
        for place, size in enumerate(group)
        for host in itertools.islice(sequence, size)
    }


def _first(hosts: Iterable[str], known: Known) -> list[str]:
    return [host for host in hosts if (_of(known, host, "fleet_host") or {}).get("first") is True]


# --------------------------------------------------------------------------------------------------- course


def counted(hosts: Iterable[str], known: Known) -> list[str]:
    """The hosts that count as failed: an unreachable one unless its inventory says skip.

    A host that is ``begun`` is only counted once the batch is over: it was lost then, see ``lost``.
    """
    return [
        host
        for host, result in results(hosts, known).items()
        if result["outcome"] in ("failed", "blocked")
        or (result["outcome"] == "unreachable" and (_of(known, host, "fleet_host") or {}).get("unreachable") != "skip")
    ]


def lost(hosts: Iterable[str], known: Known) -> list[str]:
    """The hosts that were begun and have no end; asked between batches, when none is being worked on."""
    return [host for host, result in results(hosts, known).items() if result["outcome"] == "begun"]


def stops(hosts: Sequence[str], known: Known) -> str:
    """Why no further host may be begun; empty when one may. Asked before a batch."""
    against = {*counted(hosts, known), *lost(hosts, known)}
    bad = [host for host in hosts if host in against]
    allowed = int(_setting(hosts, known, "max_fail", 0))
    if len(bad) <= allowed:
        return ""
    words = {**dict(WORDS), "begun": "lost in the middle"}
    why = _named([f"{host} ({words[known[host]['fleet_result']['outcome']]})" for host in bad])
    return f"the run stopped because of {why}" + (f", and max_fail is {allowed}" if allowed else "")


def done(fields: Mapping[str, Any], observed: Mapping[str, Any]) -> dict[str, Any]:
    """RESULT of a host whose operation went through: its record's ``fields``, and the stack as it was before."""
    changed, before = bool(fields.get("changed")), _before(observed)
    return {
        "outcome": "changed" if changed else "unchanged",
        "reason": "",
        "switched": changed and fields.get("release") != before,
        "before": before,
    }


def failed(
    reason: str, event: str, plan: Mapping[str, Any] | None = None, observed: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """RESULT of a host whose operation did not go through. ``plan``: the rollout's, None when there was none yet.

    From where a rollout has begun it may have switched, and a rollback finds that out. Where the policy said no,
    nothing was begun, or a canary has gone back already.
    """
    blocked, before = event.endswith("_blocked"), _before(observed or {})
    release = (plan or {}).get("release")
    return {
        "outcome": "blocked" if blocked else "failed",
        "reason": str(reason),
        "switched": not blocked and release is not None and release["id"] != before,
        "before": before,
    }


def settled(result: Mapping[str, Any], observed: Mapping[str, Any]) -> dict[str, Any]:
    """RESULT of a host that failed, once its stack was looked at again: whether anything has switched there."""
    now = _before(observed)
    beside = observed["state"].get("canary") is not None
    return {**result, "switched": now != result["before"] or beside}


def _before(observed: Mapping[str, Any]) -> str | None:
    live = observed.get("live")
    release = observed["state"]["slots"].get(live) if live else None
    return str(release["id"]) if release else None


def backwards(hosts: Sequence[str], known: Known) -> dict[str, str]:
    """{host: release to go back to} of the hosts that this run changed, where it is to bring them back."""
    if _setting(hosts, known, "on_failure", "stop") != "rollback" or not stops(hosts, known):
        return {}
    return {
        host: str(result["before"])
        for host, result in results(hosts, known).items()
        if result.get("switched") and result.get("before") and result["outcome"] != "begun"
    }


def modes(hosts: Sequence[str], known: Known, mode: str) -> dict[str, Any]:
    """What becomes of the manifests in which a promotion to ``mode`` noted the mode, once hosts went back.

    {"back": {path: mode from before the run}, where every host that changed is back;
     "kept": {path: [host that still serves the new mode]}, where only some are}
    """
    found: dict[str, Any] = {"back": {}, "kept": {}}
    wanted = backwards(hosts, known)
    by_path: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    # In the order of the run: the first host read the manifest before any had noted the new mode in it.
    for host, result in results(order(hosts, known), known).items():
        if result.get("manifest"):
            by_path.setdefault(str(result["manifest"]["path"]), []).append((host, result))
    for path, ones in by_path.items():
        before = str(ones[0][1]["manifest"]["mode"])
        left = [host for host, result in ones if result["outcome"] == "changed" and not _is_back(result)]
        if before == mode or not any(host in wanted for host, _result in ones):
            continue
        if left:
            found["kept"][path] = left
        else:
            found["back"][path] = before
    return found


def _is_back(result: Mapping[str, Any]) -> bool:
    return result.get("back") in ("rolled_back", "unchanged")


# ---------------------------------------------------------------------------------------------------- record


def tally(hosts: Sequence[str], known: Known) -> dict[str, Any]:
    """What has become of the run.

    {"ok": every host that was asked for is done, "asked": how many were,
     "teller": host that records the run, or None,
     "hosts": {group: [host]}, without the empty groups,
     "reasons": {host: text}}

    A run that promotes adds "modes", see ``modes``. The groups are changed, unchanged, failed, blocked, unreachable,
    skipped, lost (in the middle of it), rolled_back, not_rolled_back, and kept: changed, to be brought back, and
    without a release to go back to.
    """
    found = results(hosts, known)
    wanted = backwards(hosts, known)
    reverting = _setting(hosts, known, "on_failure", "stop") == "rollback" and bool(stops(hosts, known))
    groups: dict[str, list[str]] = {
        name: [host for host, result in found.items() if result["outcome"] == name] for name in OUTCOMES[:-1]
    }
    # A host that fell out before anything was begun has no result.
    groups["failed"] += [host for host in hosts if host not in found]
    groups["lost"] = lost(hosts, known)
    groups["rolled_back"] = [host for host in wanted if _is_back(found[host])]
    groups["not_rolled_back"] = [host for host in wanted if host not in groups["rolled_back"]]
    groups["kept"] = [
        host for host, result in found.items() if reverting and result.get("switched") and not result.get("before")
    ]
    told = [host for host, result in found.items() if result["outcome"] != "begun"]
    worked = [host for host in told if found[host]["outcome"] not in ("skipped", "unreachable")]
    not_done = ("failed", "blocked", "unreachable", "skipped", "lost")
    return {
        "ok": not any(groups[name] for name in not_done),
        "asked": len(hosts),
        "teller": next(iter([*worked, *told]), None),
        "hosts": {name: names for name, names in groups.items() if names},
        "reasons": {host: str(result["reason"]) for host, result in found.items() if result.get("reason")},
    }


def fields(hosts: Sequence[str], known: Known, told: Mapping[str, Any]) -> dict[str, Any]:
    """What the record of the run holds beside service, version and mode."""
    groups = told["hosts"]
    bad = [host for name in ("failed", "blocked", "unreachable", "lost") for host in groups.get(name, [])]
    first = next(iter(bad), None)
    why = None if first is None else f"{first}: {told['reasons'].get(first, 'no reason is known')}"
    return {
        "host": EVERY,
        "hosts": {name: list(names) for name, names in groups.items()},
        "counts": {name: len(names) for name, names in groups.items()},
        "batches": batches(hosts, known),
        "max_fail": int(_setting(hosts, known, "max_fail", 0)),
        "on_failure": str(_setting(hosts, known, "on_failure", "stop")),
        "reason": stops(hosts, known) or why,
    }


def summary(told: Mapping[str, Any], operation: str, seconds: float, check: bool) -> str:
    """What a person reads of the run: how many hosts it reached, then each group that is not as asked for, by name."""
    groups = told["hosts"]
    back = groups.get("rolled_back", [])
    reached = [host for name in ("changed", "unchanged") for host in groups.get(name, []) if host not in back]
    verb = VERBS.get(operation, (operation.capitalize(), f"Would {operation}"))[check]
    lines = [f"{verb} {len(reached)} of {told['asked']} hosts  {duration(float(seconds))}"]
    lines += [f"  {words}: {_named(groups[name])}" for name, words in WORDS if groups.get(name)]
    changed: Mapping[str, Any] = told.get("modes") or {"back": {}, "kept": {}}
    lines += [f"  {_base(path)} says mode {mode} again, as before the run" for path, mode in changed["back"].items()]
    lines += [f"  {_base(path)} keeps the new mode, it serves on {_named(on)}" for path, on in changed["kept"].items()]
    if groups.get("not_rolled_back"):
        names = ",".join(groups["not_rolled_back"])
        lines.append(f"  next: ansible-playbook rollback.yml --limit {names}")
    elif groups.get("unreachable") and groups.get("skipped"):
        names = ",".join(f"!{host}" for host in groups["unreachable"])
        lines.append(
            f"  next: leave out what is off with --limit 'all,{names}', or for good: swiftdeploy_unreachable: skip"
        )
    elif not told["ok"]:
        lines.append(f"  next: correct the cause and run {operation}.yml again; hosts that are done stay as they are")
    return "\n".join(lines)


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _named(hosts: Sequence[str]) -> str:
    shown = ", ".join(hosts[:NAMED])
    return shown if len(hosts) <= NAMED else f"{shown} and {len(hosts) - NAMED} more"
