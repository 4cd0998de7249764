# Apache-2.0 (see LICENSE)
"""Who runs this playbook: see library/swiftdeploy_context.py for its documentation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    from swiftdeploy import context
except ImportError as error:
    raise AnsibleActionFail(
        "the swiftdeploy package is not installed for this Ansible: run `make setup`, "
        "or `pip install -r requirements.txt` in the repository"
    ) from error


class ActionModule(ActionBase):
    """Runs on the controller alone."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer what is documented as RETURN."""
        super().run(tmp, task_vars)
        _result, args = self.validate_argument_spec(argument_spec={"commit_of": {"type": "path"}})
        # Tasks run in children of the one process that is the playbook run.
        answer = {"changed": False, **context.describe(os.getppid())}
        if args["commit_of"]:
            here = Path.cwd()
            answer["commit"] = context.commit((here / args["commit_of"]).parent, here)
        return answer
