#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_manifest
short_description: Load and check the manifest, or set its mode
version_added: "0.1.0"
description:
  - Reads the one file that a person edits, checks it against C(manifest.schema.json), and answers the complete
    configuration with all defaults filled in.
  - Fails with all problems at once. Each has file, line, key, what was found and what is allowed.
  - Values are data. They are never templated, and values of C(services.env) and C(services.secrets) never appear
    in a message or a diff.
  - Runs on the controller.
options:
  path:
    description: Path of the manifest, relative to the folder that the playbook is run from.
    type: path
    required: true
  state:
    description:
      - V(loaded) reads and checks the manifest.
      - V(mode) also sets C(services.mode) in the file. Nothing else in it changes, comments, anchors, order and line
        endings stay, and the file is replaced as a whole or not at all.
    type: str
    choices: [loaded, mode]
    default: loaded
  mode:
    description: The mode to set. Required with O(state=mode).
    type: str
    choices: [stable, canary]
attributes:
  check_mode:
    description: Reads and checks in check mode too, and says whether the mode would change.
    support: full
  diff_mode:
    description: Shows the change of the file, with values that may be secret masked.
    support: full
  idempotent:
    description: A mode that is set already leaves the file untouched.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Load the manifest
  swiftdeploy_manifest:
    path: manifest.yaml
  register: loaded

- name: Say what will run
  ansible.builtin.debug:
    msg: "{{ loaded.manifest.services.image }} in mode {{ loaded.manifest.services.mode }}"

- name: Keep the mode current in the manifest
  swiftdeploy_manifest:
    path: manifest.yaml
    state: mode
    mode: canary
  run_once: true
"""

RETURN = r"""
manifest:
  description: The complete configuration. Durations are seconds, the version is text.
  returned: success, with O(state=loaded)
  type: dict
  sample:
    services: {name: app, image: "swift-deploy-1-node:latest", port: 3000, version: "1.0.0", mode: stable}
    nginx: {image: "nginx:latest", port: 8080, proxy_timeout: 30.0, drain_timeout: 35.0}
    network: {name: swiftdeploy-net, driver_type: bridge}
path: {description: Absolute path of the manifest., returned: always, type: str, sample: /srv/swiftdeploy/manifest.yaml}
mode: {description: The mode that the manifest has now., returned: "success, with O(state=mode)", type: str}
problems:
  description: Everything that is wrong. RV(ignore:msg) has the same as text, one line each.
  returned: failure
  type: list
  elements: dict
  contains:
    file: {description: The file as shown to people., type: str, returned: always, sample: manifest.yaml}
    line: {description: Line, from 1., type: int, returned: when it concerns a line, sample: 4}
    key: {description: Path of the key., type: str, returned: when it concerns a key, sample: services.port}
    message: {description: What was found and what is allowed., type: str, returned: always}
"""
