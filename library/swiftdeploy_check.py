#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Let programs judge rendered files without installing them."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_check
short_description: Let programs judge rendered files without installing them
version_added: "0.1.0"
description:
  - Puts each set of files into a temporary folder, runs the program on it, and collects what all of them say.
  - Nothing is left behind, and a program that refuses is a result, not a failure of the task.
options:
  checks:
    description: The checks, run in order.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: What is checked; as it is said when it passes., type: str, required: true}
      files: {description: Files with C(path) and C(content)., type: list, elements: dict, required: true}
      argv:
        description: Program and arguments; V(%s) stands for the folder of the files.
        type: list
        elements: str
        required: true
      image:
        description: Container image that the program is in. Without it on the host the check is RV(unknown).
        type: str
      stack:
        description: Stack options; the copy of the certificate that the files name is put beside them.
        type: dict
      foreign_ports:
        description: Whether it passes where all that is wrong is that this user may not listen on its ports.
        type: bool
        default: false
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
- name: Judge the rendered nginx.conf
  swiftdeploy_check:
    checks:
      - name: nginx accepts the rendered nginx.conf
        files:
          - path: nginx.conf
            content: "{{ render_nginx.text }}"
        argv: [nginx, -t, -q, -p, "%s", -e, stderr, -c, nginx.conf]
"""

RETURN = r"""
passed: {description: Names of the checks that passed., returned: always, type: list, elements: str}
problems: {description: What the programs said against the files., returned: always, type: list, elements: str}
unknown: {description: Checks whose program is not there yet., returned: always, type: list, elements: str}
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any, Dict, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target import certificate
from ansible.module_utils.swiftdeploy_target.command import placed, run
from ansible.module_utils.swiftdeploy_target.runtime import refused_ports_alone
from ansible.module_utils.swiftdeploy_target.surroundings import clear_surroundings

NOT_FOUND = 127


def judge(check: Dict[str, Any], folder: Path) -> Tuple[str, str]:
    """(passed | problems | unknown, words) for one check whose files go to ``folder``."""
    image = check["image"]
    if image and not run(["docker", "image", "inspect", "--format", "{{.Id}}", "--", image]).ok:
        return "unknown", f"{check['name']}: not checked, the image {image} is not on this host yet"
    # A program in a container is another user than the one that runs this module.
    folder.chmod(0o755)
    for entry in check["files"]:
        target = folder / entry["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(entry["content"], encoding="utf-8")
    stack = check["stack"] or {}
    if stack.get("tls") and stack["tls"]["digest"]:
        certificate.place(folder, stack["tls"], certificate.owner_of(stack))
    done = run(placed(check["argv"], folder), timeout=120.0)
    if done.status == NOT_FOUND:
        return "unknown", f"{check['name']}: not checked, {check['argv'][0]} is not on this host yet"
    if done.ok or (check["foreign_ports"] and refused_ports_alone(done.err)):
        return "passed", check["name"]
    return "problems", f"not true that {check['name']}: {done.text.replace(str(folder) + '/', '')}"


def main() -> None:
    """Entry point of the module."""
    clear_surroundings()
    module = AnsibleModule(
        argument_spec={
            "checks": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "files": {"type": "list", "elements": "dict", "required": True},
                    "argv": {"type": "list", "elements": "str", "required": True},
                    "image": {"type": "str"},
                    "stack": {"type": "dict"},
                    "foreign_ports": {"type": "bool", "default": False},
                },
            },
        },
        supports_check_mode=True,
    )
    found: Dict[str, Any] = {"passed": [], "problems": [], "unknown": []}
    for check in module.params["checks"]:
        folder = Path(tempfile.mkdtemp(prefix="swiftdeploy-"))
        try:
            kind, words = judge(check, folder)
        except (certificate.CertificateError, OSError) as error:
            kind, words = "problems", f"not true that {check['name']}: {error}"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        found[kind].append(words)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
