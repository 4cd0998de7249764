# Apache-2.0 (see LICENSE)
"""Lookup swiftdeploy_hosts: whom a command is for, after a look at how it was called."""

from __future__ import annotations

DOCUMENTATION = r"""
name: swiftdeploy_hosts
short_description: Whom a command is for
version_added: 0.1.0
description:
  - Gives back the hosts that it is given, where there is something to do and it would be done as it is meant.
  - Else it prints what is wrong and what to do, and ends the run with status 1, before anything is begun. Ansible
    itself takes an inventory that does not exist, an empty group, or settings that it has not found, for nothing to
    do and ends with status 0.
author:
  - SwiftDeploy maintainers (@swiftdeploy)
options:
  _terms:
    description: The command, and the hosts that it is for.
    required: true
"""
EXAMPLES = r"""
- name: Run every pre-flight check
  hosts: "{{ lookup('swiftdeploy_hosts', 'validate', 'all') }}"
"""
RETURN = r"""
_raw:
  description: The hosts that were given.
  type: list
  elements: str
"""

import os
import sys
from pathlib import Path
from typing import Any

from ansible import constants, context
from ansible.inventory.manager import InventoryManager
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display

try:
    from swiftdeploy import invocation
except ImportError:
    invocation = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parents[1]


class LookupModule(LookupBase):
    """Asks `swiftdeploy.invocation`."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **_options: Any) -> list[str]:
        """Answer what is documented as RETURN."""
        command, hosts = terms
        if context.CLIARGS.get("syntax") or context.CLIARGS.get("listhosts") or context.CLIARGS.get("listtasks"):
            return [hosts]
        if invocation is None:
            found = [
                f"the Python package swiftdeploy is missing on {sys.executable}\n"
                f"next: run `make setup` in {ROOT} and use .venv/bin/ansible-playbook"
            ]
        else:
            found = invocation.problems(self._given(command, hosts, variables or {}))
        if found:
            self._end(found)
        return [hosts]

    def _given(self, command: str, hosts: str, variables: dict[str, Any]) -> Any:
        arguments, sources = context.CLIARGS, [str(one) for one in variables.get("ansible_inventory_sources") or ()]
        return invocation.Invocation(
            command=command,
            root=ROOT,
            folder=Path.cwd(),
            config=constants.CONFIG_FILE and str(constants.CONFIG_FILE),
            callbacks=[str(name) for name in constants.CALLBACKS_ENABLED],
            settings={
                "strategy": str(constants.DEFAULT_STRATEGY).rpartition(".")[2],
                "hash_behaviour": str(constants.DEFAULT_HASH_BEHAVIOUR),
                "inject_facts_as_vars": bool(constants.INJECT_FACTS_AS_VARS),
            },
            sources=sources,
            unparsed=self._unparsed(sources),
            everybody=[str(name) for name in variables["groups"].get("all", ())],
            groups=[str(name) for name in variables["groups"]],
            hosts=[str(name) for name in variables.get("ansible_play_hosts_all") or ()],
            limit=str(variables.get("ansible_limit") or ""),
            local=hosts != "all",
            parts={
                # No task of ours has a tag.
                "--tags": not {"all", "untagged"} & set(arguments.get("tags") or ["all"]),
                "--skip-tags": {"all", "untagged"} & set(arguments.get("skip_tags") or ()),
                "--start-at-task": arguments.get("start_at_task"),
            },
        )

    def _unparsed(self, sources: list[str]) -> list[str]:
        """Of several inventories the files that nothing could read: Ansible goes on with the others."""
        files = [one for one in sources if Path(one).is_file() and not os.access(one, os.X_OK)]
        if len(sources) < 2:
            return []
        reader = InventoryManager(loader=self._loader, sources=[], parse=False)
        return [one for one in files if not reader.parse_source(one)]

    def _end(self, found: list[str]) -> None:
        display = Display()
        for problem in found:
            first, *rest = problem.splitlines()
            text = "\n".join([f"FAILED  {first}", *(f"  {line}" for line in rest)])
            display.display(text, color=constants.COLOR_ERROR, stderr=True)
        raise SystemExit(1)
