#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Install a set of rendered files as one change."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_files
short_description: Install a set of rendered files as one change
version_added: "0.1.0"
description:
  - Compares each file with what is there, lets a program judge the whole set before any of it is visible,
    and moves each changed file into place whole.
  - One task for a set of files costs a host one module start instead of one a file.
options:
  root:
    description: Folder that the paths are relative to. Made when it is missing, V(~) is expanded.
    type: path
    required: true
  root_mode:
    description: Permissions of the folder when it is made.
    type: str
    default: "0755"
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path: {description: Path below O(root)., type: str, required: true}
      content: {description: Text of the file., type: str, required: true}
      mode: {description: Permissions., type: str, default: "0644"}
  folders:
    description: Folders that something else writes to; made, and given these permissions.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Path below O(root)., type: str, required: true}
      mode: {description: Permissions., type: str, required: true}
  absent:
    description: Paths below O(root) that must not be there.
    type: list
    elements: str
    default: []
  only:
    description: Glob below O(root); files that match it and are not in O(files) are removed.
    type: str
  validate:
    description:
      - Program and arguments that must end with status 0 before anything is moved into place, run only when
        something would change. V(%s) stands for a folder that holds the new set.
    type: list
    elements: str
  secret:
    description: Whether the contents must not be shown in a diff.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says what would change and judges the new set, but moves nothing into place.
    support: full
  diff_mode:
    description: Shows each file's change unless O(secret) is set.
    support: full
  idempotent:
    description: A second run with the same files changes nothing.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Install the compose file
  swiftdeploy_files:
    root: ~/.swiftdeploy/app
    files:
      - path: docker-compose.yml
        content: "{{ lookup('ansible.builtin.template', 'docker-compose.yml.j2') }}"
"""

RETURN = r"""
changed_paths:
  description: Paths, relative to the root, that changed or would change.
  returned: always
  type: list
  elements: str
  sample: [docker-compose.yml]
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target.command import placed, run
from ansible.module_utils.swiftdeploy_target.files import change, fault
from ansible.module_utils.swiftdeploy_target.surroundings import clear_surroundings


def judge(files: List[Dict[str, Any]], arguments: List[str]) -> str:
    """What the validating program has against the set, empty when nothing."""
    staged = Path(tempfile.mkdtemp(prefix="swiftdeploy-"))
    try:
        # A program in a container is another user than the one that runs this module.
        staged.chmod(0o755)
        for entry in files:
            target = staged / entry["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(entry["content"], encoding="utf-8")
        done = run(placed(arguments, staged), timeout=120.0)
        return "" if done.ok else done.text.replace(str(staged), "") or f"status {done.status}"
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def main() -> None:
    """Entry point of the module."""
    clear_surroundings()
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "root_mode": {"type": "str", "default": "0755"},
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "str", "required": True},
                    "content": {"type": "str", "required": True},
                    "mode": {"type": "str", "default": "0644"},
                },
            },
            "folders": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"path": {"type": "str", "required": True}, "mode": {"type": "str", "required": True}},
            },
            "absent": {"type": "list", "elements": "str", "default": []},
            "only": {"type": "str"},
            "validate": {"type": "list", "elements": "str"},
            "secret": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    root = Path(params["root"])
    try:
        wanted = change(root, params["files"], params["folders"], params["absent"], params["only"])
        diff = [] if params["secret"] else wanted.differences()
        complaint = judge(params["files"], params["validate"]) if wanted.writes and params["validate"] else ""
        if complaint:
            module.fail_json(
                msg=f"{params['validate'][0]} refuses the new files for {root}; nothing was changed. "
                f"It says: {complaint}"
            )
        paths = wanted.paths
        if not module.check_mode:
            wanted.apply(int(params["root_mode"], 8))
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"cannot install the files below {root}: {fault(error, root)}")
    module.exit_json(changed=bool(paths), changed_paths=paths, diff=diff)


if __name__ == "__main__":
    main()
