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
gateway:
  description: The address under which nginx sees requests of this host, besides loopback; null where there is none.
  returned: success
  type: str
log:
  description: The last lines that the program printed.
  returned: failure
  type: list
  elements: str
"""

import time
from typing import Any, Dict, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target.http import try_get
from ansible.module_utils.swiftdeploy_target.runtime import Runtime, make

FIRST_INTERVAL = 0.05
GONE_SECONDS = 3.0


def question(runtime: Runtime, program: str, url: Optional[str], health_path: str) -> Optional[str]:
    """What to ask now, None while the program has no address yet."""
    if url is not None:
        return url
    address = runtime.address(program)
    return f"http://{address}{health_path}" if address else None


def wait(runtime: Runtime, params: Dict[str, Any]) -> Dict[str, Any]:
    """{"ok", "seconds", "why"}."""
    program, options = params["program"], params["stack"]
    started = time.monotonic()
    pause, why, last_seen = FIRST_INTERVAL, "it has no address", started
    while True:
        url = question(runtime, program, params["url"], options["health_path"])
        answer = None
        if url is not None:
            answer, why = try_get(url, float(options["health_timeout"]))
        now = time.monotonic()
        if answer is not None and 200 <= answer.status < 300:
            return {"ok": True, "seconds": round(now - started, 3), "why": ""}
        if answer is not None:
            why = f"it answers {answer.status}"
        if runtime.running().get(program):
            last_seen = now
        if now - last_seen > GONE_SECONDS:
            return {"ok": False, "seconds": round(now - started, 3), "why": "it keeps ending by itself"}
        if now - started > params["timeout"]:
            return {"ok": False, "seconds": round(now - started, 3), "why": why}
        # Quick at first, so that a fast start is seen at once; then at the pace that was asked for.
        time.sleep(min(pause, params["interval"]))
        pause *= 1.3


def main() -> None:
    """Entry point of the module."""
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
    runtime = make(module.params["stack"])
    result = wait(runtime, module.params)
    if not result["ok"]:
        log = runtime.logs(module.params["program"], module.params["lines"])
        shown = "\n".join(f"    {line}" for line in log) or "    (it printed nothing)"
        module.fail_json(
            msg=f"{module.params['program']} was not healthy after {result['seconds']:.1f} s: {result['why']}. "
            f"Its last lines:\n{shown}",
            log=log,
            seconds=result["seconds"],
        )
    module.exit_json(changed=False, seconds=result["seconds"], gateway=runtime.gateway())


if __name__ == "__main__":
    main()
