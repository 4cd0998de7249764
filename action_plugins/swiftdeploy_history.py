"""Action swiftdeploy_history: check or report the history. See library/swiftdeploy_history.py."""

from __future__ import annotations

import dataclasses
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.text.formatters import human_to_bytes
from ansible.plugins.action import ActionBase

try:
    from swiftdeploy import explain, history, others, policy_store, report
except ImportError:
    history = None  # type: ignore[assignment]

ARGUMENTS: dict[str, dict[str, Any]] = {
    "state": {
        "type": "str",
        "choices": ["writable", "recorded", "verified", "reported", "explained", "policies", "archived", "compared"],
        "default": "verified",
    },
    "path": {"type": "str"},
    "run_id": {"type": "str"},
    "event": {"type": "str"},
    "host": {"type": "str"},
    "report_path": {"type": "str"},
    "html_path": {"type": "str"},
    "since": {"type": "str"},
    "until": {"type": "str"},
    "report_host": {"type": "str"},
    "decision": {"type": "str"},
    "explain_path": {"type": "str"},
    "files": {"type": "list", "elements": "dict"},
    "archive_path": {"type": "str"},
    "logs": {"type": "dict"},
}
EXPLAIN_PATH = "audit_decisions"


def _setting(name: str) -> Any:
    """A setting of the callback, None where it is not loaded: nothing was written then either."""
    try:
        return constants.config.get_config_value(name, plugin_type="callback", plugin_name="swiftdeploy_history")
    except AnsibleError:
        return None


def configured_path(given: str | None, variable: Any) -> Path:
    """The history the callback writes: what the task says, else swiftdeploy_history, else the callback's setting."""
    if variable is not None and not isinstance(variable, str):
        raise AnsibleActionFail(f"swiftdeploy_history is {variable!r}; it must be the path of a file")
    return history.default_path(given or variable or _setting("path"))


def configured_size() -> int | None:
    """Bytes at which a file is closed, None for the usual."""
    value = _setting("max_size")
    try:
        return None if value is None else int(human_to_bytes(value))
    except ValueError:
        raise AnsibleActionFail(
            f"SWIFTDEPLOY_HISTORY_MAX_SIZE (history_max_size in ansible.cfg) is {value!r}; "
            "it must be a number of bytes, or a number with K, M or G, for example 64M"
        ) from None


def _plain(outcome: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(outcome), "notes": list(outcome.notes)}


def _verdict(outcome: Any, path: Path) -> str:
    """One sentence on the chain, and where it is whole, what is not known of it and its last line."""
    words = history.notes_words(outcome) if outcome.ok else ""
    return str(report.verdict(outcome, path)) + (f"; {words}" if words else "")


class ActionModule(ActionBase):
    """Runs on the controller, where the history is."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        if history is None:
            raise AnsibleActionFail(
                f"the Python package swiftdeploy is missing on {sys.executable}; "
                "run `make setup` or `pip install -r requirements.txt`"
            )
        _result, args = self.validate_argument_spec(
            argument_spec=ARGUMENTS,
            required_if=[
                ("state", "recorded", ("run_id", "event")),
                ("state", "explained", ("decision",)),
                ("state", "policies", ("files",)),
                ("state", "archived", ("archive_path",)),
                ("state", "compared", ("logs",)),
            ],
        )
        variables = task_vars or {}
        path = configured_path(args["path"], self._templar.template(variables.get("swiftdeploy_history")))
        host = args["host"] or str(variables.get("inventory_hostname", ""))
        work: dict[str, Callable[[], dict[str, Any]]] = {
            "writable": lambda: self._writable(path),
            "recorded": lambda: self._recorded(path, args["run_id"], args["event"], host),
            "verified": lambda: self._verified(path),
            "reported": lambda: self._reported(path, args),
            "explained": lambda: self._explained(path, args["decision"], args["explain_path"] or EXPLAIN_PATH),
            "policies": lambda: self._policies(path, args["files"]),
            "archived": lambda: self._archived(path, args["archive_path"]),
            "compared": lambda: self._compared(path, args["logs"]),
        }
        try:
            return work[args["state"]]()
        except (history.HistoryError, report.ChoiceError) as error:
            # The cause is in the message; Ansible would print a chained one once more.
            raise AnsibleActionFail(str(error)) from None

    def _writable(self, path: Path) -> dict[str, Any]:
        configured_size()
        try:
            history.check_writable(path)
        except history.HistoryError as error:
            raise AnsibleActionFail(f"{error}. Nothing was changed: what cannot be recorded is not begun") from None
        return {"changed": False, "path": str(path)}

    def _policies(self, path: Path, files: list[dict[str, str]]) -> dict[str, Any]:
        kept, new = policy_store.keep(path, files, dry=bool(self._task.check_mode))
        return {"changed": new, "path": str(path), "policies_path": str(kept)}

    def _compared(self, path: Path, told: dict[str, Any]) -> dict[str, Any]:
        found = others.unseen(told, path)
        return {"changed": False, "path": str(path), "unseen": found, "msg": others.text(found, told, path)}

    def _archived(self, path: Path, folder: str) -> dict[str, Any]:
        target = Path.cwd() / Path(folder).expanduser()
        moved = [] if self._task.check_mode else history.archive(path, target)
        words = f"{len(moved)} closed files of {path.name} moved to {target}" if moved else "nothing to move"
        return {"changed": bool(moved), "path": str(path), "archived": moved, "msg": words}

    def _swept(self, path: Path) -> dict[str, Any]:
        """Record what runs that are gone left open: what of it goes into the result."""
        if not path.parent.is_dir():
            raise AnsibleActionFail(
                f"cannot read the history {path}: its folder does not exist. Create it or give another path"
            )
        if self._task.check_mode:
            return {}
        found: list[dict[str, Any]] = []
        told: dict[str, Any] = {}
        try:
            history.sweep(path, socket.gethostname(), configured_size(), found.append)
        except (history.HistoryError, OSError) as error:
            told["warnings"] = [f"an interrupted run is not recorded: {error}"]
        if found:
            # For the callback: this is a worker, and what notifies is in the main process.
            told["swiftdeploy_appended"] = {"path": str(path), "records": found}
        return told

    def _recorded(self, path: Path, run_id: str, event: str, host: str) -> dict[str, Any]:
        if self._task.check_mode:
            return {"changed": False, "msg": "check mode: nothing is recorded"}
        why = (
            f"no line for run {run_id} is in {path}. See that the callback swiftdeploy_history is enabled "
            "(callbacks_enabled in ansible.cfg, ANSIBLE_CALLBACKS_ENABLED)"
        )
        try:
            record = history.find(path, run_id, event, host)
        except FileNotFoundError:
            record = None
        except history.HistoryError as error:
            record, why = None, str(error)
        if record is not None:
            return {"changed": False, "seq": record["seq"], "hash": record["hash"], "path": str(path)}
        why = history.failures.get((run_id, event, host), why)
        return {
            "failed": True,
            "changed": False,
            "path": str(path),
            "msg": f"{history.outcome_words(event)}, but its record could not be written: {why}. "
            "Correct that and run it again, so that the history knows of it.",
        }

    def _verified(self, path: Path) -> dict[str, Any]:
        result = {"changed": False, "path": str(path), **self._swept(path)}
        try:
            outcome = history.verify(path)
        except FileNotFoundError:
            return {**result, "exists": False, "ok": True, "records": 0}
        return {**result, "exists": True, **_plain(outcome)}

    def _reported(self, path: Path, args: dict[str, Any]) -> dict[str, Any]:
        choice = report.choose(args["since"] or "", args["until"] or "", args["report_host"] or "")
        target = Path.cwd() / Path(args["report_path"] or report.DEFAULT_NAME).expanduser()
        page = Path.cwd() / Path(args["html_path"]).expanduser() if args["html_path"] else target.with_suffix(".html")
        if page == target:
            raise AnsibleActionFail(f"the Markdown and the HTML report cannot both be {target}: give one another path")
        paths = {"path": str(path), "report_path": str(target), "html_path": str(page)}
        swept = self._swept(path)
        try:
            made = report.make(path, choice)
        except FileNotFoundError:
            missing = {"changed": False, "exists": False, "ok": True, "records": 0, "shown": "", "charts_problem": ""}
            return {**missing, **paths, **swept, "msg": f"no history yet at {path}"}
        files = {target: made.markdown, page: made.html}
        before = {one: report.current(one) for one in files}
        changed = [one for one, text in files.items() if before[one] != text]
        result: dict[str, Any] = {
            "changed": bool(changed),
            **paths,
            "exists": True,
            **_plain(made.outcome),
            "shown": made.shown,
            "charts_problem": made.problem,
            "msg": _verdict(made.outcome, path),
            **swept,
        }
        if self._task.diff:
            headers = {"before_header": str(target), "after_header": str(target)}
            result["diff"] = [{"before": before[target] or "", "after": made.markdown, **headers}]
            if page in changed:
                # A page of markup is nothing to read as a diff.
                result["diff"].append({"prepared": f"{page}: {'new' if before[page] is None else 'changed'}\n"})
        if not self._task.check_mode:
            for one in changed:
                report.write(one, files[one])
        return result

    def _explained(self, path: Path, wanted: str, folder: str) -> dict[str, Any]:
        try:
            decision = explain.find(path, wanted)
        except FileNotFoundError:
            raise AnsibleActionFail(f"no history yet at {path}") from None
        except explain.NotFoundError as error:
            raise AnsibleActionFail(str(error)) from None
        target = Path.cwd() / Path(folder).expanduser() / decision.id
        try:
            files = explain.bundle(decision, policy_store.load(path, decision.revision or ""))
        except (explain.NotFoundError, history.HistoryError) as error:
            return {
                "changed": False,
                "path": str(path),
                "explain_path": None,
                "msg": explain.text(decision, None, str(error)),
            }
        changed = [name for name, text in files.items() if report.current(target / name) != text]
        if not self._task.check_mode:
            for name in changed:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                report.write(target / name, files[name])
        return {
            "changed": bool(changed),
            "path": str(path),
            "explain_path": str(target),
            "msg": explain.text(decision, explain.command(decision, target)),
        }
