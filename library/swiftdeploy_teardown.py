#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Take a stack away from its host."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_teardown
short_description: Take a stack away from its host
version_added: "0.1.0"
description:
  - Stops and removes what carries the mark of the stack, in whichever runtime it was made, and nothing else.
  - What cannot be made again stays unless O(data) asks for it. It is found by its mark, so that it can be asked for
    when the stack itself has been taken away before.
options:
  stack:
    description: The C(options) that C(swiftdeploy_stack) returned for this host.
    type: dict
    required: true
  clean:
    description: Remove the programs of the home too, unless other services there use them.
    type: bool
    default: false
  data:
    description:
      - Remove the data for ever. The volumes of the service, its logs, the decisions of the policy engine, and the
        host's log of what was switched.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says what would be removed and what would stay, and touches nothing.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
  idempotent:
    description: Where nothing is left nothing is changed.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Take the stack away, with the programs that nobody else uses
  swiftdeploy_teardown:
    stack: "{{ stack_options }}"
    clean: true
"""

RETURN = r"""
removed:
  description: What was, or would be, removed, in words.
  returned: success
  type: list
  elements: str
  sample: [container swiftdeploy-app-nginx, network swiftdeploy-net_app]
kept:
  description: Data that stays, in words.
  returned: success
  type: list
  elements: str
  sample: [volume swiftdeploy-logs_app]
shared:
  description: With O(clean), who else uses the programs of the home, so that these stay.
  returned: success
  type: list
  elements: str
  sample: [service pay]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target import lock, removal
from ansible.module_utils.swiftdeploy_target.files import fault
from ansible.module_utils.swiftdeploy_target.state import StateError
from ansible.module_utils.swiftdeploy_target.supervisor import SupervisorError
from ansible.module_utils.swiftdeploy_target.surroundings import clear_surroundings


def main() -> None:
    """Entry point of the module."""
    clear_surroundings()
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "dict", "required": True},
            "clean": {"type": "bool", "default": False},
            "data": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options, data = module.params["stack"], module.params["data"]
    stack_dir = Path(options["stack_dir"])
    try:
        users = removal.neighbours(stack_dir) if module.params["clean"] else []
        shared = removal.shared_of(stack_dir) if module.params["clean"] and not users else []
        if module.check_mode:
            found = removal.find(options)
        else:
            stack_dir.mkdir(parents=True, exist_ok=True)
            with lock.working(stack_dir, options.get("run_id")):
                found = removal.find(options)
                removal.remove(found, options, data=data, shared=shared)
    except (removal.RemovalError, lock.LockError, StateError, SupervisorError, OSError) as error:
        module.fail_json(msg=fault(error, stack_dir))
    told = removal.words(found, stack_dir, data=data, shared=shared)
    module.exit_json(changed=bool(told["removed"]), shared=users if removal.shared_of(stack_dir) else [], **told)


if __name__ == "__main__":
    main()
