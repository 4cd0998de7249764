#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Remember a release in the host's state."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_release
short_description: Remember a release in the host's state
version_added: "0.1.0"
description:
  - O(state=starting) writes down what is about to be started in a slot, before it is started, so that a run that is
    killed leaves a trace of it.
  - O(state=live) writes down that a release has the traffic. O(state=empty) forgets what is in a slot.
options:
  stack:
    description: The C(options) that C(swiftdeploy_stack) returned for this host.
    type: dict
    required: true
  release:
    description: The release record, with its C(slot).
    type: dict
  slot:
    description: The slot to forget, with O(state=empty).
    type: str
    choices: [blue, green]
  leaves:
    description: With O(state=live), what becomes of the release that was live before.
    type: str
    choices: [replaced, rolled_back]
    default: replaced
  state:
    description: What happened.
    type: str
    choices: [starting, live, empty]
    required: true
attributes:
  check_mode:
    description: Says what would change.
    support: full
  diff_mode:
    description: Has nothing to show that the other tasks do not.
    support: none
  idempotent:
    description: The same fact twice changes nothing.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Remember what is about to start
  swiftdeploy_release:
    stack: "{{ stack_options }}"
    state: starting
    release: "{{ rollout_release }}"
"""

RETURN = r"""
observed_state:
  description: The host's state afterwards.
  returned: success
  type: dict
"""

from pathlib import Path
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target import routing, state


def advance(current: Dict[str, Any], params: Dict[str, Any]) -> Dict[str, Any]:
    """The state after what ``params`` says happened. Pure."""
    if params["state"] == "live":
        return state.commit(current, params["release"], params["stack"]["runtime"], params["leaves"])
    if params["state"] == "starting":
        release = {**params["release"], "outcome": "starting"}
        slots = {**current["slots"], release["slot"]: release}
        return {**current, "runtime": params["stack"]["runtime"], "slots": slots}
    return {**current, "slots": {**current["slots"], params["slot"]: None}}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "dict", "required": True},
            "release": {"type": "dict"},
            "leaves": {"type": "str", "choices": ["replaced", "rolled_back"], "default": "replaced"},
            "slot": {"type": "str", "choices": list(state.SLOTS)},
            "state": {"type": "str", "required": True, "choices": ["starting", "live", "empty"]},
        },
        required_if=[
            ("state", "starting", ["release"]),
            ("state", "live", ["release"]),
            ("state", "empty", ["slot"]),
        ],
        supports_check_mode=True,
    )
    params: Dict[str, Any] = module.params
    options = params["stack"]
    stack_dir = Path(options["stack_dir"])
    try:
        before = state.load(stack_dir, options["service"])
        serving = routing.loaded(options["base_url"])
        current = state.reconcile(before, serving["live"] if serving else None)
        after = advance(current, params)
        if after != before and not module.check_mode:
            stack_dir.mkdir(parents=True, exist_ok=True)
            state.save(stack_dir, after)
    except (state.StateError, OSError) as error:
        module.fail_json(msg=f"cannot remember the release: {error}")
    module.exit_json(changed=after != before, observed_state=after)


if __name__ == "__main__":
    main()
