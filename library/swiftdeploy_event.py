#!/usr/bin/python
# The work is done on the controller by action_plugins/swiftdeploy_event.py; this file is its documentation.

from __future__ import annotations

DOCUMENTATION = r"""
module: swiftdeploy_event
short_description: Announce an event for the SwiftDeploy history
version_added: 0.1.0
description:
  - Returns the event under C(swiftdeploy_event). The callback C(swiftdeploy_history) appends it to the history,
    the callback C(swiftdeploy) shows its summary at the end of the run.
  - Follow it with M(swiftdeploy_history) and C(state=recorded), which fails the play when the record is missing.
    The role C(record) does both.
  - Do not put C(no_log) on the task, the event would be hidden from the callback too. Nothing but the given fields
    is recorded.
options:
  event:
    description:
      - Name of the event, small letters, digits and underscores.
      - Known to the audit report are V(deploy), V(promote), V(rollback), each alone and with C(_blocked) and
        C(_failed), V(status_scrape), V(chaos), V(policy_unavailable), V(override), V(teardown), V(lock_broken).
      - The history itself writes an operation with C(_interrupted), and V(history_archived).
    type: str
    required: true
  fields:
    description:
      - Fields of the record. Known are C(host) (default the inventory name), C(service), C(mode), C(version),
        C(release), C(req_per_sec), C(error_rate) (0 to 1), C(p99_latency_ms), C(chaos), C(policy) (for each domain
        outcome, reasons, checked, thresholds, decision_id), C(reason), C(duration_s). Others are kept as well.
    type: dict
    default: {}
  summary:
    description:
      - What to show for this host at the end of the run, one or more lines, shown as it is.
      - The last summary of a host wins.
    type: str
  run_id:
    description: Id of the run, the same for all its events. A new one is made when it is not given.
    type: str
  actor:
    description: Who did it. Default is the login name (behind sudo, the person's) at the controller's name.
    type: str
  history_path:
    description: Write to this history instead of C(swiftdeploy_history) and of the one the callback is set to.
    type: str
attributes:
  check_mode:
    description: Can run in check mode; the event then says so and is not written.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
  idempotent:
    description: Every call is an event of its own.
    support: none
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Say that the deploy is done
  swiftdeploy_event:
    event: deploy
    fields:
      service: app
      version: "1.0.0"
      mode: stable
      duration_s: 4.1
    summary: "Deployment successful  {{ inventory_hostname }}  v1.0.0 (stable)  4.1 s"
  register: event
"""

RETURN = r"""
swiftdeploy_event:
  description: The event as the callback takes it.
  returned: success
  type: dict
  sample: {"event": "deploy", "host": "web1", "run_id": "0b9e", "version": "1.0.0", "check": false}
run_id:
  description: Id of the run.
  returned: success
  type: str
  sample: 0b9e7c1e-7f5e-4c3a-9a51-3a1f0a4cf2b1
actor:
  description: Who did it.
  returned: success
  type: str
  sample: ada@control1
timestamp:
  description: When, UTC.
  returned: success
  type: str
  sample: "2026-11-21T03:55:00.123Z"
"""
