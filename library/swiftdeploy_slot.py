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
    description: The same for files that the values of secrets are added to. Never shown.
    type: list
    elements: dict
    default: []
  secrets:
    description:
      - Values of the secrets that the release names, as the filter C(sd_secrets) packs them. They are kept on the host
        as long as the release is, and masked in all that this host reports of it.
    type: str
    default: ""
  secrets_of:
    description:
      - Id of a kept release whose values are taken from the host. O(secrets) stands in for one that the host has not
        kept.
    type: str
    default: ""
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
"""

import time
from pathlib import Path
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target import health, lock, routing, secret_values, state
from ansible.module_utils.swiftdeploy_target.files import Write, differences, fault, install, outdated
from ansible.module_utils.swiftdeploy_target.runtime import Runtime, RuntimeFaultError, make
from ansible.module_utils.swiftdeploy_target.surroundings import clear_surroundings


class NotStartedError(Exception):
    """The release does not run; the message says why."""


def present_state(options: Dict[str, Any]) -> state.State:
    """What the host remembers, in line with what nginx serves."""
    remembered = state.load(Path(options["stack_dir"]), options["service"])
    return state.reconcile(remembered, routing.loaded(routing.nginx_of(options)))


def values_of(params: Dict[str, Any]) -> secret_values.Values:
    """The values of the release's secrets. Raises NotStartedError, OSError, ValueError."""
    stack_dir, release = Path(params["stack"]["stack_dir"]), params["release"]
    given = secret_values.unpack(params["secrets"])
    if params["secrets_of"]:
        given.update(secret_values.of_release(stack_dir, params["secrets_of"]))
    else:
        # A release that ran here before has them already.
        given = {**secret_values.of_release(stack_dir, release["id"]), **given}
    names = (release.get("spec") or {}).get("secrets") or []
    missing = sorted(set(names) - given.keys())
    if missing:
        raise NotStartedError(f"there is no value for the secrets {', '.join(missing)} that the release names")
    return {name: given[name] for name in names}


def start(
    runtime: Runtime, params: Dict[str, Any], writes: List[Write], values: secret_values.Values
) -> Dict[str, Any]:
    """Start the release and wait for its health. Raises NotStartedError."""
    options, slot, release = params["stack"], params["slot"], params["release"]
    stack_dir = Path(options["stack_dir"])
    # Before anything can print one of them.
    secret_values.keep(stack_dir, release["id"], values)
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
        if options["runtime"] == "process":
            secret_values.private_folder(stack_dir / "logs")
        runtime.start(slot, params["fresh"])
        started = time.monotonic()
        seen = health.await_program(
            runtime, slot, health_question, timeout=params["timeout"], interval=params["interval"]
        )
        if not seen["ok"]:
            raise NotStartedError(health.complaint(runtime, slot, seen, params["lines"]))
    except (RuntimeFaultError, OSError, NotStartedError) as error:
        # While the values are still here.
        words = secret_values.masked(stack_dir, fault(error, stack_dir))
        if params["fresh"]:
            words += take_away(runtime, options, slot)
        raise NotStartedError(words) from error
    present = present_state(options)
    if present["slots"][slot] is not None:
        lives = {**present["slots"][slot], "life": runtime.life(slot)}
        state.save(stack_dir, {**present, "slots": {**present["slots"], slot: lives}})
    return {
        "start_s": round(started - began, 3),
        "healthy_s": round(time.monotonic() - started, 3),
        "address": runtime.address(slot),
    }


def take_away(runtime: Runtime, options: Dict[str, Any], slot: str) -> str:
    """Stop a release that is not to run, and forget it. Answers what went wrong with that, empty when nothing."""
    try:
        runtime.stop(slot)
        forget(options, slot)
    except (RuntimeFaultError, state.StateError, OSError) as error:
        return f"\n{slot} could not be taken away again: {error}"
    return ""


def forget(options: Dict[str, Any], slot: str) -> None:
    """Forget the release in ``slot``, and its secrets. Raises StateError, OSError."""
    stack_dir = Path(options["stack_dir"])
    after = state.without(present_state(options), slot)
    state.save(stack_dir, after)
    secret_values.forget(stack_dir, after)


def main() -> None:
    """Entry point of the module."""
    clear_surroundings()
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
            "secrets": {"type": "str", "default": "", "no_log": True},
            # An id, nothing to hide.
            "secrets_of": {"type": "str", "default": "", "no_log": False},
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
                    forget(options, slot)
            module.exit_json(changed=stopped)
        shown = outdated(stack_dir, params["files"])
        values = values_of(params)
        described = secret_values.start_files(options["runtime"], slot, params["secret_files"], values)
        hidden = outdated(stack_dir, described)
        diff = differences(shown)
        if module.check_mode:
            module.exit_json(changed=True, diff=diff, start_s=0.0, healthy_s=0.0, address=None)
        with lock.working(stack_dir, options.get("run_id")):
            result = start(runtime, params, [*shown, *hidden], values)
    except (NotStartedError, RuntimeFaultError, lock.LockError, state.StateError, OSError, ValueError) as error:
        module.fail_json(msg=secret_values.masked(stack_dir, fault(error, stack_dir)))
    module.exit_json(changed=True, diff=diff, **result)


if __name__ == "__main__":
    main()
