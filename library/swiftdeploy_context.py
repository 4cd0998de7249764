#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_context
short_description: Say who runs this playbook, from where, since when
version_added: "0.1.0"
description:
  - Runs on the controller. All hosts of one C(ansible-playbook) run get the same RV(run_id).
options: {}
attributes:
  check_mode:
    description: Reads only.
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
- name: Learn who runs this
  swiftdeploy_context:
  register: operation_context
"""

RETURN = r"""
run_id: {description: The same for the whole run., returned: always, type: str}
actor: {description: Login name and controller., returned: always, type: str, sample: alice@laptop}
controller: {description: Name of the controller., returned: always, type: str}
pid: {description: Process id of the run on the controller., returned: always, type: int}
process_start: {description: Tells two processes with the same id apart., returned: always, type: str}
started: {description: UTC time., returned: always, type: str, sample: "2026-11-21T03:55:00.000Z"}
started_unix: {description: The same in seconds since 1970., returned: always, type: float}
folder: {description: Folder that the playbook is run from., returned: always, type: str}
"""
