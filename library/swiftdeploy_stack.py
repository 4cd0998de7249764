#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Take a host's lock, look at its stack and judge whether it can be worked on."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_stack
short_description: Lock and observe a host's stack, and run the pre-flight checks
version_added: "0.1.0"
description:
  - Finds out which runtime the host uses, what is running, what nginx really serves, which release is in
    which slot, and whether the ports are free or ours.
  - Everything that is wrong is collected in RV(problems); nothing fails until the caller decides.
  - With O(claim) it takes the host's lock before it looks, so that nothing changes after it has looked. One run at a
    time works on a stack. The lock says who holds it, since when and for what.
  - A lock whose holder ran on this controller and is gone is taken over, which is reported; any other is broken only
    when O(break_lock) says so. The action plugin of the same name tells whether a holder on this controller lives.
options:
  state:
    description:
      - V(observed) looks, V(free) gives the lock back and does nothing else, V(log) reads what was switched on this
        host, whoever did it, and takes no lock. V(free) is one shell command of the action plugin of the same name,
        which starts no Python on the host.
    type: str
    choices: [observed, free, log]
    default: observed
  claim:
    description:
      - Who takes the lock. Keys C(run_id), C(actor), C(since), C(action), C(controller), C(pid), C(process_start).
      - Without it nothing is locked and nothing may be changed afterwards.
    type: dict
  break_lock:
    description: Take the lock from whoever holds it.
    type: bool
    default: false
  instead_of:
    description: Run whose lock is taken over; the action plugin sets it.
    type: str
  home:
    description: Folder of everything that SwiftDeploy keeps on this host. V(~) is expanded.
    type: path
    required: true
  service:
    description: Name of the service (C(services.name) of the manifest).
    type: str
    required: true
  checkout:
    description: Who works on the stack from where, in words. It is told to whoever takes the stack for a stranger's.
    type: str
  network:
    description: Name that the manifest gives to the network. Needed with O(state=observed).
    type: str
  log_volume:
    description: Name that the manifest gives to the volume of the service's logs. Needed with O(state=observed).
    type: str
  runtime:
    description: Which runtime is wanted; V(auto) takes Docker where an engine answers.
    type: str
    choices: [auto, docker, process]
    default: auto
  supervisor:
    description:
      - What runs the processes of the process runtime. V(auto) takes systemd where C(bootstrap.yml) has installed its
        units for this user and folder, else supervisord; a stack that runs stays where it is.
    type: str
    choices: [auto, supervisord, systemd]
    default: auto
  port:
    description:
      - Port of the service inside the stack. Needed with O(state=observed). In the process runtime the next release
        gets the first free one from there on; a release that runs has the port of its record.
    type: int
  nginx_port:
    description: Published port. Needed with O(state=observed).
    type: int
  nginx_image:
    description: Image that runs nginx in the docker runtime. Needed with O(state=observed).
    type: str
  nginx:
    description: Path of the nginx program in the process runtime, if it is known already.
    type: str
  tls:
    description:
      - C(nginx.tls) of the manifest, files of this host; with it nginx speaks TLS on its port.
      - What is wrong with them is among RV(problems). For a rollback a copy that the stack has serves too.
    type: dict
    suboptions:
      certificate: {description: Path of the certificate., type: str, required: true}
      key: {description: Path of the private key., type: str, required: true}
  health:
    description:
      - C(services.healthcheck) of the manifest. A release that runs is asked as it was when it was started.
    type: dict
    default: {path: /healthz, timeout: 2.0}
  survey:
    description:
      - What later tasks would each start Python on the host for, see RV(surveyed).
    type: dict
    suboptions:
      images: {description: Names of the images that the stack needs., type: list, elements: str}
      parts:
        description: The programs that it needs in the process runtime, as M(swiftdeploy_parts) takes them.
        type: dict
        suboptions:
          dir: {description: Folder of the parts., type: path, required: true}
          opa_version: {description: The pinned version of OPA., type: str, required: true}
          nginx_source: {description: Where nginx comes from., type: str, choices: [auto, wheel, path], default: auto}
          nginx_requirement: {description: The wheel., type: str, required: true}
          nginx_version: {description: The version in it., type: str, required: true}
          tools_requirements: {description: What the tools need., type: list, elements: str, required: true}
          service_requirements: {description: What the service needs., type: list, elements: str, required: true}
          service_hash: {description: Hash of the service's folder., type: str, required: true}
          service_python_minimum: {description: Oldest Python of the service., type: str, default: "3.11"}
          python: {description: Interpreter to build with., type: str}
      files: {description: Globs below the stack's folder., type: list, elements: str}
      loaded_path: {description: Path at which the policy engine says whether it has loaded these., type: str}
attributes:
  check_mode:
    description: Takes no lock, and looks as ever.
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
- name: Take the lock and look at the stack
  swiftdeploy_stack:
    claim: "{{ stack_claim }}"
    home: ~/.swiftdeploy
    service: app
    port: 3000
    nginx_port: 8080
    nginx_image: nginx:1.29
  register: stack
"""

RETURN = r"""
holder:
  description: Who holds the lock when it is another run. Nothing else is returned then.
  returned: when another run holds it
  type: dict
broken:
  description: The holder whose lock was taken over.
  returned: when a lock was broken
  type: dict
broken_because:
  description: Why it was.
  returned: when a lock was broken
  type: str
options:
  description: What the other modules need to work on this stack; pass it on as their O(stack) option.
  returned: with O(state=observed)
  type: dict
  sample:
    runtime: process
    stack_dir: /home/deploy/.swiftdeploy/app
    socket: /home/deploy/.swiftdeploy/app/run/supervisor.sock
    project: swiftdeploy-app
    names:
      project: swiftdeploy-app
      policy_project: swiftdeploy-app_opa
      network: swiftdeploy-net_app
      labels: {org.swiftdeploy.home: /home/deploy/.swiftdeploy, org.swiftdeploy.service: app}
      kept_volumes: []
      other_networks: []
    owner: {home: /home/deploy/.swiftdeploy, service: app, checkout: "ada@control1 in /home/ada/shop"}
    service: app
    nginx_image: nginx:1.29
    nginx: null
    nginx_version: null
    supervisord: null
    supervisor: supervisord
    root: false
    ipv6: true
    nginx_user: "65532:65532"
    run_id: 5f3c1c8e-4b0a-5c83-9a5f-0f3c5f6f2f11
    slot_ports: {blue: 3000, green: 3001}
    tls: null
    opa_url: http+unix://%2Fhome%2Fdeploy%2F.swiftdeploy%2Fapp%2Fopa%2Frun%2Fopa.sock
    base_url: http://127.0.0.1:8080
    health: {path: /healthz, timeout: 2.0}
    engine_root: ""
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
    slots: {description: Each slot's health and address and port and release., type: dict}
    next_port: {description: Port of the next release., type: int}
    taken_back: {description: Whether this look took the traffic from a release that had died unwatched., type: bool}
    images: {description: Programs that run from an image and its id., type: dict}
    proxy_log: {description: Where nginx's access log is., type: dict}
    secrets: {description: Names of the secrets whose values the host keeps for each release., type: dict}
    stack_dir: {description: Folder of the stack., type: str}
surveyed:
  description:
    - What O(survey) asks for. A key is missing where it was not asked for, is nothing of this runtime, or could not be
      had; the task that needs it then asks by itself.
  returned: with O(survey)
  type: dict
  contains:
    images: {description: Name of each image to its C(id) and C(label). Missing unless all are there., type: dict}
    parts: {description: What M(swiftdeploy_parts) returns., type: dict}
    files: {description: Path of each file and folder to its C(sha256) and C(mode)., type: dict}
    loaded: {description: What C(loaded_path) answers., type: bool}
log:
  description: What was switched on this host, oldest first; see C(module_utils/swiftdeploy_target/release_log.py).
  returned: with O(state=log)
  type: list
  elements: dict
  sample: [{"at": "2026-11-21T03:55:00.123Z", "event": "live", "actor": "ada@control1", "version": "1.0.0"}]
notes:
  description: What an operation is going to change and would be missed later, in words.
  returned: with O(state=observed)
  type: list
  elements: str
strangers:
  description: What of a stranger's lies under the names of this stack, each with what to do. RV(problems) holds it too.
  returned: with O(state=observed)
  type: list
  elements: str
problems:
  description: Everything that stands in the way, each with its remedy.
  returned: always
  type: list
  elements: str
"""

import os
from pathlib import Path
from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target import (
    certificate,
    lock,
    names,
    opa,
    ownership,
    release_log,
    secret_values,
    state,
)
from ansible.module_utils.swiftdeploy_target import stack as looking
from ansible.module_utils.swiftdeploy_target.files import fault, keep_private
from ansible.module_utils.swiftdeploy_target.parts import WISH
from ansible.module_utils.swiftdeploy_target.ports import has_ipv6, port_free
from ansible.module_utils.swiftdeploy_target.runtime import NGINX_USER, Runtime, detect_docker, make
from ansible.module_utils.swiftdeploy_target.supervisor import Supervisor, marked_processes, socket_path
from ansible.module_utils.swiftdeploy_target.surroundings import clear_surroundings
from ansible.module_utils.swiftdeploy_target.survey import survey
from ansible.module_utils.swiftdeploy_target.systemd import Systemd, choose, installed


def build_options(
    params: Dict[str, Any], stack_dir: Path, runtime: str, remembered: state.State, engine_root: str
) -> Dict[str, Any]:
    """The stack options that every other module takes."""
    programs = remembered["programs"] or {}
    own_ports = {params["nginx_port"]}
    scheme = "https" if params["tls"] else "http"
    return {
        "runtime": runtime,
        "stack_dir": str(stack_dir),
        "socket": str(socket_path(stack_dir)),
        "project": names.project(params["service"]),
        "names": {
            "project": names.project(params["service"]),
            "policy_project": names.policy_project(params["service"]),
            "network": names.network(params["network"], params["service"]),
            "labels": names.labels(str(stack_dir.parent), params["service"]),
            # Where an earlier version has deployed: see `look`.
            "kept_volumes": [],
            "other_networks": [],
        },
        "owner": {"home": str(stack_dir.parent), "service": params["service"], "checkout": params["checkout"]},
        "service": params["service"],
        "nginx_image": params["nginx_image"],
        "nginx": params["nginx"] or programs.get("nginx"),
        "nginx_version": programs.get("nginx_version"),
        "supervisord": programs.get("supervisord"),
        # Of the process runtime.
        "supervisor": None,
        "root": os.geteuid() == 0,
        "ipv6": has_ipv6(),
        "uid": os.geteuid(),
        "gid": os.getegid(),
        # Of nginx's container: it reads the certificate's key and keeps request bodies. Never root.
        "nginx_user": NGINX_USER if os.geteuid() == 0 else f"{os.geteuid()}:{os.getegid()}",
        "run_id": (params["claim"] or {}).get("run_id"),
        # Of what is in the slots; a slot without a release has the manifest's until one is started.
        "slot_ports": {
            **dict.fromkeys(state.SLOTS, params["port"]),
            **looking.known_ports(remembered, runtime, own_ports),
        },
        "tls": certificate.look(
            params["tls"], stack_dir / "config", (params["claim"] or {}).get("action") == "rollback"
        ),
        "opa_url": opa.socket_url(stack_dir),
        "base_url": f"{scheme}://127.0.0.1:{params['nginx_port']}",
        "health": params["health"],
        # Where the engine that runs the stack keeps its data; empty where none does.
        "engine_root": engine_root if runtime == "docker" else "",
    }


def port_problems(
    params: Dict[str, Any], options: Dict[str, Any], runtime: Runtime, running: Dict[str, bool]
) -> List[str]:
    """Ports that somebody else has. A port of a program of ours is ours; ``running`` is which of them run."""
    wanted = [
        ("0.0.0.0", params["nginx_port"], "nginx.port", "nginx"),  # noqa: S104
    ]
    if options["ipv6"] and options["runtime"] == "process" and port_free("0.0.0.0", params["nginx_port"]) is None:  # noqa: S104
        wanted.append(("::", params["nginx_port"], "nginx.port over IPv6", "nginx"))
    stack_dir = Path(options["stack_dir"])
    ours_left = {pid for pid, _words in marked_processes(stack_dir)} if options["runtime"] == "process" else set()
    problems = []
    for address, port, key, program in wanted:
        why = None if running.get(program) else port_free(address, port)
        # One that was started again a moment ago did not run when it was looked at, and has its port now.
        if why is None or runtime.alive().get(program):
            continue
        owners = looking.listeners(port)
        if owners and owners.keys() <= ours_left:
            # A program of this stack whose parent was killed; it is ended when the stack starts again.
            continue
        if why != "in use" and (options["runtime"] == "docker" or options["supervisor"] == "systemd"):
            # The engine or the unit listens, where this user may not even try.
            why = "in use" if looking.answers(address, port) else None
            if why is None:
                continue
        by = " by " + (", ".join(f"{name} (pid {pid})" for pid, name in owners.items()) or "another program")
        remedy = "stop that program or change the port in the manifest"
        if why != "in use":
            by, remedy = "", "ports below 1024 need a privileged user: take a higher one in the manifest"
        problems.append(f"port {port} for {key} is {why}{by}: {remedy}.")
    return problems


def place(params: Dict[str, Any], options: Dict[str, Any], observed: Dict[str, Any]) -> None:
    """Add ``next_port`` to ``observed``, and give a slot that is down another port where somebody has taken its own."""
    if options["runtime"] == "docker":
        observed["next_port"] = params["port"]
        return
    stack_dir = Path(options["stack_dir"])

    def usable(port: int) -> bool:
        return port_free("127.0.0.1", port) is None or looking.ours(port, stack_dir)

    def another(slot: Optional[str]) -> int:
        taken = {params["nginx_port"]}
        taken |= {observed["slots"][slot]["port"]} if slot and observed["slots"][slot]["release"] else set()
        # Where nothing is to be had the start of the release says so.
        return looking.next_port(params["port"], taken, usable) or int(params["port"])

    live = observed["live"]
    for name, slot in observed["slots"].items():
        if slot["release"] and not slot["running"] and not usable(slot["port"]):
            slot["port"] = another(state.other(name))
    observed["next_port"] = another(live)


def parent(params: Dict[str, Any], stack_dir: Path) -> Dict[str, Any]:
    """What runs, or is to run, the processes of the process runtime; as ``systemd.choose``."""
    units = installed(stack_dir.parent)
    in_use = None
    if Supervisor(stack_dir).answers():
        in_use = "supervisord"
    elif units.usable and Systemd(stack_dir, params["service"]).answers():
        in_use = "systemd"
    return choose(params["supervisor"], in_use, units)


def strangers(params: Dict[str, Any], names_: Dict[str, Any], runtime: Runtime, ours: ownership.Owner) -> List[str]:
    """What of a stranger's lies under the names of this stack. Raises StateError."""
    networks = [names_["network"]]
    volumes = [names.volume(params["log_volume"], params["service"], names_["kept_volumes"])]
    found = [*runtime.strangers()]
    for kind, wanted in (("network", networks), ("volume", [v for v in volumes if v not in names_["kept_volumes"]])):
        found += [ownership.Thing(kind, name, labels) for name, labels in ownership.labels_of(kind, wanted).items()]
    return ownership.strangers(found, ours)


def new_volume(params: Dict[str, Any], called: Dict[str, Any], used: Optional[str]) -> List[str]:
    """That the next release begins with an empty volume, where it does."""
    wanted = names.volume(params["log_volume"], params["service"], called["kept_volumes"])
    if used in (None, wanted):
        return []
    return [
        f"the next release keeps its logs in volume {wanted}; what is in {used} stays there, and nothing removes it"
    ]


def look(params: Dict[str, Any], stack_dir: Path, claimed: bool) -> Dict[str, Any]:
    """What is returned. Raises StateError, OSError."""
    remembered, ours = state.load(stack_dir, params["service"]), ownership.of(stack_dir)
    copied = ownership.copied(remembered, ours)
    if copied:
        raise state.StateError(copied)
    # The process runtime is asked for by name where Docker must not even be looked at.
    engine = detect_docker()
    choice = looking.choose_runtime(params["runtime"], remembered["runtime"], engine)
    options = build_options(params, stack_dir, choice["runtime"], remembered, engine.root or "")
    if choice["runtime"] == "process":
        under = parent(params, stack_dir)
        options["supervisor"] = under["supervisor"]
        choice["reason"] += f", under {under['supervisor']}"
        choice["problem"] = choice["problem"] or under["problem"]
    problems = [choice["problem"]] if choice["problem"] else []
    if options["tls"] and not options["tls"]["digest"]:
        problems.append(options["tls"]["problem"])
    made = make(options)
    foreign: List[str] = []
    notes: List[str] = []
    if choice["runtime"] == "docker" and engine.usable:
        called = options["names"]
        called["kept_volumes"] = ownership.kept_volumes(remembered, ours)
        beside = {network for slot in state.SLOTS for network in made.networks(slot)}
        called["other_networks"] = sorted(beside - {called["network"]})
        foreign = strangers(params, called, made, ours)
        notes = new_volume(params, called, made.log_volume(remembered["live"]) if remembered["live"] else None)
        problems += foreign
    observed = looking.observe(made, stack_dir, options)
    taken_back = claimed and not foreign and looking.take_back(observed, stack_dir)
    if taken_back:
        observed = looking.observe(made, stack_dir, options)
    observed["taken_back"] = taken_back
    place(params, options, observed)
    if not choice["problem"]:
        problems += port_problems(params, options, made, observed["running"])
    return {
        "options": options,
        "runtime_reason": choice["reason"],
        "engine_root": engine.root,
        "observed": observed,
        "notes": notes,
        "strangers": foreign,
        "problems": problems,
    }


def main() -> None:
    """Entry point of the module."""
    clear_surroundings()
    module = AnsibleModule(
        argument_spec={
            # The action plugin does what free asks for.
            "state": {"type": "str", "choices": ["observed", "free", "log"], "default": "observed"},
            "claim": {"type": "dict"},
            "break_lock": {"type": "bool", "default": False},
            "instead_of": {"type": "str"},
            "home": {"type": "path", "required": True},
            "service": {"type": "str", "required": True},
            "checkout": {"type": "str"},
            "network": {"type": "str"},
            "log_volume": {"type": "str"},
            "runtime": {"type": "str", "choices": ["auto", "docker", "process"], "default": "auto"},
            "supervisor": {"type": "str", "choices": ["auto", "supervisord", "systemd"], "default": "auto"},
            "port": {"type": "int"},
            "nginx_port": {"type": "int"},
            "nginx_image": {"type": "str"},
            "nginx": {"type": "str"},
            "tls": {
                "type": "dict",
                "options": {
                    "certificate": {"type": "str", "required": True},
                    # A path, which may be shown.
                    "key": {"type": "str", "required": True, "no_log": False},
                },
            },
            "health": {"type": "dict", "default": {"path": "/healthz", "timeout": 2.0}},
            "survey": {
                "type": "dict",
                "options": {
                    "images": {"type": "list", "elements": "str"},
                    "parts": {"type": "dict", "options": WISH},
                    "files": {"type": "list", "elements": "str"},
                    "loaded_path": {"type": "str"},
                },
            },
        },
        required_if=[("state", "observed", ["port", "nginx_port", "nginx_image", "network", "log_volume"])],
        supports_check_mode=True,
    )
    params: Dict[str, Any] = module.params
    # Resolved: a stack is known by this folder, whatever links lead to it.
    stack_dir = Path(os.path.realpath(params["home"])) / params["service"]
    claim = None if module.check_mode else params["claim"]
    taken = False
    try:
        # The lock is not part of what a play changes: taking and giving it back leaves a host as it was.
        if params["state"] == "log":
            module.exit_json(changed=False, log=release_log.read(stack_dir))
        if claim:
            # Its sockets, locks, logs and secrets are for nobody else of this host.
            keep_private(stack_dir)
            present = lock.acquire(stack_dir, claim, params["instead_of"])
            if present is not None:
                module.exit_json(changed=False, holder=present)
            taken = True
            lock.sweep(stack_dir)
        result = look(params, stack_dir, bool(claim))
        if claim and not result["strangers"]:
            if claim.get("action") == "teardown" and result["observed"]["state"]["live"]:
                release_log.append(stack_dir, release_log.entry("teardown", claim, None))
            ownership.note_kept(result["options"]["names"]["kept_volumes"], stack_dir)
        if params["survey"]:
            runtime = result["options"]["runtime"]
            result["surveyed"] = survey(params["survey"], runtime, stack_dir, bool(claim))
    except (state.StateError, lock.LockError, OSError) as error:
        if taken:
            lock.release(stack_dir, params["claim"]["run_id"])
        module.fail_json(msg=secret_values.masked(stack_dir, fault(error, stack_dir)))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
