#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Have the OPA program on the machine that runs the playbook."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_opa_binary
short_description: Have the OPA program on the machine that runs the playbook
version_added: "0.1.0"
description:
  - Takes OPA from its cache, from the PATH, from a verified release download or by C(go install), in this order,
    and says which. Needs no root.
  - Meant to be delegated to the controller; hosts get the program by copy.
  - Concurrent runs wait for each other. A torn or broken program in the cache is replaced.
options:
  version:
    description:
      - The pinned version. Another one on the PATH will do when it is at least 1.15 and its major version is the same.
    type: str
    required: true
  cache_dir:
    description: Folder to keep the program in.
    type: path
    required: true
  platform:
    description: For which platform, as Go names it. Left out, for the machine that the module runs on.
    type: str
  sources:
    description: Where it may come from besides the cache, in the order to try.
    type: list
    elements: str
    choices: [path, download, go]
    default: [path, download, go]
  releases:
    description: Base address of the releases, for a mirror.
    type: str
    default: https://github.com/open-policy-agent/opa/releases/download
  sha256:
    description:
      - Checksum of the release file for each platform. For a platform that is not here the checksum is the one that
        the release publishes, and that counts only over https.
    type: dict
    default: {}
  static:
    description: Whether a program on the PATH must be statically linked, as one for an empty container image must.
    type: bool
    default: false
  connect_timeout:
    description: Seconds to wait for a connection and for each piece of an answer.
    type: float
    default: 5.0
  download_timeout:
    description: Seconds that a whole download may take.
    type: float
    default: 300.0
  build_timeout:
    description: Seconds that a build may take.
    type: float
    default: 900.0
attributes:
  check_mode:
    description: Looks into the cache and on the PATH, and says what it would try if the program is in neither.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
  idempotent:
    description: A second run finds the program and changes nothing.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Have OPA
  swiftdeploy_opa_binary:
    version: 1.22.0
    cache_dir: .cache/parts
  delegate_to: localhost
"""

RETURN = r"""
path:
  description: The program. In check mode where it would be.
  returned: success
  type: str
  sample: /home/me/swiftdeploy/.cache/parts/opa-1.22.0-linux-amd64/opa
version:
  description: Its version.
  returned: success
  type: str
  sample: 1.22.0
source:
  description: C(cache), C(path), C(download) or C(go); null when check mode found none.
  returned: success
  type: str
  sample: cache
origin:
  description: Where the program in the cache first came from; else the same as RV(source).
  returned: success
  type: str
  sample: go
sha256:
  description: Its checksum; null when check mode found none.
  returned: success
  type: str
platform:
  description: The platform it is for.
  returned: success
  type: str
  sample: linux-amd64
tried:
  description: What did not help, with the reason, in order.
  returned: always
  type: list
  elements: str
  sample: ["cache: there is none yet", "PATH: there is no opa"]
"""

from pathlib import Path
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target.keep import PartsError
from ansible.module_utils.swiftdeploy_target.opa_binary import RELEASES, Wanted, find, obtain
from ansible.module_utils.swiftdeploy_target.opa_program import own_platform
from ansible.module_utils.swiftdeploy_target.surroundings import clear_surroundings


def main() -> None:
    """Entry point of the module."""
    clear_surroundings()
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "cache_dir": {"type": "path", "required": True},
            "platform": {"type": "str"},
            "sources": {
                "type": "list",
                "elements": "str",
                "choices": ["path", "download", "go"],
                "default": ["path", "download", "go"],
            },
            "releases": {"type": "str", "default": RELEASES},
            "sha256": {"type": "dict", "default": {}},
            "static": {"type": "bool", "default": False},
            "connect_timeout": {"type": "float", "default": 5.0},
            "download_timeout": {"type": "float", "default": 300.0},
            "build_timeout": {"type": "float", "default": 900.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    wanted = Wanted(
        version=params["version"],
        platform=params["platform"] or own_platform(),
        cache_dir=Path(params["cache_dir"]).absolute(),
        sources=tuple(params["sources"]),
        releases=params["releases"],
        sha256=params["sha256"],
        static=params["static"],
        connect_timeout=params["connect_timeout"],
        download_timeout=params["download_timeout"],
        build_timeout=params["build_timeout"],
    )
    tried: List[str] = []
    answer: Dict[str, Any] = {"platform": wanted.platform, "tried": tried}
    try:
        found = find(wanted, tried) if module.check_mode else obtain(wanted, tried)
    except (PartsError, OSError) as error:
        module.fail_json(msg=str(error), **answer)
    if found is None:
        ways = " then ".join(source for source in wanted.sources if source != "path") or "nothing else"
        answer.update(path=str(wanted.folder / "opa"), version=wanted.version, source=None, origin=None, sha256=None)
        module.exit_json(changed=True, msg=f"would get OPA {wanted.version} for {wanted.platform} by {ways}", **answer)
    for line in tried:
        if "thrown away" in line:
            module.warn(line)
    module.exit_json(changed=found.source in ("download", "go"), **found._asdict(), **answer)


if __name__ == "__main__":
    main()
