#!/usr/bin/python
# The work is done on the controller by action_plugins/swiftdeploy_history.py; this file is its documentation.

from __future__ import annotations

DOCUMENTATION = r"""
module: swiftdeploy_history
short_description: Check the SwiftDeploy history or write the audit report from it
version_added: 0.1.0
description:
  - Works on the controller, on the file the callback C(swiftdeploy_history) writes.
options:
  state:
    description:
      - V(writable) fails when a record could not be written, before anything is done that would need one.
      - V(recorded) fails when the history holds no record of O(run_id), O(event) and O(host). In check mode it
        passes, because nothing is recorded there.
      - V(verified) checks the whole chain and returns what it found. A broken chain is no failure of the task.
      - V(reported) does the same and writes the audit report, from the history alone, as Markdown and as HTML. The same
        history gives the same bytes. The whole chain is checked, whichever records are shown. A broken chain is no
        failure of the task, the report and RV(ok) say it.
      - V(explained) tells one decision of the past, O(decision), in RV(msg), and writes what is needed to decide it
        again to O(explain_path)/ID.
      - V(policies) keeps O(files) beside the history, so that what they decide can be explained later.
      - V(archived) moves the closed files to O(archive_path), with a record that says so; see docs/history.md.
      - V(compared) tells in RV(msg) which switches of O(logs) the history does not know the runs of.
      - V(verified) and V(reported) first record what runs that are gone left open (C(..._interrupted)).
    type: str
    choices: [writable, recorded, verified, reported, explained, policies, archived, compared]
    default: verified
  path:
    description: The history. Default is the variable C(swiftdeploy_history), then the callback's setting.
    type: str
  run_id:
    description: Id of the run, needed for O(state=recorded).
    type: str
  event:
    description: Name of the event, needed for O(state=recorded).
    type: str
  host:
    description: Host of the record. Default is the inventory name.
    type: str
  report_path:
    description: The report. Default is C(audit_report.md) in the folder the playbook was started from.
    type: str
  html_path:
    description: The same report as one HTML file. Default is O(report_path) with the ending C(.html).
    type: str
  since:
    description:
      - O(state=reported) shows records from here on. A date, a time (UTC unless it names a zone), or how long ago, for
        example V(7d), V(24h), V(30m).
    type: str
  until:
    description: The same for the last record that is shown. A date alone is its last moment.
    type: str
  report_host:
    description: O(state=reported) shows records of this host, or of those that a shell pattern such as V(web*) matches.
    type: str
  decision:
    description: Id of the decision, or the first eight letters or more of it, needed for O(state=explained).
    type: str
  explain_path:
    description: Folder for O(state=explained). Default is C(audit_decisions) where the playbook was started.
    type: str
  files:
    description: The policies, C(path) and C(content), needed for O(state=policies).
    type: list
    elements: dict
  logs:
    description: What hosts remember of their releases, by host, needed for O(state=compared).
    type: dict
  archive_path:
    description: The folder that gets the closed files, needed for O(state=archived). It must exist.
    type: str
attributes:
  check_mode:
    description: Reads as usual; nothing is written.
    support: full
  diff_mode:
    description: Shows the change of the Markdown report, and of the HTML whether it changes.
    support: full
  idempotent:
    description: A report that would not change is not written.
    support: full
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Make sure that the record is there
  swiftdeploy_history:
    state: recorded
    run_id: "{{ event.run_id }}"
    event: deploy

- name: Check the chain
  swiftdeploy_history:
    state: verified

- name: Write the audit report
  swiftdeploy_history:
    state: reported
    report_path: audit_report.md

- name: Write the report of a week on one host
  swiftdeploy_history:
    state: reported
    since: 7d
    report_host: web1

- name: Explain a decision
  swiftdeploy_history:
    state: explained
    decision: 4ca636c1
"""

RETURN = r"""
path:
  description: The history.
  returned: always
  type: str
  sample: /srv/app/history.jsonl
swiftdeploy_appended:
  description: The history (C(path)) and the lines (C(records)) that tell of runs that are gone, for the callback.
  returned: when some were appended
  type: dict
exists:
  description: Whether there is a history at all.
  returned: when O(state) is V(verified) or V(reported)
  type: bool
  sample: true
ok:
  description: Whether the chain is whole. True when there is no history.
  returned: when O(state) is V(verified) or V(reported)
  type: bool
  sample: true
records:
  description: How many records there are.
  returned: when O(state) is V(verified) or V(reported)
  type: int
  sample: 12
first_bad_line:
  description: Number of the first wrong line, from 1; null when all are right.
  returned: when O(state) is V(verified) or V(reported) and the history exists
  type: int
  sample: 7
problem:
  description: What is wrong with that line.
  returned: when O(state) is V(verified) or V(reported) and the history exists
  type: str
  sample: "hash does not fit the line: it was changed after it was written"
bad_lines:
  description: How many lines are wrong.
  returned: when O(state) is V(verified) or V(reported) and the history exists
  type: int
  sample: 0
file:
  description: The file of the first wrong line; null when all are right.
  returned: when O(state) is V(verified) or V(reported) and the history exists
  type: str
  sample: history.jsonl
last_seq:
  description: Number of the last record. Kept elsewhere with its hash, it shows whether the end was exchanged.
  returned: when O(state) is V(verified) or V(reported) and the history exists
  type: int
  sample: 12
last_hash:
  description: Hash of the last record.
  returned: when O(state) is V(verified) or V(reported) and the history exists
  type: str
  sample: 5d41402abc4b2a76b9719d911017c592ae2f3e1b1ad8cdd0fe0a4a9c2e3f1a6b
notes:
  description: What the check cannot know, and where the history starts when earlier lines were archived.
  returned: when O(state) is V(verified) or V(reported) and the history exists
  type: list
  elements: str
  sample: ["the end cannot be checked: history.jsonl.head is missing"]
unseen:
  description: The entries of O(logs) whose run the history does not know, each with its C(host), oldest first.
  returned: when O(state) is V(compared)
  type: list
  elements: dict
  sample: [{"host": "web1", "at": "2026-11-21T03:55:00.123Z", "event": "live", "actor": "bob@laptop"}]
archived:
  description: Names of the files that were moved.
  returned: when O(state) is V(archived)
  type: list
  elements: str
  sample: [history.jsonl.000000000001-000000004321]
report_path:
  description: The report.
  returned: when O(state) is V(reported)
  type: str
  sample: /srv/app/audit_report.md
html_path:
  description: The same as HTML.
  returned: when O(state) is V(reported)
  type: str
  sample: /srv/app/audit_report.html
shown:
  description: Which records are shown and how many of how many; empty when all are.
  returned: when O(state) is V(reported)
  type: str
  sample: "since 2026-11-14 00:00:00, host web1: shows 120 of 3400 records"
charts_problem:
  description: Why the HTML has no charts although there are readings; empty when all is well.
  returned: when O(state) is V(reported)
  type: str
  sample: ""
explain_path:
  description: The folder with input.json, answer.json and policies/; null where the policies are not kept.
  returned: when O(state) is V(explained)
  type: str
  sample: /srv/app/audit_decisions/4ca636c1-55e4-417a-b1d8-4aceb67960d1
policies_path:
  description: Where the policies are kept.
  returned: when O(state) is V(policies)
  type: str
  sample: /srv/app/history.jsonl.policies/3f1c0c0e3e6b0d5a4b7c2f9a9a0c8d1e5f60718293a4b5c6d7e8f90123456789.json
seq:
  description: Number of the record.
  returned: when O(state) is V(recorded), except in check mode
  type: int
  sample: 12
hash:
  description: Hash of the record.
  returned: when O(state) is V(recorded), except in check mode
  type: str
  sample: 5d41402abc4b2a76b9719d911017c592ae2f3e1b1ad8cdd0fe0a4a9c2e3f1a6b
"""
