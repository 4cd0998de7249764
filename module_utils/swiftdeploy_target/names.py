"""What a stack calls its things on a host, and the mark by which it knows them again.

All stacks of an engine share its names. Each name here holds the service's, in a way that has one reading alone: a
service's name has neither an underscore nor a dot, so that neither the services ``shop`` and ``shop-opa`` nor the
networks ``a-b`` of ``c`` and ``a`` of ``b-c`` can meet.
"""

from __future__ import annotations

from typing import Dict, Iterable

HOME_LABEL = "org.swiftdeploy.home"
SERVICE_LABEL = "org.swiftdeploy.service"


def project(service: str) -> str:
    """The compose project of nginx and the slots."""
    return f"swiftdeploy-{service}"


def policy_project(service: str) -> str:
    """The compose project of the policy engine."""
    return f"swiftdeploy-{service}_opa"


def container(project_name: str, program: str) -> str:
    """The container of a program of a project; also the name under which the others of its network find it."""
    return f"{project_name}-{program}"


def network(name: str, service: str) -> str:
    """The network of a stack whose manifest calls it ``name``."""
    return f"{name}_{service}"


def volume(name: str, service: str, kept: Iterable[str] = ()) -> str:
    """The volume of a stack whose manifest calls it ``name``; those in ``kept`` go by that name alone."""
    return name if name in kept else f"{name}_{service}"


def labels(home: str, service: str) -> Dict[str, str]:
    """The mark: whose a container, a network or a volume is. ``home`` is the resolved folder on the host."""
    return {HOME_LABEL: home, SERVICE_LABEL: service}
