# Apache-2.0 (see LICENSE)
"""Controller's half of swiftdeploy_images: hashes on every run, contexts and archives only when the host asks for them.

See library/swiftdeploy_images.py for the documentation.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

try:
    from swiftdeploy import image_archives, image_recipes
    from swiftdeploy_target import images as host_images
except ImportError as error:
    raise AnsibleActionFail(
        "the swiftdeploy package is not installed for this Ansible: run `make setup`, "
        "or `pip install -r requirements.txt` in the repository"
    ) from error


def logged_in(login: dict[str, Any] | None, names: dict[str, str]) -> dict[str, str] | None:
    """The login with the values of the variables that it names; None where no image comes from its registry."""
    if not login:
        return None
    registry = str(login["registry"])
    wanted = {host_images.parse_reference(name).registry for name in names.values()}
    if registry not in wanted:
        return None
    missing = [str(login[key]) for key in ("username", "password") if not os.environ.get(str(login[key]))]
    if missing:
        raise AnsibleActionFail(
            f"images.login of the manifest names {' and '.join(missing)}, which the environment of the controller does "
            f"not have. Set them there (they hold user name and password for {registry}), or take images.login out"
        )
    username, password = (os.environ[str(login[key])] for key in ("username", "password"))
    return {"registry": registry, "auth": host_images.login_words(username, password)}


def as_wished(
    names: dict[str, str], seen: dict[str, Any], recipes: dict[str, Any], source: str
) -> dict[str, Any] | None:
    """What the module would return where the host was ``seen`` to have all images as they are asked for, else None."""
    for role, name in names.items():
        if name not in seen or role not in recipes or host_images.decide(name, seen[name], recipes[role], source):
            return None
    images = {role: host_images.entry(name, seen[name], "present") for role, name in names.items()}
    nothing: dict[str, Any] = {"needed": [], "later": [], "awaited": [], "attempts": {}, "out_of_reach": {}}
    return {"changed": False, "images": images, **nothing, "architecture": ""}


@contextlib.contextmanager
def controllers_engine(login: dict[str, str] | None, timeouts: tuple[float, float]) -> Iterator[host_images.Engine]:
    """This machine's own engine, logged in for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="swiftdeploy-docker-") as folder:
        if login:
            (Path(folder) / "config.json").write_text(host_images.credentials(**login))
        yield host_images.Engine(*timeouts, image_archives.SAVE_TIMEOUT, folder if login else None)


class ActionModule(ActionBase):
    """Runs the module of the same name once, and a second time with what it asks for: contexts, archives."""

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
            arguments["login"] = logged_in(arguments.get("login"), names)
            archives = self._archives(arguments, names)
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from error
        except OSError as error:
            raise AnsibleActionFail(f"cannot read what the images are built from: {error}") from error
        for role, archive in archives.items():
            told = isinstance(archive, str)
            recipes[role]["archive"] = {
                "ids": [] if told else sorted(archive.ids),
                "why_not": archive if told else None,
                "path": None,
                "sha256": None,
            }
        settled = as_wished(names, dict(arguments.pop("seen", None) or {}), recipes, parts.source)
        if settled is not None:
            return settled
        arguments = {key: value for key, value in arguments.items() if value is not None} | {"recipes": recipes}
        result = self._module(arguments, task_vars)
        asked = result.get("needed") or result.get("awaited")
        if result.get("failed") or not asked or self._task.check_mode:
            return result
        return self._bring(arguments, parts, archives, result, task_vars)

    def _archives(self, arguments: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
        """{role: its archive, or why there is none} where images may be sent."""
        source, given = str(arguments.get("source", "auto")), str(arguments.get("archive_dir") or "")
        if not given or source not in ("archive", "auto"):
            return {}
        folder = Path(given).expanduser().resolve()
        if source == "auto":
            lying = {role: image_archives.offered(name, folder) for role, name in names.items()}
            return {role: archive for role, archive in lying.items() if archive is not None}
        found: dict[str, Any] = {}
        timeouts = (float(arguments.get("registry_timeout", 10)), float(arguments.get("pull_timeout", 600)))
        with controllers_engine(arguments["login"], timeouts) as engine:
            for role, name in names.items():
                try:
                    found[role] = image_archives.find(name, folder, engine, pull=not self._task.check_mode)
                except image_archives.ArchiveError as error:
                    found[role] = str(error)
        return found

    def _module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="swiftdeploy_images", module_args=arguments, task_vars=task_vars
        )
        return result

    def _shell(self, command: str, data: bytes | None) -> tuple[int, str, str]:
        """One shell command on the host, with bytes to read."""
        try:
            done = self._low_level_execute_command(command, in_data=data)
        except AnsibleConnectionFailure as error:
            with contextlib.suppress(AnsibleConnectionFailure, AttributeError):
                self._connection.reset()
            raise image_archives.ConnectionBrokenError(str(error)) from error
        return int(done["rc"]), str(done["stdout"]), str(done["stderr"])

    def _send(self, archive: Any, folder: str) -> dict[str, Any]:
        """A recipe's ``archive`` once the file is on the host, or with why it is not."""
        try:
            made, digest = image_archives.ensure(archive)
            path = image_archives.send(made.path, digest, folder, self._shell)
        except image_archives.ArchiveError as error:
            return {"ids": [], "why_not": str(error), "path": None, "sha256": None}
        except image_archives.ConnectionBrokenError as error:
            raise AnsibleConnectionFailure(str(error)) from error
        return {"ids": sorted(made.ids), "why_not": None, "path": path, "sha256": digest}

    def _bring(
        self,
        arguments: dict[str, Any],
        parts: image_recipes.Parts,
        archives: dict[str, Any],
        first: dict[str, Any],
        task_vars: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Bring the contexts and archives that ``first`` asks for to the host and let it go on."""
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
            incoming = str(arguments.get("incoming_dir") or "~/.swiftdeploy/.incoming")
            if first["awaited"]:
                incoming = self._remote_expand_user(incoming)
            for role in first["awaited"]:
                recipes[role]["archive"] = self._send(archives[role], incoming)
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
