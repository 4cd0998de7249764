"""Action swiftdeploy_step: say what was done. See library/swiftdeploy_step.py."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

ARGUMENTS: dict[str, dict[str, Any]] = {
    "msg": {"type": "str"},
    "output": {"type": "str"},
    "context": {"type": "dict"},
    "done": {"type": "bool", "default": True},
    "diff": {"type": "dict"},
}
RESULT_KEYS = {"msg": "swiftdeploy_step", "output": "swiftdeploy_output", "context": "swiftdeploy_context"}


class ActionModule(ActionBase):
    """Passes its arguments on to the callbacks under the keys they look for."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _result, args = self.validate_argument_spec(argument_spec=ARGUMENTS)
        given = {key: args[key] for key in RESULT_KEYS if args[key] is not None}
        if not given:
            raise AnsibleActionFail("give at least one of msg, output, context")
        marked = {} if args["done"] else {"swiftdeploy_done": False}
        # Ansible shows the difference of what changes; outside a dry run the task that changes it does.
        differs = {"changed": True, "diff": args["diff"]} if args["diff"] and self._task.check_mode else {}
        return {"changed": False, **differs, **{RESULT_KEYS[key]: value for key, value in given.items()}, **marked}
