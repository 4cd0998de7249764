# Apache-2.0 (see LICENSE)
"""Files that are rendered for a person to read: see library/swiftdeploy_generated.py for its documentation.

In the controller's own process, as a module would cost a start of Python for each host.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    from swiftdeploy_target.files import change, fault
except ImportError as error:
    raise AnsibleActionFail(
        "the swiftdeploy package is not installed for this Ansible: run `make setup`, "
        "or `pip install -r requirements.txt` in the repository"
    ) from error

FILE = {"path": {"type": "str", "required": True}, "content": {"type": "str", "required": True}}


class ActionModule(ActionBase):
    """Runs on the controller alone."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer what is documented as RETURN."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "root": {"type": "path", "required": True},
                "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                "files": {"type": "list", "elements": "dict", "default": [], "options": FILE},
                "absent": {"type": "list", "elements": "str", "default": []},
                "only": {"type": "str"},
            }
        )
        root = Path(arguments["root"])
        if arguments["state"] == "absent":
            return self._remove(root)
        try:
            files = [{**entry, "mode": "0644"} for entry in arguments["files"]]
            wanted = change(root, files, absent=arguments["absent"], only=arguments["only"])
            diff, paths = wanted.differences(), wanted.paths
            if not self._task.check_mode:
                wanted.apply()
        except (OSError, ValueError) as error:
            why = fault(error, root)
            return {"failed": True, "changed": False, "msg": f"cannot write the files below {root}: {why}"}
        return {"changed": bool(paths), "changed_paths": paths, "diff": diff}

    def _remove(self, root: Path) -> dict[str, Any]:
        there = root.is_dir()
        try:
            if there and not self._task.check_mode:
                shutil.rmtree(root)
                with contextlib.suppress(OSError):
                    # Of another service, or of another host.
                    root.parent.rmdir()
                    root.parent.parent.rmdir()
        except OSError as error:
            return {"failed": True, "changed": False, "msg": f"cannot remove {root}: {fault(error, root)}"}
        return {"changed": there}
