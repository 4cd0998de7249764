"""Writes the history: appends the event that a task result carries. Observes and appends, never decides."""

from __future__ import annotations

DOCUMENTATION = r"""
name: swiftdeploy_history
type: notification
short_description: Write events to the SwiftDeploy history
version_added: 0.1.0
description:
  - Looks at the results of those actions that run on the controller alone. One that carries the key
    C(swiftdeploy_event) becomes one line of the history, a file of JSON lines chained by SHA-256. Such a key in what a
    module on a host has answered means nothing.
  - In check mode nothing is written.
  - A host that becomes unreachable in the middle of a run gets a C(..._failed) record, when an earlier result
    of that host carried C(swiftdeploy_context).
  - From C(swiftdeploy_context) until its end is recorded, an operation has a small file in C(PATH.open). A run that is
    killed leaves it there, and the next one records C(..._interrupted), with the last task that had begun. Ctrl-C
    records it at once.
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
      - The variable C(swiftdeploy_history), of the inventory or by C(-e), comes before it.
    type: str
    env:
      - name: SWIFTDEPLOY_HISTORY
    ini:
      - section: swiftdeploy
        key: history
  max_size:
    description:
      - A history file of this size or more is closed and named by the numbers of its lines; a new one is begun.
      - Bytes, or a number with K, M or G; 0 for never.
    type: str
    default: 64M
    env:
      - name: SWIFTDEPLOY_HISTORY_MAX_SIZE
    ini:
      - section: swiftdeploy
        key: history_max_size
"""

import atexit
import functools
import gc
import os
import socket
import uuid
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.module_utils.common.text.formatters import human_to_bytes
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import action_loader
from ansible.template import Templar

try:
    from swiftdeploy import context, history, untrusted
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
        self._play: Any = None
        self._paths: dict[str, Path | None] = {}
        self._owner = os.getpid()
        # Ctrl-C ends a run without any hook.
        atexit.register(self._close, "interrupted")

    def set_options(self, *args: Any, **kwargs: Any) -> None:
        super().set_options(*args, **kwargs)
        if history is not None:
            path = history.default_path(self.get_option("path"), self._start_folder)
            size = self._max_size()
            self._recorder = history.Recorder(
                path,
                str(uuid.uuid4()),
                history.default_actor(),
                functools.partial(history.append, max_size=size),
                holder=history.Holder(socket.gethostname(), self._owner, context.process_start(self._owner)),
                max_size=size,
            )

    def _max_size(self) -> int | None:
        try:
            return int(human_to_bytes(self.get_option("max_size")))
        except ValueError:
            # The action swiftdeploy_history says so, before anything is changed.
            return None

    def _observe(self, result: Any) -> None:
        if self._recorder is None:
            return
        if not isinstance(result.result, dict):
            return
        name = str(result.task.action)
        # Without its plugin an action of this name would be a module, which runs on the host.
        believed = untrusted.made_here(name if action_loader.has_plugin(name) else "", result.result)
        check = result.task.check_mode is True
        ours = "swiftdeploy_event" in believed or "swiftdeploy_context" in believed
        path = self._path_for(result.host) if ours else None
        self._tell(self._recorder.observe(result.host.get_name(), believed, check, path))

    def _path_for(self, host: Any) -> Path | None:
        """The host's swiftdeploy_history, None where it has none. Asked once a play for each host."""
        name = host.get_name()
        if name not in self._paths:
            variables = self._play.get_variable_manager().get_vars(play=self._play, host=host)
            value = Templar(loader=self._play.get_loader(), variables=variables).template(
                variables.get("swiftdeploy_history")
            )
            given = isinstance(value, str) and value
            self._paths[name] = history.default_path(str(value), self._start_folder) if given else None
        return self._paths[name]

    def _tell(self, problem: str | None) -> None:
        if problem:
            self._display.display(problem, color=constants.COLOR_ERROR, stderr=True)
        while self._recorder is not None and self._recorder.notices:
            self._display.display(self._recorder.notices.pop(0), color=constants.COLOR_WARN, stderr=True)

    def _close(self, how: str) -> None:
        # A worker has a copy of all this.
        if self._recorder is not None and os.getpid() == self._owner:
            for problem in self._recorder.close(how):
                self._tell(problem)
            self._tell(None)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play
        self._paths.clear()
        # Each task of each host is a fork of this process. What is there by now stays to the end: the collector would
        # go through all of it in each of them, and so make copies of memory that they share.
        gc.freeze()

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        if self._recorder is not None:
            self._recorder.task(host.get_name(), task.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._close("the run ended")

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
            reason = untrusted.clean(result.result.get("msg") or "no answer").removeprefix("Task failed: ").strip()
            check = result.task.check_mode is True
            self._tell(self._recorder.unreachable(result.host.get_name(), reason, check))
