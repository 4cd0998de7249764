"""Action swiftdeploy_history: check or report the history. See library/swiftdeploy_history.py."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

try:
    from swiftdeploy import explain, history, policy_store, report
except ImportError:
    history = None  # type: ignore[assignment]

ARGUMENTS: dict[str, dict[str, Any]] = {
    "state": {
        "type": "str",
        "choices": ["recorded", "verified", "reported", "explained", "policies"],
        "default": "verified",
    },
    "path": {"type": "str"},
    "run_id": {"type": "str"},
    "event": {"type": "str"},
    "host": {"type": "str"},
    "report_path": {"type": "str"},
    "decision": {"type": "str"},
    "explain_path": {"type": "str"},
    "files": {"type": "list", "elements": "dict"},
}
EXPLAIN_PATH = "audit_decisions"


def configured_path(given: str | None) -> Path:
    """The history the callback writes: what the task says, else the callback's own setting."""
    option = given
    if not option:
        try:
            option = constants.config.get_config_value(
                "path", plugin_type="callback", plugin_name="swiftdeploy_history"
            )
        except AnsibleError:
            # The callback is not loaded, so its settings are not known; nothing was written either.
            option = None
    return history.default_path(option)


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
            ],
        )
        path = configured_path(args["path"])
        try:
            if args["state"] == "recorded":
                host = args["host"] or str((task_vars or {}).get("inventory_hostname", ""))
                return self._recorded(path, args["run_id"], args["event"], host)
            if args["state"] == "verified":
                return self._verified(path)
            if args["state"] == "explained":
                return self._explained(path, args["decision"], args["explain_path"] or EXPLAIN_PATH)
            if args["state"] == "policies":
                kept, new = policy_store.keep(path, args["files"], dry=bool(self._task.check_mode))
                return {"changed": new, "path": str(path), "policies_path": str(kept)}
            return self._reported(path, args["report_path"])
        except history.HistoryError as error:
            # The cause is in the message; Ansible would print a chained one once more.
            raise AnsibleActionFail(str(error)) from None

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
        try:
            outcome = history.verify(path)
        except FileNotFoundError:
            return {"changed": False, "path": str(path), "exists": False, "ok": True, "records": 0}
        return {"changed": False, "path": str(path), "exists": True, **dataclasses.asdict(outcome)}

    def _reported(self, path: Path, report_path: str | None) -> dict[str, Any]:
        target = Path.cwd() / Path(report_path or report.DEFAULT_NAME).expanduser()
        try:
            text, outcome = report.build(path)
        except FileNotFoundError:
            return {
                "changed": False,
                "path": str(path),
                "report_path": str(target),
                "exists": False,
                "ok": True,
                "records": 0,
                "msg": f"no history yet at {path}",
            }
        before = report.current(target)
        result: dict[str, Any] = {
            "changed": before != text,
            "path": str(path),
            "report_path": str(target),
            "exists": True,
            **dataclasses.asdict(outcome),
            "msg": report.verdict(outcome, path),
        }
        if self._task.diff:
            result["diff"] = {
                "before": before or "",
                "after": text,
                "before_header": str(target),
                "after_header": str(target),
            }
        if result["changed"] and not self._task.check_mode:
            report.write(target, text)
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
