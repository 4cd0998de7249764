# Apache-2.0 (see LICENSE)
"""Controller's half of swiftdeploy_images: hashes on every run, build contexts only when the host asks for them.

See library/swiftdeploy_images.py for the documentation.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

try:
    from swiftdeploy import image_recipes
except ImportError as error:
    raise AnsibleActionFail(
        "the swiftdeploy package is not installed for this Ansible: run `make setup`, "
        "or `pip install -r requirements.txt` in the repository"
    ) from error


class ActionModule(ActionBase):
    """Runs the module of the same name once, and a second time with contexts when something has to be built."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer what is documented as RETURN."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        names = {str(role): str(name) for role, name in dict(arguments.get("images") or {}).items()}
        binary = str(arguments.get("opa_binary") or "")
        parts = image_recipes.Parts(
            dockerfiles=Path(str(arguments.get("dockerfiles", ""))),
            service=Path(str(arguments.get("service_context", ""))),
            opa_binary=Path(binary).expanduser() if binary else None,
            bundled_repository=str(arguments.get("bundled_repository", "swift-deploy-1-node")),
            source=str(arguments.get("source", "auto")),
            opa_later=boolean(arguments.get("opa_later", False)),
        )
        try:
            recipes = image_recipes.recipes(parts, names)
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from error
        except OSError as error:
            raise AnsibleActionFail(f"cannot read what the images are built from: {error}") from error
        result = self._module({**arguments, "recipes": recipes}, task_vars)
        if result.get("failed") or not result.get("needed") or self._task.check_mode:
            return result
        return self._build({**arguments, "recipes": recipes}, parts, result, task_vars)

    def _module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="swiftdeploy_images", module_args=arguments, task_vars=task_vars
        )
        return result

    def _build(
        self,
        arguments: dict[str, Any],
        parts: image_recipes.Parts,
        first: dict[str, Any],
        task_vars: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Bring the contexts that ``first`` needs to the host and let it build."""
        recipes = {role: dict(recipe) for role, recipe in arguments["recipes"].items()}
        remote_folder = self._make_tmp_path()
        try:
            with tempfile.TemporaryDirectory(prefix="swiftdeploy-contexts-") as folder:
                for role in first["needed"]:
                    local = Path(folder) / f"{role}.tar"
                    why_not = image_recipes.make_context(role, parts, first["architecture"], local)
                    if why_not is None:
                        remote = self._connection._shell.join_path(remote_folder, local.name)
                        recipes[role]["context"] = self._transfer_file(str(local), remote)
                    else:
                        recipes[role]["why_not"] = why_not
            self._fixup_perms2([remote_folder, *(r["context"] for r in recipes.values() if r.get("context"))])
            result = self._module(
                {
                    **arguments,
                    "recipes": recipes,
                    "tried": first["attempts"],
                    "out_of_reach": first["out_of_reach"],
                },
                task_vars,
            )
        finally:
            self._remove_tmp_path(remote_folder, force=True)
        # What the first call pulled the second one finds present.
        for role, image in first["images"].items():
            if image["changed"] and role in result.get("images", {}):
                result["images"][role] = image
                result["changed"] = True
        return result
