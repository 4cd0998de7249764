"""What a release is made of, and what it is called."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from swiftdeploy_target import state as host_state

from .rendering import content_hash

# What of ``services`` decides how a release is started. A change of any of them is a new release.
SERVICE_KEYS = ("name", "image", "port", "version", "restart_policy", "log_volume", "command", "healthcheck", "metrics")
# What of ``nginx`` is this host's and no release's: a release that comes back finds it as it is then.
HOST_KEYS = ("image", "port", "tls", "real_ip")


def make_spec(manifest: Mapping[str, Any], mode: str, runtime: str, artifact: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is needed to start the manifest's release in ``mode``, without secret values.

    ``artifact`` names the exact bytes: {"image_id"} in the docker runtime, {"service_dir", "service_command"} in the
    process runtime. Plain types only, so that it can be kept as JSON.
    """
    services = manifest["services"]
    spec: dict[str, Any] = {key: _plain(services[key]) for key in SERVICE_KEYS}
    # How long a deploy watches is no part of what it starts.
    spec["healthcheck"] = {key: value for key, value in spec["healthcheck"].items() if key != "settle"}
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


def proxy_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of nginx that belong to a release: with other ones its requests could fail."""
    return {key: _plain(value) for key, value in manifest["nginx"].items() if key not in HOST_KEYS}


def as_released(manifest: Mapping[str, Any], release: Mapping[str, Any]) -> dict[str, Any]:
    """``manifest`` as it was for ``release``, with all of it that is not a release's as it is today."""
    spec = release["spec"]
    own = {key: spec[key] for key in (*SERVICE_KEYS, "env", "resources", "mode") if key in spec}
    # What a record does not hold is the manifest's.
    own["healthcheck"] = {**manifest["services"]["healthcheck"], **(spec.get("healthcheck") or {})}
    return {
        **manifest,
        "services": {**manifest["services"], **_plain(own)},
        "nginx": {**manifest["nginx"], **(release.get("proxy") or {})},
    }


def served(
    manifest: Mapping[str, Any], slots: list[dict[str, Any]], live: str, weights: Mapping[str, Any]
) -> dict[str, Any]:
    """``manifest`` with the settings of nginx that hold while ``slots`` (of a plan) serve with ``weights``.

    They are those of the release that has all traffic. While two share it a limit is the wider one of both, so that
    neither loses a request that it takes alone; the rest is the live one's.
    """
    held = {entry["slot"]: entry.get("proxy") or {} for entry in slots}
    own = {**manifest["nginx"], **held.get(live, {})}
    for slot in weights:
        if slot != live:
            own = _wider(own, {**manifest["nginx"], **held.get(slot, {})})
    return {**manifest, "nginx": own}


def _wider(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    body = max((one["max_body"], other["max_body"]), key=_bytes)
    longest = {key: max(one[key], other[key]) for key in ("proxy_timeout", "drain_timeout")}
    closed = {key: one[key] and other[key] for key in ("open_metrics", "open_chaos")}
    return {**one, **longest, **closed, "max_body": body}


def _bytes(size: Any) -> float:
    """A size as nginx takes it; 0 is unlimited."""
    text = str(size).lower()
    units = {"k": 1024, "m": 1024**2, "g": 1024**3}
    number = int(text.rstrip("kmg")) * units.get(text[-1], 1)
    return number or float("inf")


def make_release(
    spec: Mapping[str, Any],
    slot: str,
    time: str,
    port: int | None = None,
    proxy: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A release record as the host's state keeps it. ``time`` is UTC, ISO 8601 with a Z.

    ``port``: where it listens, where that is not the port of the spec; ``proxy``: from ``proxy_of``.
    """
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
        "port": port or plain["port"],
        "proxy": _plain(proxy or {}),
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


def asked(spec: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """What the policy is told of the release of ``spec``: {"version", "mode", "rejected": why it was taken away}."""
    plain = _plain(spec)
    return {"version": plain["version"], "mode": plain["mode"], "rejected": host_state.rejected(dict(state), plain)}


def deploy_problem(spec: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Why a deploy is no way to bring ``spec`` to a host with ``state``; empty where it is one.

    In canary mode that is for a promotion, which judges it before it has all traffic. A host that has nothing to hold
    it against is another matter, and so is a release that runs already.
    """
    live = state["slots"].get(state["live"]) if state["live"] else None
    wanted = goal(spec, state)
    if live is None or spec["mode"] != "canary" or wanted["weight"] < 100 or same_release(live, wanted["spec"]):
        return ""
    return (
        f"v{spec['version']} (canary) would take all traffic from v{live['version']} ({live['mode']}) without being "
        "judged as a canary\n"
        "next: ansible-playbook promote.yml -e mode=canary, which judges it on the way; or set services.mode to stable "
        "in the manifest to deploy it without a canary"
    )


def stable_problem(spec: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Why ``spec`` cannot become stable on a host with ``state``; empty where it can.

    The evidence of a canary beside is about that canary, and about no other release.
    """
    canary = state["canary"]
    held = state["slots"].get(canary["slot"]) if canary else None
    if held is None or same_code(held, spec) or same_code(state["last_stable"], spec):
        return ""
    return (
        f"a canary of v{held['version']} has {canary['weight']} % of the traffic, but the manifest asks for another "
        f"release, v{spec['version']}, which nobody has judged\n"
        "next: ansible-playbook rollback.yml ends that canary; or name its release in the manifest"
    )


def plan(
    observed: Mapping[str, Any],
    spec: Mapping[str, Any],
    time: str,
    weight: int = 100,
    proxy: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Where a release goes and what has to be done for it.

    ``observed`` is what swiftdeploy_stack returned; ``weight`` the percent of the traffic that the release is to
    have, less than 100 for a canary beside the live release; ``proxy`` the settings of nginx that are its own, from
    ``proxy_of``. A release that is live or a canary already is left in its slot. Answers::

        {"slot", "other", "release",
         "fresh": it is another release than the slot's, "start": its program has to be started,
         "weight": percent that it gets (100 where nothing else could take the rest),
         "live": slot that has the rest, or all, of the traffic afterwards,
         "ends_canary": slot of a canary that has to go before this one can start, or None,
         "commit": "live", "canary" or "nothing",
         "stop": slot to stop afterwards, or None,
         "watch": it is to be watched for a while once it has all traffic, since it has not had it until now,
         "drain_timeout": seconds that requests in flight may take, in whichever of the releases,
         "slots": how the slots are written down while both run, "slots_watched": while the one that goes is still
         warm, "slots_after": how once all is done}
    """
    state = observed["state"]
    live, canary = state["live"], (state["canary"] or {}).get("slot")
    digest = content_hash(_plain(spec))
    held = {name: state["slots"].get(name) for name in ("blue", "green")}
    slot = next((name for name in (live, canary) if name and held[name] and held[name]["spec_hash"] == digest), None)
    fresh = slot is None
    slot = slot or observed["free"]
    other = "blue" if slot == "green" else "green"
    port = spec["port"] if spec["runtime"] == "docker" else observed["next_port"]
    seen = observed["slots"][slot]
    release = make_release(spec, slot, time, port, proxy) if fresh else _kept(seen, held[slot], proxy)
    # A canary needs another release beside it; the live one itself cannot be one.
    weight = weight if live == other and held[other] else 100
    beside = weight < 100
    placed = {**held, slot: release}
    settled = (
        (canary == slot and state["canary"]["weight"] == weight)
        if beside
        else (live == slot and not canary and not state.get("settling") and release == held[slot])
    )
    start = fresh or not observed["slots"][slot]["healthy"]
    # The release that goes may have been given longer. Records of older versions do not say.
    drains = [
        entry["proxy"]["drain_timeout"] for entry in (*placed.values(), *held.values()) if entry and entry.get("proxy")
    ]
    return {
        "slot": slot,
        "other": other,
        "release": release,
        "fresh": fresh,
        "start": start,
        "weight": weight,
        "live": other if beside else slot,
        "ends_canary": canary if fresh and canary == slot else None,
        "commit": "nothing" if settled and not fresh else "canary" if beside else "live",
        "watch": not beside and (live != slot or not held[slot] or start or bool(state.get("settling"))),
        "stop": other if not beside and observed["slots"][other]["running"] else None,
        "drain_timeout": max(drains, default=0.0),
        "slots": _written(observed, placed, {slot, live}),
        "slots_watched": _written(observed, placed, {slot, other}),
        "slots_after": _written(observed, placed, {slot, other} if beside else {slot}),
    }


def _kept(seen: Mapping[str, Any], held: Mapping[str, Any], proxy: Mapping[str, Any] | None) -> dict[str, Any]:
    """The record of a release that stays: with today's settings of nginx, and with another port where it has lost its
    own while it was down."""
    return {**_plain(held), "port": seen["port"], "proxy": _plain(held.get("proxy") if proxy is None else proxy) or {}}


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
            "upstream": _upstream(observed["slots"][name], release),
            # Of the release that is there now; one that is to start has none yet.
            "address": observed["slots"][name]["address"] if release["id"] == _id_in(observed, name) else None,
            "release": release["id"],
            "spec": _plain(release["spec"]),
            "proxy": release.get("proxy") or {},
            "idle": name not in active,
        }
        for name, release in placed.items()
        if release is not None
    ]


def _id_in(observed: Mapping[str, Any], slot: str) -> str | None:
    release = observed["state"]["slots"].get(slot)
    return release["id"] if release else None


def _upstream(seen: Mapping[str, Any], release: Mapping[str, Any]) -> str:
    return f"{seen['upstream_host']}:{release.get('port') or seen['port']}"
