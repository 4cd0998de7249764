"""Tells other programs of chosen events. Observes and hands over, never waits, never decides."""

from __future__ import annotations

DOCUMENTATION = r"""
name: swiftdeploy_notify
type: notification
short_description: Post events of SwiftDeploy runs to a web address
version_added: 0.1.0
description:
  - Looks at every task result. One that carries the key C(swiftdeploy_event), and whose event is chosen, is posted as
    JSON by a process of its own, which tries again for some minutes. The run does not wait for it.
  - Does nothing unless an address is configured, by the environment variable C(SWIFTDEPLOY_NOTIFY_URL) or by
    O(url_file). The address is often a secret, so it is no setting of its own.
  - With C(SWIFTDEPLOY_NOTIFY_SECRET) or O(secret_file) a generic body is signed.
  - In check mode nothing is sent.
  - What could not be delivered becomes the event C(notification_failed) of the history.
author:
  - SwiftDeploy maintainers (@swiftdeploy)
requirements:
  - enable it under C(callbacks_enabled) in C(ansible.cfg)
  - the Python packages C(swiftdeploy) and C(requests), installed by C(make setup)
options:
  url_file:
    description:
      - A file with one address a line, as C(ADDRESS) or C(NAME FORMAT ADDRESS). Lines that begin with a hash are
        comments.
    type: path
    env:
      - name: SWIFTDEPLOY_NOTIFY_URL_FILE
    ini:
      - section: swiftdeploy
        key: notify_url_file
  secret_file:
    description: A file with the secret that generic bodies are signed with.
    type: path
    env:
      - name: SWIFTDEPLOY_NOTIFY_SECRET_FILE
    ini:
      - section: swiftdeploy
        key: notify_secret_file
  format:
    description: The body of an address that names no format of its own.
    type: str
    default: generic
    env:
      - name: SWIFTDEPLOY_NOTIFY_FORMAT
    ini:
      - section: swiftdeploy
        key: notify_format
  events:
    description: Which events, as names or shell patterns.
    type: list
    elements: str
    default:
      - deploy*
      - promote*
      - rollback*
      - override
      - lock_broken
      - policy_unavailable
      - "*_interrupted"
    env:
      - name: SWIFTDEPLOY_NOTIFY_EVENTS
    ini:
      - section: swiftdeploy
        key: notify_events
  seconds:
    description: How long one event is tried, in seconds.
    type: float
    default: 300
    env:
      - name: SWIFTDEPLOY_NOTIFY_SECONDS
    ini:
      - section: swiftdeploy
        key: notify_seconds
"""

import importlib.util
import os
import uuid
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import action_loader

try:
    from swiftdeploy import history, notify
except ImportError:
    # Said by the action swiftdeploy_history, which can fail the play; this plugin could only warn.
    notify = None  # type: ignore[assignment]

SECRETS = ("SWIFTDEPLOY_NOTIFY_URL", "SWIFTDEPLOY_NOTIFY_SECRET")
OPTIONS = ("url_file", "secret_file", "format", "events", "seconds")


class CallbackModule(CallbackBase):
    """Hands task results to `swiftdeploy.notify.Outbox`, and what comes of them to its `Sender`."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "swiftdeploy_notify"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._outbox: notify.Outbox | None = None
        self._sender: notify.Sender | None = None
        # Now, before anything can change the working folder.
        self._start_folder = os.getcwd()  # noqa: PTH109 - a string is what is stored

    def set_options(self, *args: Any, **kwargs: Any) -> None:
        super().set_options(*args, **kwargs)
        # Out of the environment of everything that this run starts.
        secrets = {name: os.environ.pop(name, "") for name in SECRETS}
        if notify is None:
            return
        try:
            given = notify.settings(secrets, {name: self.get_option(name) for name in OPTIONS})
        except notify.SettingsError as error:
            self._warn(str(error))
            return
        if given is None:
            return
        if importlib.util.find_spec("requests") is None:
            self._warn("the Python package requests is missing: run `make setup`")
            return
        self._outbox = notify.Outbox(given.events, str(uuid.uuid4()), history.default_actor())
        self._sender = notify.Sender(given, history.default_path(self._history(), self._start_folder))

    @staticmethod
    def _history() -> str | None:
        try:
            found = constants.config.get_config_value("path", plugin_type="callback", plugin_name="swiftdeploy_history")
        except AnsibleError:
            return None
        return str(found) if found else None

    def _warn(self, text: str) -> None:
        self._display.warning(f"no notifications are sent: {text}")

    def _observe(self, result: Any) -> None:
        if self._outbox is None:
            return
        name = str(result.task.action)
        # Only our own actions run on the controller throughout; any module's result comes from a host.
        trusted = name.startswith("swiftdeploy_") and action_loader.has_plugin(name)
        check = result.task.check_mode is True
        self._send(self._outbox.observe(result.host.get_name(), result.result, trusted, check))

    def _send(self, told: dict[str, Any] | None) -> None:
        if told is None or self._sender is None:
            return
        try:
            self._sender.send(told)
        except OSError as error:
            self._outbox = None
            self._warn(f"the process that posts them could not be started ({error.strerror or 'it has ended'})")

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
        if self._outbox is not None and not result.task.ignore_unreachable:
            reason = str(result.result.get("msg") or "no answer").removeprefix("Task failed: ").strip()
            check = result.task.check_mode is True
            self._send(self._outbox.unreachable(result.host.get_name(), reason, check))
