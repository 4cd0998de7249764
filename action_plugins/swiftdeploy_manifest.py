# Apache-2.0 (see LICENSE)
"""The manifest, read and written on the controller: see library/swiftdeploy_manifest.py for its documentation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

try:
    from swiftdeploy import manifest, manifest_mode
except (ImportError, OSError) as error:  # OSError: an installation without its schema
    IMPORT_ERROR: str | None = str(error)
else:
    IMPORT_ERROR = None

MODES = ["stable", "canary"]


class ActionModule(ActionBase):
    """Runs on the controller alone."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer what is documented as RETURN; failed with all problems when the manifest is not valid."""
        super().run(tmp, task_vars)
        if IMPORT_ERROR is not None:
            return {
                "failed": True,
                "msg": f"the package swiftdeploy cannot be used on {sys.executable} ({IMPORT_ERROR}): "
                "run `make setup`, or `pip install -r requirements.txt` in the repository",
            }
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "str", "required": True},
                "state": {"type": "str", "choices": ["loaded", "mode"], "default": "loaded"},
                "mode": {"type": "str", "choices": MODES},
            },
            required_if=[("state", "mode", ["mode"])],
        )
        path = Path(arguments["path"]).expanduser()
        try:
            if arguments["state"] == "loaded":
                return {"changed": False, "path": str(path.absolute()), "manifest": manifest.load(path)}
            return self._set_mode(path, arguments["mode"])
        except manifest.ManifestError as error:
            return {
                "failed": True,
                "msg": f"{error}\nnext: correct it; ansible-playbook validate.yml checks it and touches nothing",
                "path": str(path.absolute()),
                "problems": [problem.as_dict() for problem in error.problems],
            }

    def _set_mode(self, path: Path, mode: str) -> dict[str, Any]:
        edit = manifest_mode.plan_mode(path, mode)
        if edit.changed and not self._task.check_mode:
            manifest_mode.set_mode(path, mode)
        result: dict[str, Any] = {"changed": edit.changed, "path": str(path.absolute()), "mode": mode}
        if self._task.diff and edit.changed:
            result["diff"] = edit.diff()
        return result
