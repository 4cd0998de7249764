#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Ensure that a host has its images."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_images
short_description: Ensure that a host has the images of its stack
version_added: "0.1.0"
description:
  - Takes each image as the host has it, else pulls it, else builds it.
  - A registry that is out of reach is found out within O(registry_timeout) and asked once a run, not once an image.
  - What is built carries the label C(org.swiftdeploy.inputs), a hash of everything it is built from. An image with
    that label is built again when the hash has changed; an image without it is the user's and stays as it is.
  - Ours is built only under names it is known by, so that it never runs under the name of a user's own image;
    O(source=build) builds it under any name.
  - An action plugin of the same name makes the hashes and, only when the host has to build, the build contexts on the
    controller. The builds themselves need no network.
options:
  images:
    description:
      - Name of each image. Keys are V(service), V(nginx) and V(opa); others are refused.
    type: dict
    required: true
  source:
    description:
      - V(auto) pulls what is missing and builds what no registry has, V(pull) only pulls, V(build) builds.
      - V(archive) saves each image on the controller once and sends it to a host whose image of that name is missing or
        another one. V(auto) sends in place of building what lies in O(archive_dir) already.
    type: str
    choices: [auto, pull, build, archive]
    default: auto
  service_context:
    description: Folder on the controller with the service's Dockerfile.
    type: str
    required: true
  bundled_repository:
    description: Repository name of the bundled service, the only one that O(service_context) is built for by itself.
    type: str
    default: swift-deploy-1-node
  opa_binary:
    description: OPA's static program on the controller. Without it OPA's image cannot be built.
    type: str
    default: ""
  opa_later:
    description:
      - Whether OPA's program can be had when its image has to be built. Without O(opa_binary) the image is then no
        failure but in RV(later), for a second task that brings the program.
    type: bool
    default: false
  dockerfiles:
    description: Folder on the controller with the Dockerfiles of nginx, OPA and the base.
    type: str
    required: true
  base_image:
    description:
      - Python 3.13 image that the service's image is built on, where a registry has it. Else a base is built from
        Debian's packages.
    type: str
    default: python:3.13-slim
  debian_mirror:
    description: Mirror for that base. Its address with C(-security) appended has the security updates.
    type: str
    default: http://deb.debian.org/debian
  build_dir:
    description: Folder on the host where the base is put together; removed afterwards. Needs about 150 MB.
    type: path
    default: /var/tmp
  archive_dir:
    description: Folder on the controller with the archives, as C(docker save) writes them.
    type: str
    default: ""
  incoming_dir:
    description: Folder on the host where archives arrive; one that was loaded is removed.
    type: path
    default: ~/.swiftdeploy/.incoming
  docker_config:
    description: Folder on the host with the configuration of docker that has the credentials for registries.
    type: path
  login:
    description:
      - Registry to log in to for a pull, with C(registry), C(username) and C(password). The latter two are names of
        environment variables of the controller; in their place the action plugin sends their values as C(auth).
    type: dict
  registry_timeout:
    description: Seconds that a registry has for its first answer.
    type: float
    default: 10
  pull_timeout:
    description: Seconds that one whole pull may take.
    type: float
    default: 600
  build_timeout:
    description: Seconds that one build may take.
    type: float
    default: 600
  seen:
    description:
      - Name of each image to its C(id) and C(label), as RV(swiftdeploy_stack#module:surveyed) has them. The action
        plugin starts no module where all of them are the ones asked for.
    type: dict
    default: {}
  recipes:
    description: How each image is built. Filled in by the action plugin.
    type: dict
    default: {}
  tried:
    description: What an earlier call of the same task tried in vain. Filled in by the action plugin.
    type: dict
    default: {}
  out_of_reach:
    description: Registries that an earlier call of the same task did not reach. Filled in by the action plugin.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Pulls and builds nothing; asks registries whether they have what is missing, and says what it would do.
    support: full
  diff_mode:
    description: Images have no text to compare.
    support: none
  idempotent:
    description: A second run with the same inputs changes nothing.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Ensure the images
  swiftdeploy_images:
    images:
      service: swift-deploy-1-node:latest
      nginx: nginx:latest
      opa: openpolicyagent/opa:1.22.0-static
    service_context: "{{ playbook_dir }}/../service"
    dockerfiles: "{{ role_path }}/files"
    opa_binary: /usr/local/bin/opa
"""

RETURN = r"""
images:
  description: What the host has now, by role.
  returned: success
  type: dict
  sample:
    service: {name: "swift-deploy-1-node:latest", id: "sha256:5b1f", source: built, changed: true}
    nginx: {name: "nginx:latest", id: "sha256:91aa", source: present, changed: false}
out_of_reach:
  description: Registries that did not answer, with the reason.
  returned: always
  type: dict
  sample: {docker.io: "dial tcp: lookup registry-1.docker.io: no such host"}
needed:
  description: Roles that have to be built.
  returned: always
  type: list
  elements: str
later:
  description: Roles that can be built once their program is there; see O(opa_later).
  returned: always
  type: list
  elements: str
awaited:
  description: Roles whose archive has to be sent.
  returned: always
  type: list
  elements: str
attempts:
  description: What was tried in vain, by role. O(tried) of a second task takes it.
  returned: always
  type: dict
architecture:
  description: The engine's architecture. Empty where O(seen) was enough.
  returned: always
  type: str
  sample: amd64
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target.images import (
    ROLES,
    Engine,
    EngineError,
    Host,
    Outcome,
    credentials,
    failure_message,
    parse_reference,
)
from ansible.module_utils.swiftdeploy_target.images_base import BaseError, Debian, make_context
from ansible.module_utils.swiftdeploy_target.surroundings import clear_surroundings

OWN_BASE = "swiftdeploy/python:3.13"


def base_for(host: Host, params: Dict[str, Any], architecture: str) -> str:
    """Name of an image that the service can be built on: at hand, pulled or built. Raises BaseError."""
    wanted = params["base_image"]
    if host.engine.inspect(wanted) is not None:
        return wanted
    not_pulled = host.try_pull(wanted)
    if not_pulled is None:
        return wanted
    recipe = params["recipes"]["base"]
    found = host.engine.inspect(OWN_BASE)
    if found is not None and found["label"] == recipe["inputs"]:
        return OWN_BASE
    work = Path(params["build_dir"])
    try:
        work.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="swiftdeploy-base-", dir=work) as folder:
            tar = Path(folder) / "context.tar"
            debian = Debian(params["debian_mirror"], architecture, params["build_timeout"])
            make_context(tar, recipe["dockerfile"], Path(folder), debian)
            built = host.build(OWN_BASE, {**recipe, "context": str(tar)}, {})
    except (BaseError, OSError) as error:
        raise BaseError(f"{wanted} cannot be pulled ({not_pulled}), and in its place: {error}") from error
    if "why" in built:
        raise BaseError(f"{wanted} cannot be pulled ({not_pulled}), and in its place: {built['why']}")
    return OWN_BASE


def build_all(host: Host, params: Dict[str, Any], outcome: Outcome, architecture: str) -> None:
    """Build what is needed; what succeeds moves from the outcome's attempts to its images."""
    for role in outcome.needed:
        recipe = params["recipes"][role]
        try:
            arguments = {"BASE_IMAGE": base_for(host, params, architecture)} if role == "service" else {}
            built = host.build(params["images"][role], recipe, arguments)
        except BaseError as error:
            built = {"why": str(error)}
        except OSError as error:
            built = {"why": f"the build context cannot be read: {error}"}
        if "why" in built:
            outcome.attempts[role].append({"how": "build", "why": built["why"]})
        else:
            outcome.images[role] = built
            del outcome.attempts[role]


def refused(images: Dict[str, Any]) -> List[str]:
    """What is wrong with the names, in words; empty when nothing."""
    problems = [f"images: {role!r} is none of {', '.join(ROLES)}" for role in images if role not in ROLES]
    for role, name in images.items():
        try:
            parse_reference(str(name))
        except ValueError as error:
            problems.append(f"images.{role}: {error}")
    return problems


def main() -> None:
    """Entry point of the module."""
    clear_surroundings()
    module = AnsibleModule(
        argument_spec={
            "images": {"type": "dict", "required": True},
            "source": {"type": "str", "choices": ["auto", "pull", "build", "archive"], "default": "auto"},
            "service_context": {"type": "str", "required": True},
            "bundled_repository": {"type": "str", "default": "swift-deploy-1-node"},
            "opa_binary": {"type": "str", "default": ""},
            "opa_later": {"type": "bool", "default": False},
            "dockerfiles": {"type": "str", "required": True},
            "base_image": {"type": "str", "default": "python:3.13-slim"},
            "debian_mirror": {"type": "str", "default": "http://deb.debian.org/debian"},
            "build_dir": {"type": "path", "default": "/var/tmp"},  # noqa: S108
            "archive_dir": {"type": "str", "default": ""},
            "incoming_dir": {"type": "path", "default": "~/.swiftdeploy/.incoming"},
            "docker_config": {"type": "path"},
            "login": {
                "type": "dict",
                # Both as one word: a user name by itself is often part of what this module has to say.
                "options": {"registry": {"type": "str", "required": True}, "auth": {"type": "str", "no_log": True}},
            },
            "registry_timeout": {"type": "float", "default": 10.0},
            "pull_timeout": {"type": "float", "default": 600.0},
            "build_timeout": {"type": "float", "default": 600.0},
            "seen": {"type": "dict", "default": {}},
            "recipes": {"type": "dict", "default": {}},
            "tried": {"type": "dict", "default": {}},
            "out_of_reach": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    problems = refused({**params["images"]})
    try:
        parse_reference(params["base_image"])
    except ValueError as error:
        problems.append(f"base_image: {error}")
    if problems:
        module.fail_json(msg="; ".join(problems))
    config = params["docker_config"]
    with TemporaryDirectory(prefix="swiftdeploy-docker-") as folder:
        if params["login"]:
            # For this task alone, and readable by its user alone.
            config = folder
            login = params["login"]
            (Path(folder) / "config.json").write_text(credentials(login["registry"], login["auth"]))
        work(module, config)


def work(module: AnsibleModule, config: Optional[str]) -> None:
    """Settle every image, build what is needed, and answer."""
    params = module.params
    engine = Engine(params["registry_timeout"], params["pull_timeout"], params["build_timeout"], config)
    host = Host(engine, params["source"], module.check_mode, params["out_of_reach"])
    architecture = ""
    try:
        architecture = engine.architecture()
        outcome = host.settle(params["images"], params["recipes"], params["tried"])
        contexts = all(params["recipes"][role].get("context") for role in outcome.needed)
        if contexts and not module.check_mode:
            build_all(host, params, outcome, architecture)
    except EngineError as error:
        module.fail_json(msg=str(error))
    result = {
        "changed": any(image["changed"] for image in outcome.images.values()),
        "images": {role: outcome.images[role] for role in params["images"] if role in outcome.images},
        "needed": outcome.needed,
        "later": outcome.later,
        "awaited": outcome.awaited,
        "attempts": outcome.attempts,
        "out_of_reach": host.unreachable,
        "architecture": architecture,
    }
    # What still waits for its context, its program or its archive is no failure yet.
    waiting = {*outcome.later, *outcome.awaited}
    failed = {role: tried for role, tried in outcome.attempts.items() if role not in waiting}
    if failed and (contexts or module.check_mode):
        module.fail_json(msg=failure_message(params["images"], failed), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
