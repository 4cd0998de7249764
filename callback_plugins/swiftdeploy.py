"""Screen output: one line a step with its time, one summary a host at the end; with -v Ansible's own output."""

from __future__ import annotations

DOCUMENTATION = r"""
name: swiftdeploy
type: stdout
short_description: Short output of SwiftDeploy runs
version_added: 0.1.0
description:
  - Prints one line for each result that carries C(swiftdeploy_step), with the time since the host's previous step,
    and the text of C(swiftdeploy_output) as it is. A task that fails has such a line with a cross, at once.
  - At the end it prints one summary a host, taken from the last C(swiftdeploy_event) that has one, else the reason
    of the failure and what to do.
  - On a terminal it shows what takes longer than a second below the last line, until it is done; elsewhere it prints
    a line for what takes longer than 30 s, 1, 2, 5 minutes and so on.
  - With C(--diff) it shows the differences of changed tasks.
  - With C(-v) and more, under C(molecule) and for C(ansible) itself, it is Ansible's own output with the summaries
    added.
author:
  - SwiftDeploy maintainers (@swiftdeploy)
requirements:
  - set C(stdout_callback = swiftdeploy) in C(ansible.cfg)
extends_documentation_fragment:
  - default_callback
  - result_format_callback
options:
  progress:
    description: Whether to show what is being done while it is being done.
    type: bool
    default: true
    env:
      - name: SWIFTDEPLOY_PROGRESS
    ini:
      - section: swiftdeploy
        key: progress
"""

import atexit
import contextlib
import functools
import os
import sys
from typing import Any

from ansible import constants, context
from ansible.plugins.callback.default import CallbackModule as DefaultCallback
from ansible.plugins.loader import action_loader
from ansible.utils.color import ANSIBLE_COLOR, stringc

try:
    from swiftdeploy import display, history, progress, untrusted, watching
except ImportError:
    # Ansible's own output then; our actions say what is missing.
    display = history = progress = untrusted = watching = None  # type: ignore[assignment]

COLORS = {
    "error": constants.COLOR_ERROR,
    "warning": constants.COLOR_WARN,
    "good": constants.COLOR_OK,
}
# Each has a line; these marks alone are coloured.
MARKS = {"step": constants.COLOR_OK, "cross": constants.COLOR_ERROR}
# These show by themselves that they live, or are over at once.
UNWATCHED = ("swiftdeploy_status", "ansible.builtin.include_role", "ansible.builtin.include_tasks")
DEBUG_ACTIONS = ("debug", "ansible.builtin.debug", "ansible.legacy.debug")


class CallbackModule(DefaultCallback):
    """Hands results to `swiftdeploy.display.Screen`, or to Ansible's own output."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "swiftdeploy"
    # Chosen by stdout_callback; without this Ansible could load it a second time.
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Molecule reads Ansible's own recap to judge idempotence.
        native = "MOLECULE_PROJECT_DIRECTORY" in os.environ or self._display.verbosity > 0
        self._screen = None
        # `ansible` itself (it has a module_name) shows results, not runs.
        if display is not None and "module_name" not in context.CLIARGS:
            self._symbols = display.can_show("✓✗", sys.stdout.encoding)
            self._screen = display.Screen(
                self._show, self._symbols, details=not native, width=lambda: progress.terminal_width(sys.stdout)
            )
        self._short = self._screen is not None and not native
        if untrusted is not None:
            self._guard()
        # Shows status.yml; and whether stdout is for its JSON alone.
        self._watching: watching.Watching | None = None
        self._only_json = False
        self._progress: progress.Progress | None = None
        self._manifests: dict[str, Any] = {}
        self._ended = False
        self._owner = os.getpid()
        # Ctrl-C ends a run without any hook; what failed until then must not be lost.
        atexit.register(self._interrupted)

    # -- printing

    def _guard(self) -> None:
        """Whatever Ansible itself prints of what hosts and inventories say steers no terminal."""
        plain = self._display.display

        @functools.wraps(plain)
        def display_safely(msg: Any, *args: Any, **kwargs: Any) -> None:
            text = untrusted.printable(str(msg))
            if self._short:
                text = "\n".join(untrusted.cut(line, 2 * display.LINE_LENGTH) for line in text.split("\n"))
            plain(text, *args, **kwargs)

        self._display.display = display_safely

    def _show(self, text: str, kind: str) -> None:
        stderr = self._only_json or (kind == "error" and bool(self.get_option("display_failed_stderr")))
        if kind in MARKS:
            mark, _space, rest = text.partition(" ")
            self._display.display(f"{stringc(mark, MARKS[kind])} {rest}", screen_only=True, stderr=stderr)
            self._display.display(text, log_only=True)
        else:
            self._display.display(text, color=COLORS.get(kind), stderr=stderr)
        # A pipe or a CI log is block buffered; a step must be seen when it is done.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()

    def _interrupted(self) -> None:
        if os.getpid() != self._owner:
            return
        if self._progress is not None:
            self._progress.stop()
        if self._watching is not None:
            self._watching.close()
        if self._screen is not None and not self._ended:
            self._screen.finish()

    def _watch(self) -> None:
        """Show what is being done from now on."""
        if not self._short or self._progress is not None or not self.get_option("progress"):
            return
        painter = None
        if progress.terminal_width(sys.stdout) is not None:
            painter = progress.Painter(sys.stdout.fileno(), sys.stdout.encoding, bool(ANSIBLE_COLOR))
        self._progress = progress.Progress(lambda line: self._show(line, "plain"), painter, self._symbols)
        progress.open_channel()
        if painter is not None:
            for name in ("stdout", "stderr"):
                if getattr(sys, name).isatty():
                    setattr(sys, name, progress.Guard(getattr(sys, name), self._progress))

    def _over(self, host: str) -> None:
        """A host's task is over."""
        if self._progress is not None:
            self._progress.end(host)

    def _observe(self, result: Any) -> None:
        """Take what our own keys in a result say. `result.result` holds plain types."""
        if self._screen is None:
            return
        host, action = result.host.get_name(), str(result.task.action)
        # Without its plugin an action of this name would be a module, which runs on the host.
        data = untrusted.made_here(action if action_loader.has_plugin(action) else "", result.result)
        if isinstance(data.get("swiftdeploy_watch"), dict):
            self._watching = watching.Watching(
                data["swiftdeploy_watch"], lambda text: self._show(text, "plain"), live=self._short
            )
        elif self._watching is not None:
            self._watching.take(host, action, data)
        event = data.get("swiftdeploy_event")
        if isinstance(event, dict):
            self._screen.event(history.EVERY if event.get("host") == history.EVERY else host, event)
        if isinstance(data.get("swiftdeploy_output"), str):
            self._screen.output(host, data["swiftdeploy_output"])
        if data.get("swiftdeploy_step") is not None:
            self._screen.step(host, data["swiftdeploy_step"], data.get("swiftdeploy_done") is not False)
        if isinstance(data.get("swiftdeploy_context"), dict):
            began = data["swiftdeploy_context"]
            of = history.EVERY if began.get("host") == history.EVERY else host
            self._screen.began(of, str(began.get("event")))
        if isinstance(data.get("manifest"), dict):
            self._manifests[host] = data["manifest"]
        if not self._short:
            return
        if action in DEBUG_ACTIONS and isinstance(data.get("msg"), str):
            self._show(f"  {host}  {untrusted.clean(data['msg'])}", "plain")
        # Deprecations are for who maintains the playbooks: -v shows them.
        result.result.pop("deprecations", None)
        self._handle_warnings(result.result)

    # -- results

    def v2_runner_on_ok(self, result: Any) -> None:
        self._over(result.host.get_name())
        self._observe(result)
        if not self._short:
            super().v2_runner_on_ok(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._over(result.host.get_name())
        self._observe(result)
        if self._screen is not None and not ignore_errors:
            what = display.task_words(result.task_name or "")
            sticky = result.task.action == "swiftdeploy_history"
            # A literal variable of the task or of a block around it; templates are not filled in here.
            told = any(name.endswith("_tells_failures") for name in result.task.get_vars())
            lines = display.failure_lines(result.result, what)
            self._screen.failure(result.host.get_name(), what, lines, sticky, told)
        if not self._short:
            super().v2_runner_on_failed(result, ignore_errors=ignore_errors)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._over(result.host.get_name())
        self._observe(result)
        if self._screen is not None and not result.task.ignore_unreachable:
            what = display.task_words(result.task_name or "")
            self._screen.unreachable(result.host.get_name(), what, display.unreachable_words(result.result))
        if not self._short:
            super().v2_runner_on_unreachable(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._over(result.host.get_name())
        if not self._short:
            super().v2_runner_on_skipped(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._observe(result)
        if not self._short:
            super().v2_runner_item_on_ok(result)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._observe(result)
        if not self._short:
            super().v2_runner_item_on_failed(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        if not self._short:
            super().v2_runner_item_on_skipped(result)

    def v2_runner_retry(self, result: Any) -> None:
        self._observe(result)
        if not self._short:
            super().v2_runner_retry(result)

    def v2_on_file_diff(self, result: Any) -> None:
        if not self._short:
            super().v2_on_file_diff(result)
            return
        data = result.result
        looped = isinstance(data.get("results"), list) and result.task.loop
        for entry in data["results"] if looped else [data]:
            if isinstance(entry, dict) and entry.get("changed") and entry.get("diff"):
                text = self._get_diff(entry["diff"])
                if text:
                    self._show(f"± {result.host.get_name()}  {display.task_words(result.task_name or '')}", "plain")
                    self._show(text, "plain")

    # -- the course of the run

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        if self._screen is not None:
            self._screen.host(host.get_name())
        if self._progress is not None and task.action not in UNWATCHED:
            name = host.get_name()
            limit = progress.bound(task.action, task.args, self._manifests.get(name, {}))
            self._progress.start(name, display.task_words(task.get_name()), limit)
        if not self._short:
            super().v2_runner_on_start(host, task)

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._watch()
        if not self._short:
            super().v2_playbook_on_start(playbook)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        if self._screen is not None:
            self._screen.batch()
            extra = play.get_variable_manager().extra_vars
            self._only_json = watching.wants_stdout(extra, [role.get_name() for role in play.roles])
        if self._short:
            self._play = play
        else:
            super().v2_playbook_on_play_start(play)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: Any) -> None:
        if not self._short:
            super().v2_playbook_on_task_start(task, is_conditional)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        if not self._short:
            super().v2_playbook_on_handler_task_start(task)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        if not self._short:
            super().v2_playbook_on_include(included_file)

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        if not self._short:
            super().v2_playbook_on_no_hosts_remaining()

    def v2_runner_on_async_poll(self, result: Any) -> None:
        if not self._short:
            super().v2_runner_on_async_poll(result)

    def v2_runner_on_async_ok(self, result: Any) -> None:
        if not self._short:
            super().v2_runner_on_async_ok(result)

    def v2_runner_on_async_failed(self, result: Any) -> None:
        if not self._short:
            super().v2_runner_on_async_failed(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if not self._short:
            super().v2_playbook_on_stats(stats)
        if self._screen is None:
            return
        self._ended = True
        if self._progress is not None:
            self._progress.clear()
        if self._watching is not None:
            self._watching.finish()
        self._screen.finish([host for host in stats.processed if stats.summarize(host)["failures"]])
        if self._short and context.CLIARGS.get("check"):
            self._show("check mode: nothing was changed", "plain")
