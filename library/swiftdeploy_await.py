#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Wait until a program of the stack answers."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_await
short_description: Wait until a program of the stack answers
version_added: "0.1.0"
description:
  - Asks the slot itself, not through the proxy, until its health path answers 2xx; or asks another port of this host.
  - Gives up early when the program has ended, and shows the last lines that it printed.
options:
  stack:
    description: The C(options) that C(swiftdeploy_stack) returned for this host.
    type: dict
    required: true
  program:
    description: Which program to wait for.
    type: str
    choices: [opa, nginx, blue, green]
    required: true
  url:
    description: What to ask. For a slot the default is its health path.
    type: str
  timeout:
    description: Seconds to wait.
    type: float
    default: 60.0
  interval:
    description: Seconds between two questions.
    type: float
    default: 1.0
  lines:
    description: How many of the program's last log lines to show when it does not answer.
    type: int
    default: 20
attributes:
  check_mode:
    description: Does not wait, since nothing was started.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Wait until the green slot is healthy
  swiftdeploy_await:
    stack: "{{ stack_options }}"
    program: green
    timeout: 60
"""

RETURN = r"""
seconds:
  description: How long it took.
  returned: success
  type: float
  sample: 1.2
ended:
  description: Whether the program keeps ending by itself, rather than running without an answer.
  returned: failure
  type: bool
  sample: true
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target import host_key, secret_values
from ansible.module_utils.swiftdeploy_target.health import await_program, complaint
from ansible.module_utils.swiftdeploy_target.runtime import make
from ansible.module_utils.swiftdeploy_target.state import StateError
from ansible.module_utils.swiftdeploy_target.surroundings import clear_surroundings


def main() -> None:
    """Entry point of the module."""
    clear_surroundings()
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "dict", "required": True},
            "program": {"type": "str", "required": True, "choices": ["opa", "nginx", "blue", "green"]},
            "url": {"type": "str"},
            "timeout": {"type": "float", "default": 60.0},
            "interval": {"type": "float", "default": 1.0},
            "lines": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, seconds=0.0)
    params = module.params
    try:
        runtime = make(params["stack"])
    except StateError as error:
        module.fail_json(msg=str(error))
    result = await_program(
        runtime,
        params["program"],
        # The engine is asked a question of its own.
        {"path": "/", "timeout": 2.0} if params["program"] == "opa" else params["stack"]["health"],
        timeout=params["timeout"],
        interval=params["interval"],
        url=params["url"],
        proof=host_key.headers(Path(params["stack"]["stack_dir"])) if params["program"] == "nginx" else None,
    )
    if not result["ok"]:
        words = complaint(runtime, params["program"], result, params["lines"])
        stack_dir = Path(params["stack"]["stack_dir"])
        said = secret_values.masked(stack_dir, words)
        module.fail_json(msg=said, seconds=result["seconds"], ended=result["ended"])
    module.exit_json(changed=False, seconds=result["seconds"])


if __name__ == "__main__":
    main()
