"""Counts the tasks of a run as they start, and strikes at one of them.

Reads ``SWIFTDEPLOY_STRIKE``, a JSON object with ``journal`` (a path) and, to strike, ``task`` (from 1), ``way``
(``controller``, ``orphan`` or ``module``) and ``after`` (seconds from the start of the module's process). Every task
start becomes one line of the journal. See runs.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: swiftdeploy_strike
type: notification
short_description: Count the tasks of a run, or kill the run at one of them
description: For tests.
author: SwiftDeploy maintainers (@swiftdeploy)
"""

WATCHER = Path(__file__).resolve().parent.parent / "watcher.py"
_spec = importlib.util.spec_from_file_location("swiftdeploy_strike_watcher", WATCHER)
assert _spec is not None
assert _spec.loader is not None
watcher = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(watcher)


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Strikes before a task runs, or lets the watcher strike while its module does."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "swiftdeploy_strike"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._order = json.loads(os.environ["SWIFTDEPLOY_STRIKE"])
        self._journal = Path(self._order["journal"])
        self._count = 0

    def _watch(self, way: str, *more: str) -> None:
        words = [sys.executable, "-I", "-S", str(WATCHER), way, str(os.getpid()), str(self._journal), *more]
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        assert process.stdout is not None
        process.stdout.readline()

    def _task(self, task: Any) -> None:
        self._count += 1
        watcher.note(self._journal, task=self._count, name=task.get_name(), at=time.monotonic())
        if self._count != self._order.get("task"):
            return
        if self._order["way"] == "controller":
            watcher.note(self._journal, struck=os.getpid())
            watcher.kill_run(os.getpid())
        else:
            self._watch(self._order["way"], str(self._order["after"]))

    def v2_playbook_on_start(self, playbook: Any) -> None:
        if "task" not in self._order:
            self._watch("count")

    def v2_playbook_on_task_start(self, task: Any, is_conditional: Any) -> None:
        self._task(task)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._task(task)
