# Apache-2.0 (see LICENSE)
"""The thresholds, checked on the controller: see library/swiftdeploy_thresholds.py for its documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    from swiftdeploy import thresholds
except (ImportError, OSError) as error:  # OSError: an installation without its schema
    raise AnsibleActionFail(
        "the swiftdeploy package is not installed for this Ansible: run `make setup`, "
        "or `pip install -r requirements.txt` in the repository"
    ) from error


class ActionModule(ActionBase):
    """Runs on the controller alone."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer what is documented as RETURN; failed with all problems when the thresholds are not valid."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(argument_spec={"path": {"type": "str", "required": True}})
        try:
            thresholds.load(Path(arguments["path"]).expanduser())
        except thresholds.ThresholdsError as error:
            problems = [problem.as_dict() for problem in error.problems]
            return {"failed": True, "changed": False, "msg": str(error), "problems": problems}
        return {"changed": False, "problems": []}
