"""Action swiftdeploy_event: announce an event; the history callback writes it. See library/swiftdeploy_event.py."""

from __future__ import annotations

import sys
import uuid
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    from swiftdeploy import history
except ImportError:
    history = None  # type: ignore[assignment]

ARGUMENTS: dict[str, dict[str, Any]] = {
    "event": {"type": "str", "required": True},
    "fields": {"type": "dict", "default": {}},
    "summary": {"type": "str"},
    "run_id": {"type": "str"},
    "actor": {"type": "str"},
    "history_path": {"type": "str"},
}
# Set by this plugin, so a field of that name would be lost without a word.
OWN_KEYS = ("event", "run_id", "actor", "timestamp", "summary", "check", "history_path")


class ActionModule(ActionBase):
    """Builds the event; writes nothing itself."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        if history is None:
            raise AnsibleActionFail(
                f"the Python package swiftdeploy is missing on {sys.executable}; "
                "run `make setup` or `pip install -r requirements.txt`"
            )
        variables = task_vars or {}
        _result, args = self.validate_argument_spec(argument_spec=ARGUMENTS)
        fields = args["fields"]
        taken = sorted(key for key in fields if key in history.RESERVED or key in OWN_KEYS)
        if taken:
            raise AnsibleActionFail(
                f"fields of {args['event']!r} may not hold {', '.join(taken)}: the history sets these itself"
            )
        try:
            name = history.check_event_name(args["event"])
            event = history.plain(fields)
        except history.HistoryError as error:
            # The cause is in the message; Ansible would print a chained one once more.
            raise AnsibleActionFail(str(error)) from None
        event.update(
            event=name,
            run_id=args["run_id"] or str(uuid.uuid4()),
            actor=args["actor"] or history.default_actor(),
            timestamp=history.utc_now(),
            check=bool(self._task.check_mode),
        )
        event.setdefault("host", str(variables.get("inventory_hostname", "")))
        for key in ("summary", "history_path"):
            if args[key]:
                event[key] = args[key]
        return {
            "changed": False,
            "swiftdeploy_event": event,
            "run_id": event["run_id"],
            "actor": event["actor"],
            "timestamp": event["timestamp"],
        }
