#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_context
short_description: Say who runs this playbook, from where, since when, from which commit
version_added: "0.1.0"
description:
  - Runs on the controller. All hosts of one C(ansible-playbook) run get the same RV(run_id).
options:
  commit_of:
    description:
      - A file, the manifest. RV(commit) is then the commit that is checked out in its folder, or in the folder that the
        playbook is run from when its own is in no repository.
    type: path
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

- name: Learn who runs this, and from which commit
  swiftdeploy_context:
    commit_of: manifest.yaml
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
commit:
  description:
    - The commit as C(id), C(time) (UTC, when it was committed) and C(dirty) (whether files that git tracks differ
      from it). Null without git, without a repository, or when git takes longer than five seconds.
  returned: when O(commit_of) is given
  type: dict
  sample: {id: 4be9d14be9d14be9d14be9d14be9d14be9d14be9, time: "2026-11-09T07:40:00Z", dirty: false}
"""
