#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Have Python environments, each keyed by its content."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_python_env
short_description: Have Python environments, each keyed by its content
version_added: "0.1.0"
description:
  - Builds a virtual environment below O(base) in a folder named after a hash of its requirements, the Python version
    and the platform. Other requirements make another folder; an environment in use is never changed.
  - An environment whose build was killed is recognised and built again. Concurrent runs wait for each other.
  - pip's own settings hold (C(PIP_INDEX_URL), C(PIP_FIND_LINKS), C(PIP_CERT), pip.conf). Needs no root.
options:
  base:
    description: Folder that holds the environments.
    type: path
    required: true
  envs:
    description: The environments.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: What it is for; used in messages., type: str, required: true}
      requirements:
        description: Lines of a requirements file, pinned, with hashes if wanted.
        type: list
        elements: str
        required: true
      optional:
        description: Further lines that are left out when they cannot be installed.
        type: list
        elements: str
        default: []
      provides:
        description: Glob patterns below the environment, each of which must match a file afterwards.
        type: list
        elements: str
        default: []
      python: {description: Interpreter to build with. Left out, the one that runs the module., type: str}
      minimum: {description: Oldest Python version that will do., type: str}
attributes:
  check_mode:
    description: Says which environments would be built, and where.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
  idempotent:
    description: A finished environment is left alone.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Have supervisor
  swiftdeploy_python_env:
    base: ~/.swiftdeploy/parts
    envs:
      - name: tools
        requirements: [supervisor==4.3.0]
        provides: [bin/supervisord]
"""

RETURN = r"""
envs:
  description: Each environment under its name.
  returned: success
  type: dict
  sample:
    tools:
      path: /home/deploy/.swiftdeploy/parts/env-0f3a6f1b2c4d
      bin: /home/deploy/.swiftdeploy/parts/env-0f3a6f1b2c4d/bin
      changed: true
      python_version: 3.11.2
      left_out: []
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target.keep import PartsError
from ansible.module_utils.swiftdeploy_target.python_env import build, env_of, look, use
from ansible.module_utils.swiftdeploy_target.surroundings import clear_surroundings

ENV_SPEC = {
    "name": {"type": "str", "required": True},
    "requirements": {"type": "list", "elements": "str", "required": True},
    "optional": {"type": "list", "elements": "str", "default": []},
    "provides": {"type": "list", "elements": "str", "default": []},
    "python": {"type": "str"},
    "minimum": {"type": "str"},
}


def main() -> None:
    """Entry point of the module."""
    clear_surroundings()
    module = AnsibleModule(
        argument_spec={
            "base": {"type": "path", "required": True},
            "envs": {"type": "list", "elements": "dict", "required": True, "options": ENV_SPEC},
        },
        supports_check_mode=True,
    )
    base = Path(module.params["base"]).absolute()
    answer = {}
    try:
        for env in map(env_of, module.params["envs"]):
            seen = look(base, env)
            changed = not seen.ready
            if changed and not module.check_mode:
                seen = build(base, env)
            if not module.check_mode:
                use(seen)
            answer[env.name] = {
                "path": str(seen.path),
                "bin": str(seen.path / "bin"),
                "changed": changed,
                "python_version": seen.python_version,
                "left_out": list(seen.left_out),
            }
    except PartsError as error:
        module.fail_json(msg=str(error), envs=answer)
    except OSError as error:
        module.fail_json(
            msg=f"cannot install Python environments below {base}: {error}; make the folder writable, "
            "free some space, or choose another one",
            envs=answer,
        )
    module.exit_json(changed=any(env["changed"] for env in answer.values()), envs=answer)


if __name__ == "__main__":
    main()
