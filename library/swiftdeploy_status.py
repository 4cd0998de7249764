#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_status
short_description: Show and record how a host's stack does now
version_added: "0.1.0"
description:
  - Looks at the stack, measures every running slot, and asks the policy engine what it would say.
  - With C(until) and C(delay) on the task every retry is a refresh; samples of earlier refreshes are kept, so that
    figures cover about C(canary.window_seconds).
  - The last samples stay on the host as well, so that the gate of a later run need not wait for a window.
  - A host that gives no answer is no failure, but a refresh that says so. It is asked again at the next one.
  - With O(watch) it does none of that. It tells the callback C(swiftdeploy) how the run is to be shown, and fails
    where it cannot be shown like that.
options:
  manifest: {description: The loaded manifest. Needed without O(watch)., type: dict}
  context: {description: "Who runs this, from C(swiftdeploy_context). Needed without O(watch).", type: dict}
  stack: {description: The options of C(swiftdeploy_stack). Needed without O(watch)., type: dict}
  environment: {description: Environment whose thresholds hold. Needed without O(watch)., type: str}
  watch:
    description: How the run is shown.
    type: dict
    suboptions:
      format: {description: V(text) or V(json)., type: str, required: true}
      once: {description: Whether there is one refresh only., type: bool, required: true}
      interval: {description: Seconds between two refreshes., type: int, required: true}
      hosts: {description: Names of all hosts of the run., type: list, elements: str, required: true}
      forks: {description: How many hosts Ansible works on at a time., type: int, required: true}
  probes:
    description: How many requests of our own to send at a refresh, so that a quiet service has evidence; 0 sends none.
    type: int
    default: 20
attributes:
  check_mode:
    description: Changes nothing; in check mode the refresh is not recorded, and no sample is kept.
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
- name: Show the status every 5 s
  swiftdeploy_status:
    manifest: "{{ manifest_config }}"
    context: "{{ context_run }}"
    stack: "{{ status_stack }}"
    environment: production
  register: status_shown
  until: status_once
  retries: 1000000
  delay: 5
"""

RETURN = r"""
status:
  description: C(observed) of C(swiftdeploy_stack), C(evidence) of each slot, C(policy) of each domain.
  returned: without O(watch); null where the host gave no answer
  type: dict
swiftdeploy_status:
  description: The view of the host that is shown; docs/status.md has its keys.
  returned: without O(watch)
  type: dict
swiftdeploy_watch:
  description: O(watch) for the callback, with the path of the history.
  returned: with O(watch)
  type: dict
"""
