"""What a release is made of, and what it is called."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .rendering import content_hash

# What of ``services`` decides how a release is started. A change of any of them is a new release.
SERVICE_KEYS = ("name", "image", "port", "version", "restart_policy", "log_volume", "command", "healthcheck")


def make_spec(manifest: Mapping[str, Any], mode: str, runtime: str, artifact: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is needed to start the manifest's release in ``mode``, without secret values.

    ``artifact`` names the exact bytes: {"image_id"} in the docker runtime, {"service_dir", "service_command"} in the
    process runtime. Plain types only, so that it can be kept as JSON.
    """
    services = manifest["services"]
    spec: dict[str, Any] = {key: _plain(services[key]) for key in SERVICE_KEYS}
    spec["env"] = dict(sorted(services["env"].items()))
    spec["secrets"] = sorted(services["secrets"])
    spec["resources"] = _plain(services["resources"])
    spec["network"] = manifest["network"]["name"]
    spec["mode"] = mode
    spec["runtime"] = runtime
    spec["artifact"] = _plain(artifact)
    return spec


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def make_release(spec: Mapping[str, Any], slot: str, time: str) -> dict[str, Any]:
    """A release record as the host's state keeps it. ``time`` is UTC, ISO 8601 with a Z."""
    plain = _plain(spec)
    digest = content_hash(plain)
    stamp = time.partition(".")[0].rstrip("Z").replace("-", "").replace(":", "")
    return {
        "id": f"{stamp}Z-{digest[:6]}",
        "version": plain["version"],
        "image": plain["image"],
        "mode": plain["mode"],
        "spec": plain,
        "spec_hash": digest,
        "slot": slot,
        "time": time,
        "outcome": "new",
    }


def same_code(release: Mapping[str, Any] | None, spec: Mapping[str, Any]) -> bool:
    """Whether ``release`` differs from ``spec`` in nothing but the mode: same version, same bytes, same settings."""
    return release is not None and _without_mode(release["spec"]) == _without_mode(spec)


def same_release(release: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    """Whether ``release`` is what ``spec`` would start, its mode included."""
    return bool(release["spec_hash"] == content_hash(_plain(spec)))


def _without_mode(spec: Mapping[str, Any]) -> Any:
    return {key: value for key, value in _plain(spec).items() if key != "mode"}


def drift(observed: Mapping[str, Any], spec: Mapping[str, Any], host: str, manifest: str) -> dict[str, Any]:
    """How what runs on ``host`` differs from ``spec``, what ``manifest`` (a file's name) asks for.

    {"words": one line for a person, "diff": {"before", "after", "before_header", "after_header"} as Ansible shows it,
    None where nothing differs}. Secrets are in neither: a spec holds their names alone.
    """
    asked = f"v{spec['version']} ({spec['mode']})"
    state = observed["state"]
    live = state["slots"].get(state["live"]) if state["live"] else None
    canary = state["canary"]
    beside = state["slots"].get(canary["slot"]) if canary else None
    if live is not None and same_release(live, spec):
        return {"words": f"no drift: runs {asked}, release {live['id']}, as {manifest} says", "diff": None}
    if beside is not None and same_code(beside, spec):
        words = f"no drift: {asked} of {manifest} is on its way, in {canary['slot']} with {canary['weight']} %"
        return {"words": words, "diff": None}
    before, after = list(_lines(live["spec"]) if live else []), list(_lines(_plain(spec)))
    told = {
        "before": "".join(f"{line}\n" for line in before),
        "after": "".join(f"{line}\n" for line in after),
        "before_header": f"{host}: release {live['id']} of {live['time']}" if live else f"{host}: nothing runs",
        "after_header": f"{host}: {manifest}",
    }
    if live is None:
        return {"words": f"drift: nothing runs, {manifest} says {asked}", "diff": told}
    runs = f"v{live['version']} ({live['mode']})"
    other = f"drift: runs {runs}, release {live['id']}, {manifest} says {asked}"
    if runs == asked:
        names = dict.fromkeys(line.partition(":")[0] for line in sorted(set(before) ^ set(after)))
        other += f" with another {', '.join(names)}"
    return {"words": other, "diff": told}


def _lines(value: Any, path: str = "") -> Iterator[str]:
    """Each value of nested mappings as ``path.to.it: value``, sorted."""
    if isinstance(value, Mapping) and value:
        for key, item in sorted(value.items()):
            yield from _lines(item, f"{path}.{key}" if path else str(key))
    else:
        yield f"{path}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"


def environment_of(spec: Mapping[str, Any], host: str, port: int, folders: Mapping[str, str]) -> dict[str, str]:
    """The environment of a slot's process. ``folders``: {"LOG_DIR", "STATE_DIR"}. Ours wins over the user's."""
    return {
        **spec["env"],
        "APP_NAME": spec["name"],
        "APP_VERSION": spec["version"],
        "MODE": spec["mode"],
        "HOST": host,
        "PORT": str(port),
        **folders,
    }


def goal(spec: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """What a deploy of ``spec`` is to reach on a host with ``state``: {"spec", "weight"}.

    A canary of the same code is left as it is: what it gets is for promote and rollback to say.
    """
    canary = state["canary"]
    held = state["slots"].get(canary["slot"]) if canary else None
    if held is not None and same_code(held, spec):
        return {"spec": _plain(held["spec"]), "weight": canary["weight"]}
    return {"spec": _plain(spec), "weight": 100}


def plan(observed: Mapping[str, Any], spec: Mapping[str, Any], time: str, weight: int = 100) -> dict[str, Any]:
    """Where a release goes and what has to be done for it.

    ``observed`` is what swiftdeploy_stack returned; ``weight`` the percent of the traffic that the release is to
    have, less than 100 for a canary beside the live release. A release that is live or a canary already is left in
    its slot. Answers::

        {"slot", "other", "release",
         "fresh": it is another release than the slot's, "start": its program has to be started,
         "weight": percent that it gets (100 where nothing else could take the rest),
         "live": slot that has the rest, or all, of the traffic afterwards,
         "ends_canary": slot of a canary that has to go before this one can start, or None,
         "commit": "live", "canary" or "nothing",
         "stop": slot to stop afterwards, or None,
         "slots": how the slots are written down while both run, "slots_after": how once all is done}
    """
    state = observed["state"]
    live, canary = state["live"], (state["canary"] or {}).get("slot")
    digest = content_hash(_plain(spec))
    held = {name: state["slots"].get(name) for name in ("blue", "green")}
    slot = next((name for name in (live, canary) if name and held[name] and held[name]["spec_hash"] == digest), None)
    fresh = slot is None
    slot = slot or observed["free"]
    other = "blue" if slot == "green" else "green"
    release = make_release(spec, slot, time) if fresh else _plain(held[slot])
    # A canary needs another release beside it; the live one itself cannot be one.
    weight = weight if live == other and held[other] else 100
    beside = weight < 100
    placed = {**held, slot: release}
    settled = (canary == slot and state["canary"]["weight"] == weight) if beside else (live == slot and not canary)
    return {
        "slot": slot,
        "other": other,
        "release": release,
        "fresh": fresh,
        "start": fresh or not observed["slots"][slot]["healthy"],
        "weight": weight,
        "live": other if beside else slot,
        "ends_canary": canary if fresh and canary == slot else None,
        "commit": "nothing" if settled and not fresh else "canary" if beside else "live",
        "stop": other if not beside and observed["slots"][other]["running"] else None,
        "slots": _written(observed, placed, {slot, live}),
        "slots_after": _written(observed, placed, {slot, other} if beside else {slot}),
    }


def shares(plan: Mapping[str, Any]) -> dict[str, int]:
    """Slot to percent of the traffic, once ``plan`` is done."""
    if plan["weight"] == 100:
        return {plan["slot"]: 100}
    if plan["weight"] == 0:
        return {plan["live"]: 100}
    return {plan["live"]: 100 - plan["weight"], plan["slot"]: plan["weight"]}


def addressed(slots: list[dict[str, Any]], addresses: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``slots`` of a plan with the addresses (slot to host:port, or None) that were learnt since."""
    return [{**entry, "address": addresses.get(entry["slot"]) or entry["address"]} for entry in slots]


def _written(observed: Mapping[str, Any], placed: Mapping[str, Any], active: set[str | None]) -> list[dict[str, Any]]:
    return [
        {
            "slot": name,
            "upstream": observed["slots"][name]["upstream"],
            "address": observed["slots"][name]["address"],
            "release": release["id"],
            "spec": _plain(release["spec"]),
            "idle": name not in active,
        }
        for name, release in placed.items()
        if release is not None
    ]
