#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_hold
short_description: Hold a canary at its weight, decide, and take its traffic back where it may not go on
version_added: "0.1.0"
description:
  - Measures the canary and the live release beside it for a window, in looks of a tenth of it. Each look asks the
    policy engine; before the window is whole only a denial counts, and the policy judges it by looser thresholds.
  - Where the answer is a denial, where the canary becomes unhealthy, or where the evidence is still insufficient (or
    the policy engine unavailable) after the deadline, all traffic goes back to the live release at once, and the
    task fails. The canary's own slot goes on running until it is stopped.
  - Shows one line of progress for each look.
options:
  stack: {description: The options that C(swiftdeploy_stack) returned for this host., type: dict, required: true}
  slot: {description: The canary's slot., type: str, required: true}
  baseline: {description: The live slot., type: str, required: true}
  place: {description: Which step this is. Keys C(number), C(of) and C(weight)., type: dict, required: true}
  measurement: {description: Arguments of C(swiftdeploy_metrics)., type: dict, required: true}
  watch:
    description: How the canary's health is asked meanwhile. Keys C(url), C(timeout), C(interval), C(retries).
    type: dict
    required: true
  window_seconds: {description: Seconds of evidence., type: float, required: true}
  deadline_seconds:
    description: Seconds after which insufficient evidence takes the traffic back.
    type: float
    required: true
  probes: {description: Arguments C(probes) of C(swiftdeploy_metrics)., type: dict}
  opa:
    description: 'Arguments of C(swiftdeploy_opa) but the queries: C(url), C(timeout), C(revision).'
    type: dict
    required: true
  question: {description: The policy's input apart from the evidence., type: dict, required: true}
  failure_policy:
    description: Whether a policy engine that gives no decision lets the canary go on.
    type: str
    choices: [ignore, fail]
    default: fail
  back:
    description: Arguments of C(swiftdeploy_route) that take the traffic back.
    type: dict
    required: true
attributes:
  check_mode:
    description: Is not to be run in check mode, where no canary was started.
    support: none
  diff_mode:
    description: Has nothing to show.
    support: none
  idempotent:
    description: Measures anew each time.
    support: none
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Hold the weight and decide
  swiftdeploy_hold:
    stack: "{{ stack_options }}"
    slot: green
    baseline: blue
    place: {number: 1, of: 3, weight: 5}
    measurement: "{{ manifest_config | sd_measurement(stack_observed, ['green', 'blue']) }}"
    watch: {url: "http://127.0.0.1:3001/healthz", timeout: 2, interval: 1, retries: 3}
    window_seconds: 30
    deadline_seconds: 300
    opa: {url: "{{ stack_options.opa_url }}", timeout: 3}
    question: {environment: production, action: promote, min_requests: 20}
    back: "{{ canary_back }}"
"""

RETURN = r"""
outcome:
  description:
    - V(advance), the canary may go on; V(back), the decision or the deadline took its traffic back; V(unhealthy), its
      health did, or it could not be measured.
  returned: always
  type: str
evidence:
  description: The canary's evidence record of the window, as C(swiftdeploy_metrics) returns it.
  returned: always
  type: dict
baseline_evidence:
  description: The live release's record of the same window.
  returned: always
  type: dict
policy:
  description: The last decision, under C(canary), as C(swiftdeploy_opa) returns it.
  returned: always
  type: dict
held_s:
  description: Seconds from the begin of the window to the decision.
  returned: always
  type: float
back_s:
  description: Seconds from the decision until all traffic was on the live release again.
  returned: when it was taken back
  type: float
"""
