#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_thresholds
short_description: Check what the policies hold decisions against
version_added: "0.1.0"
description:
  - Reads C(thresholds/data.yaml) of a folder of policies and checks it against C(thresholds.schema.json), and against
    what a schema cannot say, such as the names of time zones.
  - Fails with all problems at once. Each has file, line, key, what was found and what is allowed.
  - Runs on the controller, so a wrong file is told before it reaches a host.
options:
  path:
    description: Folder of the policies on the controller.
    type: path
    required: true
attributes:
  check_mode:
    description: Changes nothing, so it answers the same in check mode.
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
- name: Check the thresholds
  swiftdeploy_thresholds:
    path: policies
"""

RETURN = r"""
problems:
  description: Everything that is wrong. RV(ignore:msg) has the same as text, one line each.
  returned: always
  type: list
  elements: dict
  contains:
    file: {description: The file as shown to people., type: str, sample: policies/thresholds/data.yaml}
    line: {description: Line counted from 1. V(null) where the whole file is meant., type: int, sample: 11}
    key: {description: Path of the key., type: str, sample: infrastructure.default.disk_free_gb.min}
    message: {description: What was found and what is allowed., type: str}
"""
