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
  - With O(settle) the release in O(slot) is watched while that slot is still warm. When it dies its traffic goes back
    within a second, and the module fails.
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
    description:
      - With O(commit=live), what becomes of the release that was live; with O(commit=back), of the canary. Other than
        V(replaced) it is remembered as one that does not come back unasked.
    type: str
    choices: [replaced, rolled_back, denied, died]
    default: replaced
  reject:
    description: With O(commit=live), whether that is remembered.
    type: bool
    default: true
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
  settle:
    description:
      - Watch the release that has got the traffic. Without C(watched) there is nothing to go back to.
    type: dict
    suboptions:
      seconds:
        description: How long, at least; it is watched while requests of the slot before it are in flight as well.
        type: float
        required: true
      later:
        description: Only write down that it is to be watched; a later call does.
        type: bool
        default: false
      back_to:
        description: Slot that the traffic goes back to.
        type: str
        choices: [blue, green]
      watched:
        description:
          - Text of the configuration for that time; it gives all traffic to O(slot), and to C(back_to) as soon as the
            file C(canary.off) is there.
        type: str
      watched_hash:
        description: Hash that C(watched) reports of itself.
        type: str
      back:
        description: Text of the configuration that knows C(back_to) alone.
        type: str
      back_hash:
        description: Hash that C(back) reports of itself.
        type: str
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
died:
  description: C(id), C(version) and C(mode) of the release that died in the time of O(settle).
  returned: failure, when it did
  type: dict
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
settle_s:
  description: Seconds that the release was watched.
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
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target import (
    certificate,
    host_key,
    inflight,
    lock,
    prune,
    release_log,
    routing,
    secret_values,
    state,
)
from ansible.module_utils.swiftdeploy_target.files import (
    difference,
    differences,
    fault,
    install,
    open_folder,
    outdated,
    read_bytes,
)
from ansible.module_utils.swiftdeploy_target.runtime import Runtime, RuntimeFaultError, make
from ansible.module_utils.swiftdeploy_target.settle import Settle
from ansible.module_utils.swiftdeploy_target.surroundings import clear_surroundings

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
NO_TIMES = {"introduce_s": 0.0, "reload_s": 0.0, "drain_s": 0.0, "settle_s": 0.0, "stop_s": 0.0}


class DiedError(Exception):
    """The release that had got the traffic is dead; the message says why, and what serves."""


def advance(current: state.State, params: Dict[str, Any]) -> state.State:
    """The state after the traffic has moved. Pure."""
    options = params["stack"]
    if params["commit"] == "live":
        after = state.commit(current, params["release"], options["runtime"], params["leaves"], params["reject"])
        back_to = (params["settle"] or {}).get("back_to")
        after = state.settling(current, after, back_to) if back_to else after
    elif params["commit"] == "canary":
        after = state.with_canary(current, params["slot"], params["weight"])
    elif params["commit"] == "back":
        after = {
            **state.reject(current, current["slots"][state.other(params["slot"])], params["leaves"]),
            "canary": None,
        }
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
    if not metrics["path"]:
        return drained
    told = inflight.wait_idle(address, metrics["path"], metrics["in_progress"], deadline)
    return drained and told["idle"] is not False


class Drain:
    """Waiting for requests in flight, beside whatever else is done meanwhile."""

    def __init__(self, runtime: Runtime, moved: routing.Moved, params: Dict[str, Any]) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._waiting: Future[Tuple[bool, float]] = self._pool.submit(self._wait, runtime, moved, params)

    @staticmethod
    def _wait(runtime: Runtime, moved: routing.Moved, params: Dict[str, Any]) -> Tuple[bool, float]:
        began = time.monotonic()
        drained = idle(runtime, moved, params)
        return drained, round(time.monotonic() - began, 3)

    def done(self) -> bool:
        """Whether nothing is waited for any more."""
        return self._waiting.done()

    def result(self) -> Tuple[bool, float]:
        """Whether all ended in time, and after how many seconds. Raises what went wrong."""
        return self._waiting.result()


def health_of(params: Dict[str, Any]) -> Dict[str, Any]:
    """How the release in the slot is asked for its health."""
    options = params["stack"]
    return state.health_of(params["release"], options["health"])


def go_back(runtime: Runtime, folder: Path, params: Dict[str, Any]) -> str:
    """Take the traffic of a release that has died back to the one before it. Answers what is to be said of that."""
    options, settle, slot = params["stack"], params["settle"], params["slot"]
    if not settle.get("watched"):
        return f"There is nothing to go back to: {slot} keeps the traffic.{last_lines(runtime, slot)}"
    # Nothing comes before this: every moment here is one of users without an answer.
    routing.turn_off(folder)
    before = state.load(folder.parent, options["service"])
    after = state.taken_back(before)
    state.save(folder.parent, after)
    problems = note(folder.parent, before, after, "died")
    said = last_lines(runtime, slot)
    moved = routing.move(
        runtime, folder, routing.Config(settle["back"], settle["back_hash"]), base_url=options["base_url"]
    )
    runtime.stop(slot)
    after = state.without(after, slot)
    state.save(folder.parent, after)
    secret_values.forget(folder.parent, after)
    routing.drain(runtime, moved.old_workers, params["drain_timeout"])
    routing.turn_on(folder)
    back_to = settle["back_to"]
    serves = f"{back_to} (v{after['slots'][back_to]['version']}) has all traffic again."
    return "\n".join([serves + said, *problems])


def lived(runtime: Runtime, folder: Path, params: Dict[str, Any], watch: Settle, drain: Optional[Drain]) -> float:
    """Watch the release that has got the traffic; for how many seconds. Raises DiedError once the traffic is back."""
    watch.begin()
    problem = watch.watch(drain.done if drain else None)
    seconds = watch.seconds()
    if problem:
        raise DiedError(f"{problem}, {seconds:.1f} s after it had got the traffic. {go_back(runtime, folder, params)}")
    return round(seconds, 3)


def last_lines(runtime: Runtime, slot: str) -> str:
    """What a dead release printed last, as it is shown."""
    lines = "".join(f"\n    {line}" for line in runtime.logs(slot, LOG_LINES)) or "\n    (it printed nothing)"
    return f"\nThe last lines of {slot}:{lines}"


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
    open_folder(folder)
    own_files(folder, options)
    before = state.load(stack_dir, options["service"])
    # Before anything moves: what an earlier run did is its own, what this one does is written down below.
    current = state.reconcile(before, routing.loaded(routing.nginx_of(options)))
    if params["canary_off"]:
        routing.turn_off(folder)
    settle, final = params["settle"] or {}, routing.Config(params["config"], params["config_hash"])
    watches = bool(settle) and not settle["later"]
    watch = Settle(runtime, params["slot"], health_of(params), settle["seconds"]) if watches else None
    moved = routing.move(
        runtime,
        folder,
        routing.Config(settle["watched"], settle["watched_hash"]) if settle.get("watched") else final,
        base_url=options["base_url"],
        introduce=routing.Config(params["introduce"], params["introduce_hash"]) if params["introduce"] else None,
        slot=params["slot"],
        question=health_of(params),
        place_only=params["place_only"],
        on=bool(settle.get("watched")),
    )
    after = advance(current, params)
    problems: List[str] = []
    if after != before:
        after = {**after, "owner": options["owner"]}
        state.save(stack_dir, after)
        problems = note(stack_dir, before, after, params["leaves"])
    result = {**NO_TIMES, "introduce_s": moved.introduce_s, "reload_s": moved.reload_s, "drained": True}
    stopped, log = False, []
    drain = Drain(runtime, moved, params) if params["stop"] else None
    if watch is not None:
        result["settle_s"] = lived(runtime, folder, params, watch, drain)
        if settle.get("watched"):
            routing.move(runtime, folder, final, base_url=options["base_url"])
            after = {**after, "settling": None}
            state.save(stack_dir, after)
    if drain:
        log = runtime.logs(params["stop"], LOG_LINES)
        result["drained"], result["drain_s"] = drain.result()
        began = time.monotonic()
        stopped = runtime.stop(params["stop"])
        result["stop_s"] = round(time.monotonic() - began, 3)
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
    clear_surroundings()
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
            "leaves": {"type": "str", "choices": ["replaced", *state.REJECTED], "default": "replaced"},
            "reject": {"type": "bool", "default": True},
            "settle": {
                "type": "dict",
                "options": {
                    "seconds": {"type": "float", "required": True},
                    "later": {"type": "bool", "default": False},
                    "back_to": {"type": "str", "choices": list(state.SLOTS)},
                    "watched": {"type": "str"},
                    "watched_hash": {"type": "str"},
                    "back": {"type": "str"},
                    "back_hash": {"type": "str"},
                },
                "required_together": [("back_to", "watched", "watched_hash", "back", "back_hash")],
            },
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
        serving = routing.loaded(routing.nginx_of(options))
        settled = serving is not None and serving["config"] == params["config_hash"]
        diff = differences(outdated(stack_dir, params["files"]))
        shown = host_key.hide(before)
        if not settled or shown != params["config"].encode():
            diff = [difference(path, shown, params["config"].encode()), *diff]
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
    except DiedError as error:
        release = params["release"]
        died = {key: release[key] for key in ("id", "version", "mode")}
        name = f"{params['slot']} (v{release['version']})"
        module.fail_json(msg=secret_values.masked(stack_dir, f"{name} died: {error}"), died=died)
    except FAULTS as error:
        module.fail_json(msg=secret_values.masked(stack_dir, fault(error, stack_dir)))
    module.exit_json(diff=diff if result["changed"] else [], **result)


if __name__ == "__main__":
    main()
