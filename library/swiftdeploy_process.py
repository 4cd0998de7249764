#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Start or stop a program of the process runtime."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_process
short_description: Start or stop a program of the process runtime
version_added: "0.1.0"
description:
  - Runs the stack's programs under one supervisord that belongs to the stack; starts supervisord itself when it is
    not there, and ends what a killed one left behind. Where O(stack) says so they are units of systemd instead.
options:
  stack:
    description: The C(options) that C(swiftdeploy_stack) returned for this host.
    type: dict
    required: true
  program:
    description: Which program. V(all) with O(state=stopped) ends all, and supervisord itself.
    type: str
    choices: [opa, nginx, blue, green, all]
    required: true
  state:
    description: Whether it should run.
    type: str
    choices: [started, restarted, stopped]
    default: started
  supervisord:
    description: Path of the supervisord program.
    type: path
attributes:
  check_mode:
    description: Says what would change and starts and stops nothing.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
  idempotent:
    description: A program that is in the wanted state is left alone.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Start the green slot
  swiftdeploy_process:
    stack: "{{ stack_options }}"
    supervisord: /home/deploy/.swiftdeploy/parts/env-1/bin/supervisord
    program: green
"""

RETURN = r"""
orphans:
  description: Process ids that an earlier, killed supervisord had left and that were ended.
  returned: when O(program=all)
  type: list
  elements: int
"""

from typing import Any, Dict, Union

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target.runtime import parent_of
from ansible.module_utils.swiftdeploy_target.supervisor import (
    Supervisor,
    SupervisorError,
    marked_processes,
)
from ansible.module_utils.swiftdeploy_target.surroundings import clear_surroundings
from ansible.module_utils.swiftdeploy_target.systemd import Systemd

RUNNING = (10, 20)  # supervisord's STARTING and RUNNING


def apply(supervisor: Union[Supervisor, Systemd], program: str, state: str, check: bool) -> bool:
    """Bring ``program`` to ``state``; True when that was, or would be, a change."""
    if program == "all":
        there = supervisor.answers() or bool(marked_processes(supervisor.folder))
        return there if check else supervisor.shutdown()
    runs = supervisor.info().get(program, {}).get("state") in RUNNING
    if check:
        return runs if state == "stopped" else state == "restarted" or not runs
    if state == "stopped":
        return supervisor.stop(program) if runs else False
    supervisor.start()
    changed = supervisor.load(program)
    if state == "restarted" and runs:
        supervisor.stop(program)
    return supervisor.run(program) or changed


def main() -> None:
    """Entry point of the module."""
    clear_surroundings()
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "dict", "required": True},
            "program": {"type": "str", "required": True, "choices": ["opa", "nginx", "blue", "green", "all"]},
            "state": {"type": "str", "choices": ["started", "restarted", "stopped"], "default": "started"},
            "supervisord": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params: Dict[str, Any] = module.params
    supervisor = parent_of(params["stack"], params["supervisord"])
    try:
        changed = apply(supervisor, params["program"], params["state"], module.check_mode)
    except (SupervisorError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
