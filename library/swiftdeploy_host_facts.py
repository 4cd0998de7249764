#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Measure what a deploy to this host is decided on."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_host_facts
short_description: Measure disk, load and memory of a host for a deploy decision
version_added: "0.1.0"
description:
  - Measures the figures that the policy domain C(infrastructure) judges and returns them under RV(facts).
    It compares nothing and fails for no figure.
  - A figure that cannot be measured is V(null) and named in RV(problems). The policy then denies.
  - The figures are the whole host's, also where the module runs in a container with limits of its own.
attributes:
  check_mode:
    description: Can run in check mode and return the same figures.
    support: full
  diff_mode:
    description: Returns what changed or would change in diff mode.
    support: N/A
    details:
      - Nothing is ever changed.
  idempotent:
    description: A second run changes nothing.
    support: full
options:
  path:
    description:
      - The deploy path. The file system it is on is measured.
      - Where it does not exist yet, its nearest existing parent is measured.
    type: path
    required: true
  engine_path:
    description:
      - Where the container engine keeps its data, as the engine says, for example C(/var/lib/docker).
      - Empty where the stack runs without an engine. The figures of its disk are then not applicable.
    type: str
    default: ""
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Measure the host
  swiftdeploy_host_facts:
    path: /opt/swiftdeploy
    engine_path: /var/lib/docker
  register: host_facts

- name: Ask whether it may take a deploy
  swiftdeploy_opa:
    queries:
      - domain: infrastructure
        input:
          environment: production
          facts: "{{ host_facts.facts }}"
"""

RETURN = r"""
facts:
  description: The figures. Any of them is V(null) where it could not be measured.
  returned: always
  type: dict
  contains:
    disk_free_gb:
      description: Space an ordinary user can still write, in GB of 10^9 bytes, cut to two decimals.
      type: float
      sample: 41.27
    disk_total_gb:
      description: Size of the file system, in GB of 10^9 bytes.
      type: float
      sample: 105.08
    disk_path:
      description: The path that was measured, the deploy path or its nearest existing parent.
      type: str
      sample: /opt
    inodes_free_percent:
      description: >-
        Free inodes of all inodes. V(null) and in RV(facts.not_applicable) on a file system that has no fixed number.
      type: float
      sample: 96.4
    engine_disk_free_gb:
      description: >-
        Space where the container engine keeps its data, in GB of 10^9 bytes, cut to two decimals. V(null) and in
        RV(facts.not_applicable) where there is no engine, or where its data is not on this host.
      type: float
      sample: 41.27
    engine_disk_total_gb:
      description: Size of that file system, in GB of 10^9 bytes.
      type: float
      sample: 105.08
    engine_disk_path:
      description: Where the engine keeps its data.
      type: str
      sample: /var/lib/docker
    cpu_load_1m:
      description: Load average of the last minute.
      type: float
      sample: 0.42
    cpu_load_5m:
      description: Load average of the last 5 minutes.
      type: float
      sample: 0.38
    cpu_load_15m:
      description: Load average of the last 15 minutes.
      type: float
      sample: 0.31
    cpus:
      description: CPUs that the module's process may run on.
      type: int
      sample: 2
    cpu_load_per_cpu:
      description: Load average of the last minute divided by the CPUs.
      type: float
      sample: 0.21
    mem_free_percent:
      description: Memory that can be taken without swapping (MemAvailable) of all memory.
      type: float
      sample: 63.08
    mem_available_mb:
      description: Memory that can be taken without swapping, in MB of 10^6 bytes.
      type: float
      sample: 5167.1
    mem_total_mb:
      description: All memory, in MB of 10^6 bytes.
      type: float
      sample: 8191.25
    not_applicable:
      description: Figures that this host does not have, each with the reason.
      type: dict
      sample: {"engine_disk_free_gb": "no container engine runs the stack"}
    timestamp:
      description: When it was measured, UTC.
      type: str
      sample: "2026-11-21T03:55:00.123Z"
problems:
  description: Which figures could not be measured, and why. Empty where all could.
  returned: always
  type: list
  elements: str
  sample:
    - "mem_free_percent, mem_available_mb, mem_total_mb not measured: /proc/meminfo: No such file or directory"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target.host_facts import measure
from ansible.module_utils.swiftdeploy_target.surroundings import clear_surroundings


def main() -> None:
    """Run the module."""
    clear_surroundings()
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "engine_path": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **measure(module.params["path"], module.params["engine_path"]))


if __name__ == "__main__":
    main()
