"""Writes the history: appends the event that a task result carries. Observes and appends, never decides."""

from __future__ import annotations

DOCUMENTATION = r"""
name: swiftdeploy_history
type: notification
short_description: Write events to the SwiftDeploy history
version_added: 0.1.0
description:
  - Looks at every task result. One that carries the key C(swiftdeploy_event) becomes one line of the history,
    a file of JSON lines chained by SHA-256.
  - In check mode nothing is written.
  - A host that becomes unreachable in the middle of a run gets a C(..._failed) record, when an earlier result
    of that host carried C(swiftdeploy_context).
  - Ansible turns an error in a callback into a warning, so this plugin cannot fail a play. The action
    C(swiftdeploy_history) with C(state=recorded) does that; the role C(record) uses both.
author:
  - SwiftDeploy maintainers (@swiftdeploy)
requirements:
  - enable it under C(callbacks_enabled) in C(ansible.cfg)
  - the Python package C(swiftdeploy), installed by C(make setup)
options:
  path:
    description:
      - The history file. Its folder must exist.
      - A relative path starts at the folder the playbook was started from. Not set or empty, it is
        C(history.jsonl) there.
    type: str
    env:
      - name: SWIFTDEPLOY_HISTORY
    ini:
      - section: swiftdeploy
        key: history
"""

import os
import uuid
from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import action_loader

try:
    from swiftdeploy import history
except ImportError:
    # Said by the action swiftdeploy_history, which can fail the play; this plugin could only warn.
    history = None  # type: ignore[assignment]


class CallbackModule(CallbackBase):
    """Hands task results to `swiftdeploy.history.Recorder`."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "swiftdeploy_history"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._recorder: history.Recorder | None = None
        # Now, before anything can change the working folder.
        self._start_folder = os.getcwd()  # noqa: PTH109 - a string is what is stored

    def set_options(self, *args: Any, **kwargs: Any) -> None:
        super().set_options(*args, **kwargs)
        if history is not None:
            path = history.default_path(self.get_option("path"), self._start_folder)
            self._recorder = history.Recorder(path, str(uuid.uuid4()), history.default_actor())

    def _observe(self, result: Any) -> None:
        if self._recorder is None:
            return
        name = str(result.task.action)
        # Only our own actions run on the controller throughout; any module's result comes from a host.
        trusted = name.startswith("swiftdeploy_") and action_loader.has_plugin(name)
        check = result.task.check_mode is True
        self._tell(self._recorder.observe(result.host.get_name(), result.result, trusted, check))

    def _tell(self, problem: str | None) -> None:
        if problem:
            self._display.display(problem, color=constants.COLOR_ERROR, stderr=True)

    def v2_runner_on_ok(self, result: Any) -> None:
        self._observe(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._observe(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._observe(result)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._observe(result)

    def v2_runner_retry(self, result: Any) -> None:
        self._observe(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._observe(result)
        if self._recorder is not None and not result.task.ignore_unreachable:
            reason = str(result.result.get("msg") or "no answer").removeprefix("Task failed: ").strip()
            check = result.task.check_mode is True
            self._tell(self._recorder.unreachable(result.host.get_name(), reason, check))
