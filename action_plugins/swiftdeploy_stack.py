# Apache-2.0 (see LICENSE)
"""A host's stack and lock, with the one thing only the controller knows: whether a holder here still lives.

See library/swiftdeploy_stack.py for the documentation.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

try:
    from swiftdeploy import context
    from swiftdeploy_target import lock
except ImportError as error:
    raise AnsibleActionFail(
        "the swiftdeploy package is not installed for this Ansible: run `make setup`, "
        "or `pip install -r requirements.txt` in the repository"
    ) from error


def sentence(holder: dict[str, Any], host: str) -> str:
    """Who holds the lock, in words."""
    return f"{holder.get('actor')} holds {host} since {holder.get('since')} for {holder.get('action')}"


def freeing(stack_dir: str, run_id: str) -> str:
    """The shell command that gives the lock of ``run_id`` back, and leaves that of any other run alone.

    That it is gone is on the disk before the command ends: of a lock that came back with a loss of power another
    controller could not tell that its run has ended. An old ``sync`` that takes no folder is no failure.
    """
    path = shlex.quote(f"{stack_dir}/{lock.FILE_NAME}")
    mine = shlex.quote(json.dumps({"run_id": run_id})[1:-1])
    return f"if grep -qsF {mine} {path}; then rm -f {path} && {{ sync {shlex.quote(stack_dir)} 2>/dev/null || :; }}; fi"


class ActionModule(ActionBase):
    """Runs the module on the host, and once more in place of a holder that is gone."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer the module's result; failed when somebody else holds the lock."""
        super().run(tmp, task_vars)
        arguments = {**self._task.args}
        host = str((task_vars or {}).get("inventory_hostname", "this host"))
        if arguments.get("state") == "free":
            return self._free(arguments)
        result = self._execute_module(module_name="swiftdeploy_stack", module_args=arguments, task_vars=task_vars)
        holder = result.get("holder")
        if not holder:
            return dict(result)
        dead = context.is_gone(holder, arguments["claim"]["controller"])
        if not (dead or boolean(arguments.get("break_lock", False))):
            return {
                "failed": True,
                "holder": holder,
                "msg": f"{sentence(holder, host)} (run {holder.get('run_id')}). Wait until that run has ended. "
                "If you are sure that it is dead, run again with -e break_lock=true; that is recorded.",
            }
        retry = {**arguments, "instead_of": holder.get("run_id")}
        result = self._execute_module(module_name="swiftdeploy_stack", module_args=retry, task_vars=task_vars)
        if result.get("holder"):
            return {"failed": True, "msg": f"{sentence(result['holder'], host)}: it was quicker. Run again later."}
        why = "the process of its holder is gone" if dead else "break_lock was given"
        return {**result, "broken": holder, "broken_because": why}

    def _free(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Give the lock back; a dry run took none."""
        if self._task.check_mode:
            return {"changed": False}
        stack_dir = f"{self._remote_expand_user(str(arguments['home'])).rstrip('/')}/{arguments['service']}"
        done = self._low_level_execute_command(freeing(stack_dir, str(arguments["claim"]["run_id"])))
        if done["rc"] == 0:
            return {"changed": False}
        said = f"{done['stdout']}{done['stderr']}".strip() or f"status {done['rc']}"
        return {
            "failed": True,
            "msg": f"the lock {stack_dir}/{lock.FILE_NAME} cannot be removed: {said}\n"
            "next: remove that file on the host, or run again with -e break_lock=true",
        }
