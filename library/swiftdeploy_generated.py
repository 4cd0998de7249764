#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_generated
short_description: Write rendered files to the controller
version_added: "0.1.0"
description:
  - Brings a folder of the controller to a set of files; each is moved into place whole.
  - Runs in the controller's own process. For files on hosts there is M(swiftdeploy_files).
options:
  root:
    description: Folder on the controller. Made when it is missing.
    type: path
    required: true
  state:
    description: V(absent) removes the folder, and the two above it where they are empty then.
    type: str
    choices: [present, absent]
    default: present
  files:
    description: The files.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Path below O(root)., type: str, required: true}
      content: {description: Text of the file., type: str, required: true}
  absent:
    description: Paths below O(root) where no file is to be.
    type: list
    elements: str
    default: []
  only:
    description: Glob below O(root); files that match it and are not in O(files) are removed.
    type: str
attributes:
  check_mode:
    description: Says what would change and changes nothing.
    support: full
  diff_mode:
    description: Shows each file's change.
    support: full
  idempotent:
    description: A second run with the same files changes nothing.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Write what was rendered
  swiftdeploy_generated:
    root: generated/web1
    files:
      - path: nginx.conf
        content: "{{ render_nginx.text }}"
"""

RETURN = r"""
changed_paths:
  description: Paths, relative to the root, that changed or would change.
  returned: with O(state=present)
  type: list
  elements: str
  sample: [nginx.conf]
"""
