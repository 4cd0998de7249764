"""Tells other programs of chosen events. Reads the settings and listens to the history; never waits, never decides."""

from __future__ import annotations

DOCUMENTATION = r"""
name: swiftdeploy_notify
type: notification
short_description: Post events of SwiftDeploy runs to a web address
version_added: 0.1.0
description:
  - Of what the callback C(swiftdeploy_history) appends to the history, chosen events are posted as JSON by a process of
    its own, which tries again for some minutes. The run does not wait for it.
  - An event that could not be appended is posted too, and its reason says so.
  - Does nothing unless an address is configured, by the environment variable C(SWIFTDEPLOY_NOTIFY_URL) or by
    O(url_file). The address is often a secret, so it is no setting of its own.
  - With C(SWIFTDEPLOY_NOTIFY_SECRET) or O(secret_file) a generic body is signed.
  - In check mode nothing is sent.
  - What could not be delivered becomes the event C(notification_failed) of the same history.
author:
  - SwiftDeploy maintainers (@swiftdeploy)
requirements:
  - enable it and C(swiftdeploy_history) under C(callbacks_enabled) in C(ansible.cfg)
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
from typing import Any

from ansible.plugins.callback import CallbackBase

try:
    from swiftdeploy import history, notify
except ImportError:
    # Said by the action swiftdeploy_history, which can fail the play; this plugin could only warn.
    notify = None  # type: ignore[assignment]

SECRETS = ("SWIFTDEPLOY_NOTIFY_URL", "SWIFTDEPLOY_NOTIFY_SECRET")
OPTIONS = ("url_file", "secret_file", "format", "events", "seconds")


class CallbackModule(CallbackBase):
    """Makes a `swiftdeploy.notify.Sender` listen to the history. It looks at no task itself."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "swiftdeploy_notify"
    CALLBACK_NEEDS_ENABLED = True

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
        history.listeners.append(notify.Sender(given, self._warn).tell)

    def _warn(self, text: str) -> None:
        self._display.warning(f"no notifications are sent: {text}")
