#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Bring nginx to a configuration without failing a request."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_route
short_description: Bring nginx to a configuration without failing a request
version_added: "0.1.0"
description:
  - Tests the configuration with the nginx that serves, moves it into place, reloads, and waits until nginx itself
    reports it. An invalid configuration is never loaded.
  - Then it writes down who has the traffic. Then, where O(stop) names a slot, it waits for the end of the workers that
    still serve an earlier configuration and for the requests that the slot itself is working on, stops that slot,
    and removes what no kept release needs any more.
options:
  stack:
    description: The C(options) that C(swiftdeploy_stack) returned for this host.
    type: dict
    required: true
  config:
    description: Complete text of nginx.conf.
    type: str
    required: true
  config_hash:
    description: Hash that this configuration reports of itself.
    type: str
    required: true
  slot:
    description: Slot that the configuration brings traffic to; it is verified through nginx with O(introduce).
    type: str
    choices: [blue, green]
    required: true
  place_only:
    description: Test the configuration and put it in place, but do not reload, since nginx is started anew afterwards.
    type: bool
    default: false
  introduce:
    description:
      - Text of a configuration that knows O(slot) but gives it no traffic yet. It is loaded first, and the slot has to
        answer through nginx before the traffic moves.
    type: str
  introduce_hash:
    description: Hash that O(introduce) reports of itself.
    type: str
  canary_off:
    description:
      - Take all traffic from the canary first, at once and in every worker of nginx, before anything is loaded. It
        stays so until the slot is stopped by a later call.
    type: bool
    default: false
  commit:
    description:
      - What to write down once the configuration is loaded. V(live), O(release) has all traffic; V(canary), O(slot) has
        O(weight) percent; V(back), the canary has none and is not gone on with; V(nothing).
    type: str
    choices: [live, canary, back, nothing]
    default: nothing
  release:
    description: With O(commit=live), the release record.
    type: dict
  leaves:
    description: With O(commit=live), what becomes of the release that was live.
    type: str
    choices: [replaced, rolled_back]
    default: replaced
  weight:
    description: With O(commit=canary), percent of the traffic.
    type: int
    default: 0
  stop:
    description: Slot to drain and stop, since this configuration gives it nothing.
    type: str
    choices: [blue, green]
  forget:
    description: Whether the release in the slot of O(stop) is not kept there.
    type: bool
    default: false
  files:
    description: Files to write below the stack's folder when all is done, each with C(path) and C(content).
    type: list
    elements: dict
    default: []
  in_progress:
    description:
      - Where the slot of O(stop) tells how many requests it is working on, unless its release was started with other
        names. It is waited for that as well; a slot that does not tell is stopped once nginx is done with it.
    type: dict
    suboptions:
      path:
        description: Path of its metrics.
        type: str
        required: true
      metric:
        description: Name of the gauge.
        type: str
        required: true
  prune:
    description:
      - With O(commit=live), remove what no kept release needs any more. Keys C(parts_dir), the folder of the programs,
        and C(keep_images), names of images that always stay. Without it nothing is removed.
    type: dict
  drain_timeout:
    description: Seconds to wait for requests in flight. nginx closes what is left then.
    type: float
    default: 35.0
attributes:
  check_mode:
    description: Lets nginx judge the configuration where nginx is to be had, and loads nothing.
    support: full
  diff_mode:
    description: Shows the change of nginx.conf and of the files.
    support: full
  idempotent:
    description: A configuration that is already loaded is left alone.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Route to the green slot
  swiftdeploy_route:
    stack: "{{ stack_options }}"
    config: "{{ render_nginx.text }}"
    config_hash: "{{ render_nginx.hash }}"
    slot: green
"""

RETURN = r"""
drained:
  description: Whether all old workers, and the stopped slot's own requests, ended in time.
  returned: success
  type: bool
stopped:
  description: Whether a slot was, or would be, stopped.
  returned: success
  type: bool
introduce_s:
  description: Seconds until the slot answered through nginx, before any traffic moved.
  returned: success
  type: float
reload_s:
  description: Seconds until nginx reported the new configuration.
  returned: success
  type: float
drain_s:
  description: Seconds until the last request of an earlier configuration had ended.
  returned: success
  type: float
stop_s:
  description: Seconds until the slot without traffic had ended.
  returned: success
  type: float
log:
  description: The last lines that the stopped slot had printed.
  returned: with O(stop)
  type: list
  elements: str
removed:
  description: What was removed because no kept release needs it, in words.
  returned: success
  type: list
  elements: str
problems:
  description: What could not be removed or written down, in words. Removing is tried again after the next switch.
  returned: success
  type: list
  elements: str
"""

import time
from pathlib import Path
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target import (
    certificate,
    inflight,
    lock,
    prune,
    release_log,
    routing,
    secret_values,
    state,
)
from ansible.module_utils.swiftdeploy_target.files import difference, differences, fault, install, outdated, read_bytes
from ansible.module_utils.swiftdeploy_target.runtime import Runtime, RuntimeFaultError, make

LOG_LINES = 20
FAULTS = (
    certificate.CertificateError,
    routing.RoutingError,
    RuntimeFaultError,
    lock.LockError,
    state.StateError,
    OSError,
    ValueError,
)
NO_TIMES = {"introduce_s": 0.0, "reload_s": 0.0, "drain_s": 0.0, "stop_s": 0.0}


def advance(current: state.State, params: Dict[str, Any]) -> state.State:
    """The state after the traffic has moved. Pure."""
    options = params["stack"]
    if params["commit"] == "live":
        after = state.commit(current, params["release"], options["runtime"], params["leaves"])
    elif params["commit"] == "canary":
        after = state.with_canary(current, params["slot"], params["weight"])
    elif params["commit"] == "back":
        after = {**current, "canary": None}
    else:
        after = current
    programs = {key: options[key] for key in ("nginx", "nginx_version", "supervisord") if options.get(key)}
    return {**after, "programs": programs or current.get("programs")}


def idle(runtime: Runtime, moved: routing.Moved, params: Dict[str, Any]) -> bool:
    """Wait until nothing works on a request for the slot that is to be stopped; False when the time was over."""
    deadline = time.monotonic() + params["drain_timeout"] + routing.DRAIN_GRACE
    drained = routing.drain(runtime, moved.old_workers, params["drain_timeout"])
    address = runtime.address(params["stop"]) if params["in_progress"] else None
    if address is None:
        return drained
    # nginx is done with it; the service may not be, with what a client no longer waits for.
    options = params["stack"]
    held = state.load(Path(options["stack_dir"]), options["service"])["slots"][params["stop"]]
    gauge = params["in_progress"]
    metrics = state.metrics_of(held, {"path": gauge["path"], "in_progress": gauge["metric"]})
    told = inflight.wait_idle(address, metrics["path"], metrics["in_progress"], deadline)
    return drained and told["idle"] is not False


def note(stack_dir: Path, before: state.State, after: state.State, leaves: str) -> List[str]:
    """Put the switch into the host's own log. What went wrong: the traffic has moved, so that the run goes on."""
    line = release_log.switched(before, after, lock.holder(stack_dir), leaves)
    try:
        if line is not None:
            release_log.append(stack_dir, line)
    except OSError as error:
        return [f"the host's release log {release_log.path_of(stack_dir)} cannot be written: {error.strerror or error}"]
    return []


def own_files(folder: Path, options: Dict[str, Any]) -> None:
    """Make what nginx needs besides its configuration in ``folder``. Raises CertificateError, OSError."""
    owner = certificate.owner_of(options)
    if options["runtime"] == "docker":
        certificate.make_folder(folder.parent / "spool", owner)
    if options.get("tls") and options["tls"]["digest"]:
        certificate.place(folder, options["tls"], owner)


def apply(runtime: Runtime, folder: Path, params: Dict[str, Any]) -> Dict[str, Any]:
    """Move the traffic, remember it, stop what has none.

    Raises RoutingError, RuntimeFaultError, StateError, OSError; what was done until then stays done.
    """
    options = params["stack"]
    stack_dir = folder.parent
    folder.mkdir(parents=True, exist_ok=True)
    own_files(folder, options)
    if params["canary_off"]:
        routing.turn_off(folder)
    moved = routing.move(
        runtime,
        folder,
        routing.Config(params["config"], params["config_hash"]),
        base_url=options["base_url"],
        introduce=routing.Config(params["introduce"], params["introduce_hash"]) if params["introduce"] else None,
        slot=params["slot"],
        place_only=params["place_only"],
    )
    before = state.load(stack_dir, options["service"])
    current = state.reconcile(before, routing.loaded(options["base_url"]))
    after = advance(current, params)
    problems: List[str] = []
    if after != before:
        after = {**after, "owner": options["owner"]}
        state.save(stack_dir, after)
        problems = note(stack_dir, before, after, params["leaves"])
    result = {**NO_TIMES, "introduce_s": moved.introduce_s, "reload_s": moved.reload_s, "drained": True}
    stopped, log = False, []
    if params["stop"]:
        log = runtime.logs(params["stop"], LOG_LINES)
        began = time.monotonic()
        result["drained"] = idle(runtime, moved, params)
        drained = time.monotonic()
        stopped = runtime.stop(params["stop"])
        result["drain_s"], result["stop_s"] = round(drained - began, 3), round(time.monotonic() - drained, 3)
        if params["forget"]:
            after = state.without(after, params["stop"])
            state.save(stack_dir, after)
    # Its last lines are masked by now.
    secret_values.forget(stack_dir, after)
    if params["stop"] or not params["canary_off"]:
        routing.turn_on(folder)
    install(outdated(stack_dir, params["files"]))
    pruned: Dict[str, Any] = {"removed": [], "problems": []}
    if params["prune"] is not None and params["commit"] == "live":
        pruned = prune.prune({**options, **params["prune"]}, before, after)
    certificate.forget_others(folder, params["config"])
    pruned["problems"] = [*problems, *pruned["problems"]]
    if options.get("tls") and options["tls"]["problem"]:
        pruned["problems"].append(f"nginx goes on with the copy that it has: {options['tls']['problem']}")
    return {**result, "changed": moved.changed or stopped, "stopped": stopped, "log": log, **pruned}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "dict", "required": True},
            "config": {"type": "str", "required": True},
            "config_hash": {"type": "str", "required": True},
            "drain_timeout": {"type": "float", "default": 35.0},
            "slot": {"type": "str", "required": True, "choices": list(state.SLOTS)},
            "place_only": {"type": "bool", "default": False},
            "introduce": {"type": "str"},
            "introduce_hash": {"type": "str"},
            "canary_off": {"type": "bool", "default": False},
            "commit": {"type": "str", "choices": ["live", "canary", "back", "nothing"], "default": "nothing"},
            "release": {"type": "dict"},
            "leaves": {"type": "str", "choices": ["replaced", "rolled_back"], "default": "replaced"},
            "weight": {"type": "int", "default": 0},
            "stop": {"type": "str", "choices": list(state.SLOTS)},
            "forget": {"type": "bool", "default": False},
            "files": {"type": "list", "elements": "dict", "default": []},
            "in_progress": {
                "type": "dict",
                "options": {"path": {"type": "str", "required": True}, "metric": {"type": "str", "required": True}},
            },
            "prune": {"type": "dict"},
        },
        required_together=[("introduce", "introduce_hash")],
        required_if=[("commit", "live", ["release"])],
        supports_check_mode=True,
    )
    params: Dict[str, Any] = module.params
    params["files"] = [{"mode": "0644", **entry} for entry in params["files"]]
    options = params["stack"]
    stack_dir = Path(options["stack_dir"])
    path = stack_dir / "config" / routing.CONFIG_NAME
    try:
        runtime = make(options)
        before = read_bytes(path) or b""
        serving = routing.loaded(options["base_url"])
        settled = serving is not None and serving["config"] == params["config_hash"]
        diff = differences(outdated(stack_dir, params["files"]))
        if not settled or before != params["config"].encode():
            diff = [difference(path, before, params["config"].encode()), *diff]
        if module.check_mode:
            stops = bool(params["stop"]) and bool(runtime.running().get(params["stop"]))
            module.exit_json(
                changed=not settled or stops,
                diff=diff,
                drained=True,
                stopped=stops,
                removed=[],
                problems=[],
                **NO_TIMES,
            )
        stack_dir.mkdir(parents=True, exist_ok=True)
        with lock.working(stack_dir, options.get("run_id")):
            result = apply(runtime, stack_dir / "config", params)
    except FAULTS as error:
        module.fail_json(msg=secret_values.masked(stack_dir, fault(error, stack_dir)))
    module.exit_json(diff=diff if result["changed"] else [], **result)


if __name__ == "__main__":
    main()
