#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Start a release in a slot until it is healthy, or stop a slot."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_slot
short_description: Start a release in a slot until it is healthy, or stop a slot
version_added: "0.1.0"
description:
  - With O(state=started) remembers what is about to start, installs its files, starts it and waits until it answers
    its health path by itself, not through the proxy. No traffic is moved.
  - A release that does not turn healthy is stopped and forgotten again, and the last lines that it printed are shown.
  - With O(state=stopped) ends the slot, for good where O(forget) says so. It must have no traffic any more.
options:
  stack:
    description: The C(options) that C(swiftdeploy_stack) returned for this host.
    type: dict
    required: true
  state:
    description: Whether the slot should run.
    type: str
    choices: [started, stopped]
    default: started
  slot:
    description: Which slot.
    type: str
    choices: [blue, green]
    required: true
  release:
    description: The release record, as the filter C(sd_plan) makes it.
    type: dict
  fresh:
    description: Whether this is another release than the one that the slot holds, so that it is started anew.
    type: bool
    default: true
  files:
    description: Files that the start reads, below the stack's folder. Shown in a diff.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where, below the stack's folder.
        type: str
        required: true
      content:
        description: Text of the file.
        type: str
        required: true
      mode:
        description: Permissions, octal.
        type: str
        default: "0644"
  secret_files:
    description: The same for files that hold secrets. Never shown.
    type: list
    elements: dict
    default: []
  secrets:
    description: Values that must not be shown where the release prints them. They go nowhere else.
    type: dict
    default: {}
  timeout:
    description: Seconds to wait until it is healthy.
    type: float
    default: 60.0
  interval:
    description: Seconds between two health questions.
    type: float
    default: 1.0
  lines:
    description: How many of its last log lines to show when it does not turn healthy.
    type: int
    default: 20
  forget:
    description: With O(state=stopped), whether the release is neither a canary nor kept any more.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says what would change and starts and stops nothing.
    support: full
  diff_mode:
    description: Shows the files without secrets that change.
    support: full
  idempotent:
    description: A release that runs and is healthy is left alone unless O(fresh).
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Start the release in the free slot
  swiftdeploy_slot:
    stack: "{{ stack_options }}"
    slot: "{{ rollout_plan.slot }}"
    release: "{{ rollout_plan.release }}"
    files:
      - path: config/docker-compose.yml
        content: "{{ render_compose }}"
"""

RETURN = r"""
start_s:
  description: Seconds until its process or container was started.
  returned: with O(state=started)
  type: float
  sample: 0.6
healthy_s:
  description: Seconds from there until it was healthy.
  returned: with O(state=started)
  type: float
  sample: 1.2
address:
  description: Where the slot answers this host; null in check mode.
  returned: with O(state=started)
  type: str
  sample: 127.0.0.1:3001
gateway:
  description: The address under which nginx sees requests of this host, besides loopback; null where there is none.
  returned: with O(state=started)
  type: str
"""

import time
from pathlib import Path
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target import health, lock, routing, state
from ansible.module_utils.swiftdeploy_target.files import Write, differences, fault, install, outdated
from ansible.module_utils.swiftdeploy_target.runtime import Runtime, RuntimeFaultError, make


class NotStartedError(Exception):
    """The release does not run; the message says why."""


def present_state(options: Dict[str, Any]) -> state.State:
    """What the host remembers, in line with what nginx serves."""
    remembered = state.load(Path(options["stack_dir"]), options["service"])
    return state.reconcile(remembered, routing.loaded(options["base_url"]))


def start(runtime: Runtime, params: Dict[str, Any], writes: List[Write]) -> Dict[str, Any]:
    """Start the release and wait for its health. Raises NotStartedError."""
    options, slot, release = params["stack"], params["slot"], params["release"]
    stack_dir = Path(options["stack_dir"])
    current = present_state(options)
    # One that is started again may have had to leave its port.
    if params["fresh"] or current["slots"][slot] != release:
        written = {**release, "outcome": "starting"} if params["fresh"] else release
        slots = {**current["slots"], slot: written}
        state.save(stack_dir, {**current, "owner": options["owner"], "runtime": options["runtime"], "slots": slots})
    runtime.ports[slot] = int(release["port"])
    health_question = state.health_of(release, options["health"])
    began = time.monotonic()
    try:
        install(writes)
        runtime.start(slot, params["fresh"])
        started = time.monotonic()
        seen = health.await_program(
            runtime, slot, health_question, timeout=params["timeout"], interval=params["interval"]
        )
        if not seen["ok"]:
            raise NotStartedError(health.complaint(runtime, slot, seen, params["lines"]))
    except (RuntimeFaultError, OSError, NotStartedError) as error:
        words = str(error)
        if params["fresh"]:
            words += take_away(runtime, options, slot)
        raise NotStartedError(words) from error
    return {
        "start_s": round(started - began, 3),
        "healthy_s": round(time.monotonic() - started, 3),
        "address": runtime.address(slot),
        "gateway": runtime.gateway(),
    }


def take_away(runtime: Runtime, options: Dict[str, Any], slot: str) -> str:
    """Stop a release that is not to run, and forget it. Answers what went wrong with that, empty when nothing."""
    try:
        runtime.stop(slot)
        state.save(Path(options["stack_dir"]), state.without(present_state(options), slot))
    except (RuntimeFaultError, state.StateError, OSError) as error:
        return f"\n{slot} could not be taken away again: {error}"
    return ""


def main() -> None:
    """Entry point of the module."""
    file_options = {
        "path": {"type": "str", "required": True},
        "content": {"type": "str", "required": True},
        "mode": {"type": "str", "default": "0644"},
    }
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
            "slot": {"type": "str", "choices": list(state.SLOTS), "required": True},
            "release": {"type": "dict"},
            "fresh": {"type": "bool", "default": True},
            "files": {"type": "list", "elements": "dict", "default": [], "options": file_options},
            "secret_files": {"type": "list", "elements": "dict", "default": [], "no_log": True},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "timeout": {"type": "float", "default": 60.0},
            "interval": {"type": "float", "default": 1.0},
            "lines": {"type": "int", "default": 20},
            "forget": {"type": "bool", "default": False},
        },
        required_if=[("state", "started", ["release"])],
        supports_check_mode=True,
    )
    params: Dict[str, Any] = module.params
    options, slot = params["stack"], params["slot"]
    stack_dir = Path(options["stack_dir"])
    try:
        runtime = make(options)
        if params["state"] == "stopped":
            if module.check_mode:
                module.exit_json(changed=bool(runtime.running().get(slot)))
            with lock.working(stack_dir, options.get("run_id")):
                stopped = runtime.stop(slot)
                if params["forget"]:
                    state.save(stack_dir, state.without(present_state(options), slot))
            module.exit_json(changed=stopped)
        shown = outdated(stack_dir, params["files"])
        hidden = outdated(stack_dir, [{"mode": "0600", **entry} for entry in params["secret_files"]])
        diff = differences(shown)
        if module.check_mode:
            module.exit_json(changed=True, diff=diff, start_s=0.0, healthy_s=0.0, address=None, gateway=None)
        with lock.working(stack_dir, options.get("run_id")):
            result = start(runtime, params, [*shown, *hidden])
    except (NotStartedError, RuntimeFaultError, lock.LockError, state.StateError, OSError, ValueError) as error:
        module.fail_json(msg=fault(error, Path(params["stack"]["stack_dir"])))
    module.exit_json(changed=True, diff=diff, **result)


if __name__ == "__main__":
    main()
