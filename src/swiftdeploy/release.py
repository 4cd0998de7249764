"""What a release is made of, and what it is called."""

from __future__ import annotations

from collections.abc import Mapping
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


def _without_mode(spec: Mapping[str, Any]) -> Any:
    return {key: value for key, value in _plain(spec).items() if key != "mode"}


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


def plan(observed: Mapping[str, Any], spec: Mapping[str, Any], time: str) -> dict[str, Any]:
    """Where a release goes and what has to be done for it.

    ``observed`` is what swiftdeploy_stack returned. Answers {"slot", "other", "release", "fresh": it is another
    release than the live one, "start": its program has to be started, "slots": how the slots are written down
    while both run, "slots_after": how once only the new one does}. The release that is live is left in its slot.
    """
    state = observed["state"]
    live = state["live"]
    present = state["slots"].get(live) if live else None
    digest = content_hash(_plain(spec))
    fresh = present is None or present["spec_hash"] != digest
    slot = observed["free"] if fresh else live
    other = "blue" if slot == "green" else "green"
    release = make_release(spec, slot, time) if fresh else _plain(present)
    placed = {**{name: state["slots"].get(name) for name in ("blue", "green")}, slot: release}
    running = observed["slots"][slot]["healthy"]
    return {
        "slot": slot,
        "other": other,
        "release": release,
        "fresh": fresh,
        "start": fresh or not running,
        "slots": _written(observed, placed, {slot, live}),
        "slots_after": _written(observed, placed, {slot}),
    }


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
