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
  - Tests the configuration with the nginx that serves, moves it into place, reloads, waits until nginx itself
    reports it, and waits for the end of the workers that still serve the old one.
  - An invalid configuration is never loaded.
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
    description: Slot that the configuration routes to.
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
  drain_timeout:
    description: Seconds to wait for requests in flight.
    type: float
    default: 35.0
attributes:
  check_mode:
    description: Lets nginx judge the configuration where nginx is to be had, and loads nothing.
    support: full
  diff_mode:
    description: Shows the change of nginx.conf.
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
  description: Whether all old workers ended in time.
  returned: success
  type: bool
introduce_s:
  description: Seconds until the slot answered through nginx, before any traffic moved.
  returned: success
  type: float
reload_s:
  description: Seconds from the signal until nginx reported the new configuration.
  returned: success
  type: float
drain_s:
  description: Seconds until the last old worker had ended.
  returned: success
  type: float
"""

from pathlib import Path
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target import routing
from ansible.module_utils.swiftdeploy_target.files import read_bytes
from ansible.module_utils.swiftdeploy_target.runtime import make


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "dict", "required": True},
            "config": {"type": "str", "required": True},
            "config_hash": {"type": "str", "required": True},
            "drain_timeout": {"type": "float", "default": 35.0},
            "slot": {"type": "str", "required": True, "choices": ["blue", "green"]},
            "place_only": {"type": "bool", "default": False},
            "introduce": {"type": "str"},
            "introduce_hash": {"type": "str"},
        },
        required_together=[("introduce", "introduce_hash")],
        supports_check_mode=True,
    )
    params: Dict[str, Any] = module.params
    options = params["stack"]
    folder = Path(options["stack_dir"]) / "config"
    path = folder / routing.CONFIG_NAME
    before = (read_bytes(path) or b"").decode(errors="replace")
    diff = {"before": before, "after": params["config"], "before_header": str(path), "after_header": str(path)}
    if module.check_mode:
        serving = routing.loaded(options["base_url"])
        changed = serving is None or serving["config"] != params["config_hash"] or before != params["config"]
        module.exit_json(
            changed=changed, diff=diff if changed else {}, drained=True, introduce_s=0.0, reload_s=0.0, drain_s=0.0
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        result = routing.switch(
            make(options),
            folder,
            routing.Config(params["config"], params["config_hash"]),
            base_url=options["base_url"],
            drain=params["drain_timeout"],
            introduce=routing.Config(params["introduce"], params["introduce_hash"]) if params["introduce"] else None,
            slot=params["slot"],
            place_only=params["place_only"],
        )
    except (routing.RoutingError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(diff=diff if result["changed"] else {}, **result)


if __name__ == "__main__":
    main()
