#!/usr/bin/python
# The work is done on the controller by action_plugins/swiftdeploy_step.py; this file is its documentation.

from __future__ import annotations

DOCUMENTATION = r"""
module: swiftdeploy_step
short_description: Show a step of a SwiftDeploy run
version_added: 0.1.0
description:
  - The callback C(swiftdeploy) prints O(msg) as one line with the time since the host's previous step.
  - Put it after the work it speaks of.
  - At least one of the options is needed.
options:
  msg:
    description: What was done, a few words.
    type: str
  output:
    description: Text to print as it is, for example a status table.
    type: str
  done:
    description: Whether the step came to what it was for; if not, its line has a cross. The play goes on.
    type: bool
    default: true
  diff:
    description:
      - What differs, with C(before), C(after), C(before_header) and C(after_header). Shown in check mode with
        C(--diff); the task then says that it would change something.
    type: dict
  context:
    description:
      - What this host is in the middle of. C(event), C(run_id), C(actor), C(service), C(version), C(mode) and
        C(history_path) are used.
      - When the host becomes unreachable later in the run, the callback C(swiftdeploy_history) records the event
        with C(_failed), unless this event's end was recorded before. When the run is killed, the next one records it
        with C(_interrupted).
    type: dict
attributes:
  check_mode:
    description: Can run in check mode.
    support: full
  diff_mode:
    description: Shows O(diff) in check mode.
    support: partial
  idempotent:
    description: Changes nothing.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Say what this run is about
  swiftdeploy_step:
    context:
      event: deploy
      run_id: "{{ run_id }}"
      service: app
      version: "1.0.0"
      mode: stable

- name: Say that OPA is ready
  swiftdeploy_step:
    msg: OPA ready
"""

RETURN = r"""
swiftdeploy_step:
  description: The step.
  returned: when O(msg) is given
  type: str
  sample: OPA ready
swiftdeploy_done:
  description: False.
  returned: when O(done) is false
  type: bool
  sample: false
swiftdeploy_output:
  description: The text.
  returned: when O(output) is given
  type: str
  sample: ""
swiftdeploy_context:
  description: The context.
  returned: when O(context) is given
  type: dict
  sample: {"event": "deploy", "run_id": "0b9e"}
"""
