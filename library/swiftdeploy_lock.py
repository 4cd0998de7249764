#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Take or give back the host's lock."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_lock
short_description: Take or give back the host's lock
version_added: "0.1.0"
description:
  - One run at a time works on a stack. The lock says who holds it, since when and for what.
  - A lock whose holder ran on this controller and is gone is taken over, which is reported; any other is broken
    only when O(break_lock) says so.
  - The action plugin of the same name tells whether a holder on this controller still lives.
options:
  stack:
    description: The C(options) that C(swiftdeploy_stack) returned for this host.
    type: dict
    required: true
  state:
    description: Whether to take the lock or to give it back.
    type: str
    choices: [held, free]
    required: true
  claim:
    description: Who takes it. Keys C(run_id), C(actor), C(since), C(action), C(controller), C(pid).
    type: dict
    required: true
  break_lock:
    description: Take the lock from whoever holds it.
    type: bool
    default: false
  instead_of:
    description: Run whose lock is taken over; the action plugin sets it.
    type: str
attributes:
  check_mode:
    description: Takes nothing, and says who holds the lock.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
  idempotent:
    description: A lock that is ours is left alone.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Take the host's lock
  swiftdeploy_lock:
    stack: "{{ stack_options }}"
    state: held
    claim: "{{ operation_claim }}"
"""

RETURN = r"""
holder:
  description: Who holds the lock when it is not ours.
  returned: when it is held by another run
  type: dict
broken:
  description: The holder whose lock was taken over.
  returned: when a lock was broken
  type: dict
"""

from pathlib import Path
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target import lock


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "dict", "required": True},
            "state": {"type": "str", "required": True, "choices": ["held", "free"]},
            "claim": {"type": "dict", "required": True},
            "break_lock": {"type": "bool", "default": False},
            "instead_of": {"type": "str"},
        },
        supports_check_mode=True,
    )
    params: Dict[str, Any] = module.params
    stack_dir = Path(params["stack"]["stack_dir"])
    try:
        if params["state"] == "free":
            # The lock is not part of what a play changes: taking and giving it back leaves a host as it was.
            if not module.check_mode:
                lock.release(stack_dir, params["claim"]["run_id"])
            module.exit_json(changed=False)
        if module.check_mode:
            module.exit_json(changed=False, holder=lock.holder(stack_dir))
        stack_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
        present = lock.acquire(stack_dir, params["claim"], params["instead_of"])
    except OSError as error:
        module.fail_json(msg=f"cannot use the lock in {stack_dir}: {error}")
    module.exit_json(changed=False, holder=present)


if __name__ == "__main__":
    main()
