#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Look at a host's stack and judge whether it can be worked on."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_stack
short_description: Observe a host's stack and run the pre-flight checks
version_added: "0.1.0"
description:
  - Finds out which runtime the host uses, what is running, what nginx really serves, which release is in
    which slot, and whether the ports are free or ours.
  - Reads only. Everything that is wrong is collected in RV(problems); nothing fails until the caller decides.
options:
  home:
    description: Folder of everything that SwiftDeploy keeps on this host. V(~) is expanded.
    type: path
    required: true
  service:
    description: Name of the service (C(services.name) of the manifest).
    type: str
    required: true
  runtime:
    description: Which runtime is wanted; V(auto) takes Docker where an engine answers.
    type: str
    choices: [auto, docker, process]
    default: auto
  port:
    description: Port of the service inside the stack.
    type: int
    required: true
  nginx_port:
    description: Published port.
    type: int
    required: true
  opa_port:
    description: Loopback port of the policy engine.
    type: int
    required: true
  nginx_image:
    description: Image that runs nginx in the docker runtime.
    type: str
    required: true
  nginx:
    description: Path of the nginx program in the process runtime, if it is known already.
    type: str
  tls:
    description: Whether nginx speaks TLS on its port.
    type: bool
    default: false
  health_path:
    description: Path that answers 2xx when the service is healthy.
    type: str
    default: /healthz
  health_timeout:
    description: Seconds that one health question may take.
    type: float
    default: 2.0
attributes:
  check_mode:
    description: Reads only, so it answers the same in check mode.
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
- name: Look at the stack
  swiftdeploy_stack:
    home: ~/.swiftdeploy
    service: app
    port: 3000
    nginx_port: 8080
    opa_port: 8181
    nginx_image: nginx:1.29
  register: stack
"""

RETURN = r"""
options:
  description: What the other modules need to work on this stack; pass it on as their O(stack) option.
  returned: always
  type: dict
  sample:
    runtime: process
    stack_dir: /home/deploy/.swiftdeploy/app
    socket: /home/deploy/.swiftdeploy/app/run/supervisor.sock
    project: swiftdeploy-app
    service: app
    port: 3000
    nginx_image: nginx:1.29
    nginx: null
    slot_ports: {blue: 3000, green: 3001}
    base_url: http://127.0.0.1:8080
    health_path: /healthz
    health_timeout: 2.0
runtime_reason:
  description: Why this runtime was chosen, in words.
  returned: always
  type: str
  sample: Docker engine 28.2.2 with compose 2.36.0
engine_root:
  description: Where the Docker engine keeps its data.
  returned: when an engine answers
  type: str
  sample: /var/lib/docker
observed:
  description: The stack as it is.
  returned: always
  type: dict
  contains:
    state: {description: What the host remembers., type: dict}
    live: {description: Slot that has the traffic., type: str}
    free: {description: Slot that the next release goes to., type: str}
    serving: {description: What nginx says of its loaded configuration., type: dict}
    running: {description: Programs of the stack and whether they run., type: dict}
    slots: {description: Each slot's health and address and release., type: dict}
    gateway: {description: Address under which nginx sees this host., type: str}
    proxy_log: {description: Where nginx's access log is., type: dict}
problems:
  description: Everything that stands in the way, each with its remedy.
  returned: always
  type: list
  elements: str
"""

import os
from pathlib import Path
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target import stack as looking
from ansible.module_utils.swiftdeploy_target import state
from ansible.module_utils.swiftdeploy_target.runtime import detect_docker, make
from ansible.module_utils.swiftdeploy_target.supervisor import socket_path


def build_options(params: Dict[str, Any], stack_dir: Path, runtime: str) -> Dict[str, Any]:
    """The stack options that every other module takes."""
    scheme = "https" if params["tls"] else "http"
    return {
        "runtime": runtime,
        "stack_dir": str(stack_dir),
        "socket": str(socket_path(stack_dir)),
        "project": f"swiftdeploy-{params['service']}",
        "service": params["service"],
        "port": params["port"],
        "nginx_image": params["nginx_image"],
        "nginx": params["nginx"],
        "slot_ports": looking.slot_ports(params["port"], [params["nginx_port"], params["opa_port"]]),
        "base_url": f"{scheme}://127.0.0.1:{params['nginx_port']}",
        "health_path": params["health_path"],
        "health_timeout": params["health_timeout"],
    }


def port_problems(params: Dict[str, Any], options: Dict[str, Any], observed: Dict[str, Any]) -> List[str]:
    """Ports that somebody else has. A port of a program of ours that runs is ours."""
    running = observed["running"]
    wanted = [
        ("0.0.0.0", params["nginx_port"], "nginx.port", bool(running.get("nginx"))),  # noqa: S104
        ("127.0.0.1", params["opa_port"], "opa.port", bool(running.get("opa"))),
    ]
    if options["runtime"] == "process":
        wanted += [
            ("127.0.0.1", port, f"the {slot} slot (from services.port)", bool(running.get(slot)))
            for slot, port in options["slot_ports"].items()
        ]
    problems = []
    for address, port, key, ours in wanted:
        why = None if ours else looking.port_free(address, port)
        if why is None:
            continue
        owner = looking.listener(port)
        by = f" by {owner}" if owner else " by another program"
        remedy = "stop that program or change the port in the manifest"
        if why != "in use":
            by, remedy = "", "ports below 1024 need a privileged user: take a higher one in the manifest"
        problems.append(f"port {port} for {key} is {why}{by}: {remedy}.")
    return problems


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "required": True},
            "service": {"type": "str", "required": True},
            "runtime": {"type": "str", "choices": ["auto", "docker", "process"], "default": "auto"},
            "port": {"type": "int", "required": True},
            "nginx_port": {"type": "int", "required": True},
            "opa_port": {"type": "int", "required": True},
            "nginx_image": {"type": "str", "required": True},
            "nginx": {"type": "str"},
            "tls": {"type": "bool", "default": False},
            "health_path": {"type": "str", "default": "/healthz"},
            "health_timeout": {"type": "float", "default": 2.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    stack_dir = Path(os.path.abspath(params["home"])) / params["service"]  # noqa: PTH100
    try:
        remembered = state.load(stack_dir, params["service"])
    except (state.StateError, OSError) as error:
        module.fail_json(msg=str(error))
    # The process runtime is asked for by name where Docker must not even be looked at.
    engine = detect_docker()
    choice = looking.choose_runtime(params["runtime"], remembered["runtime"], engine)
    options = build_options(params, stack_dir, choice["runtime"])
    problems = [choice["problem"]] if choice["problem"] else []
    observed = looking.observe(make(options), stack_dir, options)
    if not choice["problem"]:
        problems += port_problems(params, options, observed)
    module.exit_json(
        changed=False,
        options=options,
        runtime_reason=choice["reason"],
        engine_root=engine.root,
        observed=observed,
        problems=problems,
    )


if __name__ == "__main__":
    main()
