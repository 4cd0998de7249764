#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Look at a host that is to be made ready, and say what it lacks."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_bare_host
short_description: Look at a host that is to be made ready, and say what it lacks
version_added: "0.1.0"
description:
  - Finds out which system a host has, whether a Docker engine answers, where one would come from, which packages are
    missing, and whether systemd can run the stack's programs.
  - Installs nothing. Works on a host that has Python and nothing else.
options:
  docker:
    description: Where Docker is to come from.
    type: str
    choices: [auto, distribution, docker, present, none]
    default: auto
  runtime:
    description: The runtime that the inventory asks for.
    type: str
    choices: [auto, docker, process]
    default: auto
  units:
    description: Whether systemd is to run the programs of the process runtime; V(auto) where there is no Docker.
    type: str
    choices: [auto, always, never]
    default: auto
  user:
    description: The user that SwiftDeploy works as on the host.
    type: str
    required: true
  home:
    description: Folder of everything that SwiftDeploy keeps on the host; V(~) is that user's home.
    type: str
    required: true
attributes:
  check_mode:
    description: Changes nothing.
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
- name: Look at the host
  swiftdeploy_bare_host:
    user: deploy
    home: ~/.swiftdeploy
  register: host
"""

RETURN = r"""
host:
  description: The host as it is and what it lacks, see C(module_utils/swiftdeploy_target/bare_host.py).
  returned: always
  type: dict
  sample:
    release: Debian GNU/Linux 12 (bookworm)
    docker: distribution
    missing: [docker.io, docker-compose]
    problems: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target import bare_host


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "docker": {
                "type": "str",
                "choices": ["auto", "distribution", "docker", "present", "none"],
                "default": "auto",
            },
            "runtime": {"type": "str", "choices": ["auto", "docker", "process"], "default": "auto"},
            "units": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
            "user": {"type": "str", "required": True},
            "home": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        found = bare_host.look(module.params)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"the host cannot be looked at: {error}")
    module.exit_json(changed=False, host=found)


if __name__ == "__main__":
    main()
